//! What a circuit breaker remembers of calls: those of the last seconds (`time`), or so many of them, however long ago (`calls`).

mod calls;
mod time;

use std::ops::{AddAssign, SubAssign};
use std::time::{Duration, Instant};

use self::calls::CallWindow;
use self::time::TimeWindow;

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

#[derive(Debug)]
pub(crate) enum Window {
    Time(TimeWindow),
    Calls(CallWindow),
}

impl Window {
    pub(crate) fn of_time(now: Instant, length: Duration, buckets: u32) -> Self {
        Self::Time(TimeWindow::new(now, length, buckets))
    }

    pub(crate) fn of_calls(most: u32) -> Self {
        Self::Calls(CallWindow::new(most))
    }

    pub(crate) fn add(&mut self, now: Instant, counts: Counts) {
        match self {
            Self::Time(window) => window.add(now, counts),
            Self::Calls(window) => window.add(counts),
        }
    }

    /// What was seen before the current bucket ended, even if it has by now.
    pub(crate) fn add_to_current(&mut self, counts: Counts) {
        match self {
            Self::Time(window) => window.add_to_current(counts),
            Self::Calls(window) => window.add(counts),
        }
    }

    /// When the window next forgets something by itself, if it does.
    pub(crate) fn ends(&self) -> Option<Instant> {
        match self {
            Self::Time(window) => Some(window.ends()),
            Self::Calls(_) => None,
        }
    }

    /// The sum when the window was last asked, or added to.
    pub(crate) fn last_sum(&self) -> &Counts {
        match self {
            Self::Time(window) => window.last_sum(),
            Self::Calls(window) => window.sum(),
        }
    }

    /// What has been seen within the window that ends now.
    pub(crate) fn sum(&mut self, now: Instant) -> &Counts {
        match self {
            Self::Time(window) => window.sum(now),
            Self::Calls(window) => window.sum(),
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Time(window) => window.clear(),
            Self::Calls(window) => window.clear(),
        }
    }
}
