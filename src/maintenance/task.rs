//! The background task: it makes the rounds, and looks at the server while the circuit is open.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::select;
use tokio::runtime::Handle;
use tokio::time::{self, Instant};

use super::Maintenance;
use super::readiness::Asked;
use super::reports::ROUND;
use crate::conn::Dialer;
use crate::event::EventKind;
use crate::slots::Slots;
use crate::telemetry::Telemetry;

impl Maintenance {
    pub(super) fn begin(self: &Arc<Self>, runtime: Option<Handle>) {
        let Some(runtime) = runtime.filter(|_| !self.is_running.swap(true, SeqCst)) else { return };
        let running = Running(Arc::clone(self));
        runtime.spawn(async move {
            let rounds = running.0.go_round();
            select(pin!(rounds), pin!(running.0.look_out())).await;
        });
    }

    async fn go_round(&self) {
        let (mut asked, mut is_measured) = (Asked::default(), false);
        while let Some((slots, recorder)) = self.open_pool() {
            slots.sweep();
            slots.reap();
            slots.dial_what_is_wanted();
            self.reports.look(Instant::now().into_std(), &slots, &recorder);
            self.look_if_asked(&mut asked, &slots, &recorder);
            // Not with the only one, which somebody may want.
            if !is_measured && slots.counts().idle > 1 {
                is_measured = true;
                tokio::spawn(measure(Arc::clone(&slots), Arc::clone(&self.reports.telemetry), self.connect_timeout));
            }
            // One that is silent may have been forgotten by a firewall: of the server it says nothing, as the next dial will.
            for check in slots.begin_checks() {
                tokio::spawn(check.run());
            }
            drop((slots, recorder));
            select(pin!(self.bell.notified()), pin!(time::sleep(ROUND))).await;
        }
        // Once more: the pool may have ended while this looked at it.
        self.reports.end(self.pool().map(|(slots, _)| slots).as_deref());
    }
}

/// Whether the server has as many connections left as the pool may open. If it cannot be told in time, nothing is.
async fn measure(slots: Arc<Slots<Dialer>>, telemetry: Arc<Telemetry>, within: Duration) {
    let Some(lease) = slots.borrow() else { return };
    match time::timeout(within, lease.connections_left()).await {
        Ok(left) => {
            drop(lease);
            let counts = slots.counts();
            let own = counts.idle + counts.in_use + counts.settling;
            let left = left.map(|left| usize::try_from(left).unwrap_or(0) + own);
            if let Some(left) = left.filter(|left| *left < counts.limit) {
                telemetry.emit(EventKind::TooLarge { max_size: counts.limit, left });
            }
        }
        Err(_) => lease.discard(),
    }
}

/// The right to be the pool's background task, of which there is one.
struct Running(Arc<Maintenance>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, SeqCst);
    }
}
