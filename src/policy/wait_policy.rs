//! How long a caller waits, and which callers the pool refuses instead.

use std::time::Instant;

use super::{Deadline, Lane};

/// Which callers the pool refuses at once instead of letting them wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Shedding {
    /// Refuses callers beyond [`max_waiting`](crate::PoolBuilder::max_waiting) and callers that could not be served in
    /// time. In an overload, it also refuses callers beyond those that keep the connections busy. The default.
    #[default]
    Predictive,
    /// Refuses callers beyond [`max_waiting`](crate::PoolBuilder::max_waiting). A call with a deadline for the whole
    /// call ([`Call::deadline`](crate::Call::deadline)) is also refused when its turn comes and it can no longer finish
    /// in time.
    QueueOnly,
    /// Refuses no caller. Every caller waits until its deadline, and a call that can no longer finish still gets a
    /// connection.
    ///
    /// In an overload this costs most of the useful work: callers get a connection when nearly all their time has
    /// passed, and their answers come too late. The queue is limited to a million waiters.
    Off,
}

/// How long a caller waits, whether its work has to end by its deadline, and how much it matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitPolicy {
    pub(crate) deadline: Deadline,
    /// Whether the deadline is for the whole call, wait and work.
    pub(crate) includes_work: bool,
    pub(crate) shedding: Shedding,
    pub(crate) lane: Lane,
}

impl WaitPolicy {
    /// Returns the part of the time left that the caller can spend waiting, in seconds. `work` returns the duration of
    /// the work in seconds; it is called only if it matters.
    pub(crate) fn wait_budget(&self, left: f64, work: impl FnOnce() -> Option<f64>) -> f64 {
        if self.includes_work { (left - work().unwrap_or_default()).max(0.0) } else { left }
    }

    /// Returns whether the caller gets its connection too late to finish its work. Always `false` with `Shedding::Off`,
    /// where every caller gets a connection.
    pub(crate) fn is_too_late(&self, now: Instant, work: impl FnOnce() -> Option<f64>) -> bool {
        let must_finish = self.includes_work && self.shedding != Shedding::Off;
        must_finish && work().is_some_and(|work| self.deadline.left(now).as_secs_f64() < work)
    }
}
