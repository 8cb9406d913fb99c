//! The background task. It makes a round four times a second, and asks the server whether it is back while the circuit
//! is open.
//!
//! When the circuit opens, the pool refuses its waiters and dials no more for them. The task then checks the server
//! at once, and again a second after each check began: on an idle connection, or by a dial with all of
//! `connect_timeout`. It begins no second dial while the first may still succeed, except beside a quiet one.
//!
//! If the circuit opened because the server could not be reached, the first answer lets callers probe it, long before
//! the reset timeout. Otherwise the reset timeout has to pass, because a server that answers may still fail its
//! callers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::select;
use tokio::runtime::Handle;
use tokio::time::{self, Instant};

use super::readiness::Asked;
use super::reports::ROUND;
use super::{Maintenance, PACE};
use crate::breaker::State;
use crate::conn::{Dialer, OutcomeRecorder};
use crate::event::EventKind;
use crate::slots::{ServerCheck, Slots};
use crate::telemetry::Telemetry;

/// The pause after a check that did not reach the server: every slot was taken, or a dial under way will answer as
/// well.
const NO_WAY: Duration = Duration::from_millis(50);

impl Maintenance {
    /// Starts the task in `runtime`, unless it runs.
    pub(super) fn begin(self: &Arc<Self>, runtime: Option<Handle>) {
        #[cfg(feature = "fleet")]
        // A fleet's task starts with this one, and outlives it while the pool is drained.
        if let (Some(fleet), Some(runtime), Some((slots, _))) =
            (&self.reports.fleet, &runtime, self.pool_unless_closed())
        {
            fleet.start(&slots, runtime);
        }
        let Some(runtime) = runtime.filter(|_| !self.is_running.swap(true, SeqCst)) else { return };
        let running = Running(Arc::clone(self));
        runtime.spawn(async move {
            select(pin!(running.0.go_round()), pin!(running.0.check_the_server())).await;
        });
    }

    async fn go_round(&self) {
        let (mut asked, mut is_measured) = (Asked::default(), false);
        while let Some((slots, recorder)) = self.pool_unless_closed() {
            slots.sweep();
            slots.reap();
            slots.dial_what_is_wanted();
            self.reports.look(Instant::now().into_std(), &slots, &recorder);
            self.check_if_asked(&mut asked, &slots, &recorder);
            // Two idle connections: a caller that comes meanwhile finds the other one.
            if !is_measured && slots.counts().idle > 1 {
                is_measured = true;
                tokio::spawn(measure(Arc::clone(&slots), Arc::clone(&self.reports.telemetry), self.connect_timeout));
            }
            // An idle connection without an answer does not count against the server: a firewall may have dropped it.
            for check in slots.begin_checks() {
                tokio::spawn(check.run());
            }
            drop((slots, recorder));
            select(pin!(self.next_round.notified()), pin!(time::sleep(ROUND))).await;
        }
        // Once more, because the pool may have ended during the round.
        self.reports.on_end(self.pool().map(|(slots, _)| slots).as_deref());
    }

    async fn check_the_server(&self) {
        loop {
            self.check_while_open().await;
            self.opened.notified().await;
        }
    }

    async fn check_while_open(&self) {
        while self.pool_with_open_circuit().is_some() {
            let next = *self.next_check.lock();
            if let Some(next) = next {
                time::sleep_until(next).await;
            }
            let Some((slots, recorder)) = self.pool_with_open_circuit() else { return };
            let begun = Instant::now();
            *self.next_check.lock() = Some(begun + PACE);
            match slots.check_server().await {
                ServerCheck::Answers => recorder.on_server_answer(),
                ServerCheck::Silent => recorder.on_server_late(),
                ServerCheck::Dials => {}
                ServerCheck::Nothing => *self.next_check.lock() = Some(begun + NO_WAY),
            }
        }
    }

    /// The pool, if its circuit is open.
    fn pool_with_open_circuit(&self) -> Option<(Arc<Slots<Dialer>>, Arc<OutcomeRecorder>)> {
        self.pool_unless_closed().filter(|(_, recorder)| recorder.breaker().last_state() == State::Open)
    }
}

/// Reports if the server has fewer connections left than the pool may open. A server that does not answer in time is
/// not reported.
async fn measure(slots: Arc<Slots<Dialer>>, telemetry: Arc<Telemetry>, within: Duration) {
    let Some(lease) = slots.borrow() else { return };
    match time::timeout(within, lease.connections_left()).await {
        Ok(left) => {
            drop(lease);
            let counts = slots.counts();
            let own = counts.idle + counts.in_use + counts.settling;
            let left = left.map(|left| usize::try_from(left).unwrap_or(0) + own);
            if let Some(left) = left.filter(|left| *left < counts.limit) {
                telemetry.emit(EventKind::PoolTooLarge { max_size: counts.limit, left });
            }
        }
        Err(_) => lease.discard(),
    }
}

/// The right to run the task, of which a pool has one.
struct Running(Arc<Maintenance>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, SeqCst);
    }
}
