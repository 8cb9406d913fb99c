//! What a circuit breaker remembers of calls: those of the last seconds (`time`), or so many of them, however long ago (`calls`).

mod calls;
mod counts;
mod time;

use std::time::{Duration, Instant};

use self::calls::CallWindow;
pub use self::counts::Counts;
use self::time::TimeWindow;

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
