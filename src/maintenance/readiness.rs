//! Whether a service that needs this pool should get traffic: the answer for readiness probes.
//!
//! The answer comes from known facts: it waits for nothing, and does not depend on the queue. While probes ask, the
//! pool checks the server by itself if no caller has had an answer lately.
//!
//! If callers hold all connections, the pool is busy while a statement runs on any of them. If the server has been
//! silent for long, the pool checks it on a connection of its own, one beyond the limit. If no statement runs, the
//! callers are stuck, and no check would help.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Maintenance, PACE};
use crate::conn::{Dialer, OutcomeRecorder};
use crate::holder::{Holder, HolderState};
use crate::slots::{ServerCheck, Slots};

/// How long after a question the pool goes on checking the server. Probes ask at least once in this time.
const ASKED: Duration = Duration::from_secs(60);

/// Why a pool cannot serve. Overload is no reason, because another instance would refuse the same callers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The pool was closed, or is being drained.
    #[error("the pool is closed")]
    Closed,
    /// The database has not answered yet.
    #[error("the database has not answered yet{}", because(.last_connect_error))]
    #[non_exhaustive]
    Starting {
        /// The error of the latest dial, if it failed.
        last_connect_error: Option<String>,
    },
    /// The database has not answered for longer than [`unready_after`](crate::PoolBuilder::unready_after).
    #[error("the database has not answered for {} s{}", .silence.as_secs(), because(.last_connect_error))]
    #[non_exhaustive]
    Silent {
        /// How long ago the database last answered.
        silence: Duration,
        /// The error of the latest dial, if it failed.
        last_connect_error: Option<String>,
    },
    /// No host of a cluster has been its primary yet. Only a `Cluster` says this.
    #[cfg(feature = "cluster")]
    #[error("no host has been the primary yet")]
    NoPrimary,
    /// Callers have held all connections for longer than [`unready_after`](crate::PoolBuilder::unready_after), and no
    /// statement runs on any of them: the guards are leaked, or their owners are stuck. The event
    /// [`LeakSuspected`](crate::EventKind::LeakSuspected) says where each was taken.
    #[error("all {held} connections have been held for {} s, and no statement runs on any of them", .silence.as_secs())]
    #[non_exhaustive]
    Stuck {
        /// How many connections callers hold.
        held: usize,
        /// How long ago the database last answered.
        silence: Duration,
    },
}

fn because(error: &Option<String>) -> String {
    error.as_ref().map(|error| format!("; last dial failed: {error}")).unwrap_or_default()
}

/// How callers use the connections.
enum Use {
    /// They hold some, or none.
    Partial,
    /// They hold all. A statement runs on one, or one was taken lately.
    Busy,
    /// They hold all, and have run no statement for long.
    Stuck { held: usize },
}

/// The pool's own checks of the server on behalf of readiness probes.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Until when the pool checks.
    until: Option<Instant>,
    /// When the next check may begin. A check may be a dial, and a server that is down must not get many dials.
    next: Option<Instant>,
    check: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(crate) fn ready(self: &Arc<Self>) -> Result<(), NotReady> {
        self.is_wanted_ready.store(true, Relaxed);
        self.begin(Handle::try_current().ok());
        let Some((slots, _)) = self.pool_unless_closed() else { return Err(NotReady::Closed) };
        let last_connect_error = || slots.last_error().map(|error| error.to_string());
        let Some(silence) = self.reports.last_success(Instant::now().into_std()) else {
            return Err(NotReady::Starting { last_connect_error: last_connect_error() });
        };
        if silence <= self.unready_after {
            return Ok(());
        }
        match self.use_of(&slots) {
            Use::Busy if !self.is_found_silent.load(Relaxed) => Ok(()),
            Use::Stuck { held } => Err(NotReady::Stuck { held, silence }),
            Use::Partial | Use::Busy => Err(NotReady::Silent { silence, last_connect_error: last_connect_error() }),
        }
    }

    fn use_of(&self, slots: &Slots<Dialer>) -> Use {
        if !slots.counts().is_fully_leased() {
            return Use::Partial;
        }
        let holders = self.reports.holders(Instant::now().into_std(), slots);
        let is_stuck = |holder: &Holder| {
            let is_idle = holder.state == HolderState::WaitingForCaller && holder.running.is_none();
            is_idle && holder.age >= self.unready_after
        };
        let held = holders.len();
        if held >= slots.counts().limit && holders.iter().all(is_stuck) { Use::Stuck { held } } else { Use::Busy }
    }

    /// Checks the server if a probe asks for readiness and no caller has had an answer lately.
    pub(super) fn check_if_asked(
        &self,
        asked: &mut Asked,
        slots: &Arc<Slots<Dialer>>,
        recorder: &Arc<OutcomeRecorder>,
    ) {
        let now = Instant::now();
        if self.is_wanted_ready.swap(false, Relaxed) {
            asked.until = Some(now + ASKED);
        }
        let silence = self.reports.last_success(now.into_std());
        let is_known = silence.is_some_and(|silence| silence < self.unready_after / 3);
        let is_checking =
            asked.check.as_ref().is_some_and(|check| !check.is_finished()) || asked.next.is_some_and(|next| now < next);
        if is_known {
            self.is_found_silent.store(false, Relaxed);
        }
        if is_known || is_checking || asked.until.is_none_or(|until| until < now) {
            return;
        }
        asked.next = Some(now + PACE.min(self.unready_after / 3));
        let (slots, recorder) = (Arc::clone(slots), Arc::clone(recorder));
        match self.use_of(&slots) {
            Use::Partial => {}
            Use::Stuck { .. } => return,
            Use::Busy => {
                let is_found_silent = Arc::clone(&self.is_found_silent);
                let check = async move { is_found_silent.store(!slots.dial_aside().await, Relaxed) };
                asked.check = Some(tokio::spawn(check));
                return;
            }
        }
        asked.check = Some(tokio::spawn(async move {
            // A dial reports its end by itself.
            if let ServerCheck::Answers = slots.check_server().await {
                recorder.on_server_answer();
            }
        }));
    }
}
