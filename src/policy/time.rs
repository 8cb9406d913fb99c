//! Time for the rule of refusal: seconds since the pool began.
//!
//! To subtract two [`Time`]s takes one instruction. To subtract two [`Instant`]s and convert the result to seconds
//! takes a hundred, which would be most of the cost of the rule. The core converts once for each transition.

use std::cmp::Ordering;
use std::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(f64);

impl Time {
    pub(crate) fn of(now: Instant, begun: Instant) -> Self {
        Self(now.saturating_duration_since(begun).as_secs_f64())
    }

    /// Returns the seconds since `earlier`. 0 if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0).max(0.0)
    }

    pub(crate) fn after(self, seconds: f64) -> Self {
        Self(self.0 + seconds)
    }

    pub(crate) fn later(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    pub(crate) const BEGIN: Self = Self(0.0);
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Time {}

impl PartialEq for Time {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

#[cfg(test)]
impl std::ops::Add<std::time::Duration> for Time {
    type Output = Self;

    fn add(self, duration: std::time::Duration) -> Self {
        self.after(duration.as_secs_f64())
    }
}

#[cfg(test)]
impl std::ops::AddAssign<std::time::Duration> for Time {
    fn add_assign(&mut self, duration: std::time::Duration) {
        *self = *self + duration;
    }
}
