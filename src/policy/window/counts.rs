//! The counts of a circuit breaker: how many calls ended, and how.

use std::ops::{AddAssign, SubAssign};

/// What a circuit breaker has seen, in its rolling window or of its probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that asked, those rejected included. Counted only with [`BreakerConfig::opossum`](crate::breaker::BreakerConfig::opossum),
    /// where the failure rate is a share of them; else 0.
    pub fires: u64,
    /// Calls that ended, well or not. Ignored ones are not in it.
    pub completed: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those failures that did not reach the server, or had no answer of it.
    pub unreachable: u64,
    /// Those completed calls, failed or not, that took too long.
    pub slow: u64,
    /// Calls that the breaker did not let through. In a [window of calls](crate::BreakerConfig::count_window), since it was empty.
    pub rejected: u64,
    /// Calls that were refused because as many were under way as there may be. In a window of calls, since it was empty.
    pub busy: u64,
}

impl Counts {
    /// Calls that ended well.
    pub fn successes(&self) -> u64 {
        self.completed.saturating_sub(self.failures)
    }

    /// Most failures did not reach the server.
    pub(crate) fn mostly_unreachable(&self) -> bool {
        self.unreachable * 2 > self.failures
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.fires += other.fires;
        self.completed += other.completed;
        self.failures += other.failures;
        self.unreachable += other.unreachable;
        self.slow += other.slow;
        self.rejected += other.rejected;
        self.busy += other.busy;
    }
}

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        self.fires -= other.fires;
        self.completed -= other.completed;
        self.failures -= other.failures;
        self.unreachable -= other.unreachable;
        self.slow -= other.slow;
        self.rejected -= other.rejected;
        self.busy -= other.busy;
    }
}
