//! What a caller is willing to wait for.

use std::time::Instant;

use super::Deadline;

/// Whom the pool refuses at once, rather than let wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Shedding {
    /// Refuses callers beyond [`max_waiting`](crate::PoolBuilder::max_waiting), callers that could not be served in time, and, while more is asked
    /// of the pool than it can do, callers beyond those who keep its connections busy. The default.
    #[default]
    Predictive,
    /// Refuses callers beyond [`max_waiting`](crate::PoolBuilder::max_waiting). A call with a deadline for all of it
    /// ([`Call::deadline`](crate::Call::deadline)) is also refused when its turn comes and it can no longer finish in time.
    QueueOnly,
    /// Refuses nobody: every caller waits until its deadline, and a connection is handed to a call that can no longer finish.
    ///
    /// In an overload this costs most of the useful work: callers are served when nearly all their time has passed, and what is done for them comes too
    /// late. A queue of a million waiters is the end.
    Off,
}

/// How long a caller waits, and what must fit in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitPolicy {
    pub(crate) deadline: Deadline,
    /// The deadline is for the whole call: work must fit in, not only the wait.
    pub(crate) includes_work: bool,
    pub(crate) shedding: Shedding,
}

impl WaitPolicy {
    /// Of the time that is left, what is for waiting. `work` returns how long the work takes, and is called only if it matters. All in seconds.
    pub(crate) fn wait_budget(&self, left: f64, work: impl FnOnce() -> Option<f64>) -> f64 {
        if self.includes_work { (left - work().unwrap_or_default()).max(0.0) } else { left }
    }

    /// Whether a connection handed over now would come too late. With `Shedding::Off`, that is for the caller to decide.
    pub(crate) fn is_too_late(&self, now: Instant, work: impl FnOnce() -> Option<f64>) -> bool {
        let must_finish = self.includes_work && self.shedding != Shedding::Off;
        must_finish && work().is_some_and(|work| self.deadline.left(now).as_secs_f64() < work)
    }
}
