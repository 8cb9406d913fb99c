//! The instant that bounds everything a call does.
//!
//! The pool fixes it once, when the call begins. Timeouts of single phases would add up; one instant does not.

use std::time::{Duration, Instant};

/// Thirty years. No call lasts that long, and no platform's clock overflows.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline after `timeout`. A timeout of more than thirty years means thirty years.
    pub(crate) fn after(now: Instant, timeout: Duration) -> Self {
        Self(now.checked_add(timeout.min(FOREVER)).unwrap_or(now))
    }

    pub(crate) fn at(instant: Instant) -> Self {
        Self(instant)
    }

    pub(crate) fn instant(self) -> Instant {
        self.0
    }

    pub(crate) fn left(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    pub(crate) fn has_passed(self, now: Instant) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_exactly_at_its_instant() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_millis(5));
        assert!(!deadline.has_passed(now + Duration::from_micros(4_999)));
        assert!(deadline.has_passed(now + Duration::from_millis(5)));
    }

    #[test]
    fn the_longest_timeout_does_not_overflow() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::MAX);
        assert!(deadline.instant() > now + Duration::from_secs(20 * 365 * 24 * 3600));
    }
}
