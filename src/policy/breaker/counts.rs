//! The counts of a circuit breaker: calls by how they ended ([`Counts`]), and failures in a row ([`Streak`]).
//!
//! A window of ten seconds is slow to notice that every call fails. The successes before the outage outweigh the
//! failures until the window forgets them, and the busier the service was, the longer that takes. So the circuit also
//! opens when nothing has succeeded for the length of a bucket while as many calls failed as the minimum volume.

use std::ops::{AddAssign, SubAssign};
use std::time::{Duration, Instant};

/// The counts of a circuit breaker: of the calls in its rolling window, or of its probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that asked, including those that were rejected. The breaker counts them only with
    /// [`BreakerConfig::opossum`](crate::breaker::BreakerConfig::opossum), where the failure rate is a share of them.
    /// Otherwise 0.
    pub fires: u64,
    /// Calls that ended and count, as a success or as a failure. Ignored calls are not included.
    pub completed: u64,
    /// Completed calls that failed.
    pub failures: u64,
    /// Failures that did not reach the server, or got no answer from it.
    pub unreachable: u64,
    /// Completed calls that were slow, whether they succeeded or failed.
    pub slow: u64,
    /// Calls that the breaker rejected. With a [window of calls](crate::BreakerConfig::count_window), all since the
    /// window was last cleared.
    pub rejected: u64,
    /// Calls that were refused because the [capacity](crate::CircuitBreaker::with_capacity) was in use. With a window
    /// of calls, all since the window was last cleared.
    pub busy: u64,
}

impl Counts {
    /// Returns the number of calls that succeeded.
    pub fn successes(&self) -> u64 {
        self.completed.saturating_sub(self.failures)
    }

    /// Returns whether most failures did not reach the server.
    pub(crate) fn is_mostly_unreachable(&self) -> bool {
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

/// The failures since the last success.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Streak {
    failures: u64,
    begun: Option<Instant>,
}

impl Streak {
    pub(super) fn add(&mut self, now: Instant, call: Counts) {
        if call.failures < call.completed {
            *self = Self::default();
        } else if call.failures > 0 {
            self.failures += call.failures;
            self.begun.get_or_insert(now);
        }
    }

    /// Adds a failure that is no call: a dial or a health check that the server did not answer.
    pub(super) fn add_silence(&mut self, now: Instant) {
        self.failures += 1;
        self.begun.get_or_insert(now);
    }

    /// Returns the number of failures and how long they have lasted, if there are at least `failures` of them and they
    /// have lasted for at least `lasting`.
    pub(super) fn blackout(&self, now: Instant, failures: u64, lasting: Duration) -> Option<(u64, Duration)> {
        let lasted = now.saturating_duration_since(self.begun?);
        (lasted >= lasting && self.failures >= failures).then_some((self.failures, lasted))
    }
}
