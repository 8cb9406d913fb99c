//! Rates: may a call begin now, and if not, when exactly?
//!
//! The *generic cell rate algorithm* (GCRA) keeps one number, the theoretical arrival time: the instant from which on
//! the next call would be on schedule. Each call moves it by its share of the schedule. A call may come early by the
//! burst. So one word is a whole bucket, and a compare-and-swap changes it: `src/rates/bucket.rs`.
//!
//! All instants are nanoseconds since the pool began, of a clock that does not run backwards for long. Nothing here
//! remembers when it was last asked, so a clock that stands still or steps back only makes the bucket stricter until
//! the clock has caught up.

mod leases;

use std::time::Duration;

pub(crate) use self::leases::{expected, mean_after, overdue, running};

const SECOND: f64 = 1e9;

/// How many units may be used in each second, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gcra {
    /// Nanoseconds of the schedule that one unit takes.
    nanos_per_unit: f64,
    /// How many nanoseconds of the schedule may be used at once.
    burst: u64,
}

impl Gcra {
    /// `per_second` is more than 0.
    pub(crate) fn new(per_second: f64, burst: Duration) -> Self {
        Self { nanos_per_unit: SECOND / per_second, burst: nanos(burst) }
    }

    /// Returns the share of the schedule that so many units take. It is rounded up, so that rounding never exceeds the
    /// rate.
    pub(crate) fn share(&self, units: f64) -> u64 {
        // The cast saturates, and makes 0 of what is no number.
        (units * self.nanos_per_unit).ceil() as u64
    }

    /// Returns in how many nanoseconds a call with this share may begin. 0: it may begin now.
    ///
    /// A share larger than the burst may begin when the bucket is full. Its debt delays the next call. Otherwise no
    /// such call could ever begin.
    pub(crate) fn wait(&self, arrival: u64, now: u64, share: u64) -> u64 {
        arrival.saturating_sub(now.saturating_add(self.burst.saturating_sub(share)))
    }

    /// Returns the theoretical arrival time after a call with this share, or its [`wait`](Self::wait). `overrun` is a
    /// share that was used, and is not charged yet.
    pub(crate) fn admit(&self, arrival: u64, now: u64, share: u64, overrun: u64) -> Result<u64, u64> {
        match self.wait(arrival.saturating_add(overrun), now, share) {
            0 => Ok(arrival.max(now).saturating_add(share)),
            wait => Err(wait),
        }
    }
}

/// Returns the theoretical arrival time once it is known that a call took the share `real` instead of `charged`.
///
/// If it took more, the rest counts as if it had been known at the beginning: the time in which the call ran has paid
/// for it already. If it took less, the bucket gets the rest back, and is never more than full.
pub(crate) fn settled(arrival: u64, now: u64, charged: u64, real: u64) -> u64 {
    if real >= charged {
        return arrival.saturating_add(real - charged);
    }
    arrival.saturating_sub(charged - real).max(arrival.min(now))
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
