//! What a caller is willing to wait for.

use std::time::{Duration, Instant};

use super::Deadline;

/// Whom the pool refuses at once, rather than let wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Shedding {
    /// Callers beyond [`max_waiting`](crate::PoolBuilder::max_waiting); those who would wait longer than they can, by what the pool
    /// has seen; and, while more is asked of the pool than it can do, those beyond the few who keep it busy. The default.
    #[default]
    Predictive,
    /// Callers beyond [`max_waiting`](crate::PoolBuilder::max_waiting).
    QueueOnly,
    /// Nobody: whoever comes waits, up to its deadline. (A million waiters is the end.)
    Off,
}

/// How long a caller waits, and what must fit in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) deadline: Deadline,
    /// The deadline is for the whole call: work must fit in, not only the wait.
    pub(crate) includes_work: bool,
    pub(crate) shedding: Shedding,
}

impl Patience {
    /// The time left for waiting. `work` says how long the work takes, and is asked only if it matters.
    pub(crate) fn room(&self, now: Instant, work: impl FnOnce() -> Option<Duration>) -> Duration {
        let left = self.deadline.left(now);
        if self.includes_work { left.saturating_sub(work().unwrap_or_default()) } else { left }
    }

    /// Whether a connection handed over now would come too late.
    pub(crate) fn is_too_late(&self, now: Instant, work: impl FnOnce() -> Option<Duration>) -> bool {
        let must_finish = self.includes_work && self.shedding == Shedding::Predictive;
        must_finish && work().is_some_and(|work| self.deadline.left(now) < work)
    }
}
