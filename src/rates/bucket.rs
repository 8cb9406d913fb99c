//! A bucket that all threads share: one word, changed by a compare-and-swap. A refusal only reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::policy::{Gcra, settled};

/// The order of its loads and stores does not matter, because no other data depends on it.
#[derive(Debug)]
pub(super) struct Bucket {
    rules: Gcra,
    /// The theoretical arrival time.
    arrival: AtomicU64,
}

impl Bucket {
    pub(super) fn new(per_second: f64, burst: Duration) -> Self {
        Self { rules: Gcra::new(per_second, burst), arrival: AtomicU64::new(0) }
    }

    /// Returns the share of the schedule that so many units take.
    pub(super) fn share(&self, units: f64) -> u64 {
        self.rules.share(units)
    }

    /// Returns the share of the schedule that so many nanoseconds of a connection take.
    pub(super) fn share_of(&self, nanos: u64) -> u64 {
        self.rules.share(nanos as f64 / 1e9)
    }

    /// Returns how long a call with this share has to wait. 0 if it may begin now.
    pub(super) fn wait(&self, now: u64, share: u64, overrun: u64) -> u64 {
        self.rules.wait(self.arrival.load(Relaxed).saturating_add(overrun), now, share)
    }

    /// Takes a share of the schedule. Returns how long the call has to wait if there is not enough.
    pub(super) fn take(&self, now: u64, share: u64, overrun: u64) -> Result<(), u64> {
        self.change(|arrival| self.rules.admit(arrival, now, share, overrun))
    }

    /// A call has taken the share `real` instead of `charged`.
    pub(super) fn settle(&self, now: u64, charged: u64, real: u64) {
        let changed: Result<(), u64> = self.change(|arrival| Ok(settled(arrival, now, charged, real)));
        debug_assert!(changed.is_ok());
    }

    fn change(&self, next: impl Fn(u64) -> Result<u64, u64>) -> Result<(), u64> {
        let mut arrival = self.arrival.load(Relaxed);
        loop {
            match self.arrival.compare_exchange_weak(arrival, next(arrival)?, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => arrival = newer,
            }
        }
    }
}
