//! The rate of one lane or operation, and what its calls have used of it.
//!
//! There is no lock. Each number has a word of its own, and no decision needs two of them to agree: in the instant in
//! which a lease ends, another call may see it neither as running nor as charged, and begin too early by that much. The
//! bucket then has the debt.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Instant;

use super::bucket::Bucket;
use super::rate::Rate;
use crate::clock::now;
use crate::policy::{expected, mean_after, nanos, overdue, running};

/// A caller that is one too many comes back after this time at the earliest, in nanoseconds.
const SHORTEST_WAIT: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Limiter {
    begun: Instant,
    connection_seconds: Option<Bucket>,
    calls: Option<Bucket>,
    concurrency: Option<usize>,
    /// How many calls are under way, if there is a limit.
    under_way: AtomicUsize,
    /// The leases that have not ended: see `policy::running`.
    running: AtomicU64,
    /// The usual duration of a lease in nanoseconds. 0 before the first has ended. A lease that is lost between threads
    /// does no harm.
    mean: AtomicU64,
}

/// What a call has taken of a rate.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How long its lease was expected to last, in nanoseconds.
    expected: u64,
    /// Its shares of the two schedules.
    connection_seconds: Option<u64>,
    calls: Option<u64>,
    /// When its lease began.
    begun: Option<u64>,
}

impl Limiter {
    pub(super) fn new(begun: Instant, rate: Rate) -> Self {
        let bucket = |per_second| Bucket::new(per_second, rate.burst);
        Self {
            begun,
            connection_seconds: rate.connection_seconds.map(bucket),
            calls: rate.calls.map(bucket),
            concurrency: rate.concurrency,
            under_way: AtomicUsize::new(0),
            running: AtomicU64::new(0),
            mean: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the pool began.
    pub(super) fn now(&self) -> u64 {
        nanos(now().saturating_duration_since(self.begun))
    }

    fn expected(&self) -> u64 {
        expected(self.mean.load(Relaxed))
    }

    /// The share of running leases beyond what they were charged.
    fn overrun(&self, bucket: &Bucket, now: u64) -> u64 {
        bucket.share_of(overdue(self.running.load(Relaxed), now))
    }

    /// About how long it takes until one of `most` calls ends.
    fn until_one_ends(&self, most: usize) -> u64 {
        (self.expected() / most as u64).max(SHORTEST_WAIT)
    }

    /// Returns how long a call has to wait, by the strictest limit. 0 if it may begin now.
    pub(super) fn wait(&self, now: u64) -> u64 {
        let full = self.concurrency.filter(|most| self.under_way.load(Relaxed) >= *most);
        let calls = self.calls.as_ref().map_or(0, |bucket| bucket.wait(now, bucket.share(1.0), 0));
        let seconds = self
            .connection_seconds
            .as_ref()
            .map_or(0, |bucket| bucket.wait(now, bucket.share_of(self.expected()), self.overrun(bucket, now)));
        full.map_or(0, |most| self.until_one_ends(most)).max(calls).max(seconds)
    }

    /// Counts a call as under way. Returns about how long it has to wait if too many are.
    pub(super) fn enter(&self) -> Result<(), u64> {
        let Some(most) = self.concurrency else { return Ok(()) };
        let entered = self.under_way.fetch_update(Acquire, Relaxed, |calls| (calls < most).then_some(calls + 1));
        entered.map(drop).map_err(|_| self.until_one_ends(most))
    }

    /// Charges a call that has entered. If it has to wait, `taken` has what it took before that was known.
    pub(super) fn charge(&self, now: u64, taken: &mut Taken) -> Result<(), u64> {
        if let Some(bucket) = &self.calls {
            let share = bucket.share(1.0);
            bucket.take(now, share, 0)?;
            taken.calls = Some(share);
        }
        if let Some(bucket) = &self.connection_seconds {
            taken.expected = self.expected();
            let share = bucket.share_of(taken.expected);
            bucket.take(now, share, self.overrun(bucket, now))?;
            taken.connection_seconds = Some(share);
        }
        Ok(())
    }

    /// The lease of a call begins.
    pub(super) fn begin(&self, taken: &mut Taken) {
        let begun = self.now();
        taken.begun = Some(begun);
        self.running.fetch_add(running(begun.saturating_add(taken.expected)), Relaxed);
    }

    /// A call has ended. Without a lease, it has used nothing.
    pub(super) fn leave(&self, taken: &Taken) {
        let now = self.now();
        let lease = taken.begun.map(|begun| now.saturating_sub(begun));
        if let Some(begun) = taken.begun {
            self.running.fetch_sub(running(begun.saturating_add(taken.expected)), Relaxed);
        }
        if let Some(lease) = lease {
            self.mean.store(mean_after(self.mean.load(Relaxed), lease), Relaxed);
        }
        if let (Some(bucket), Some(charged)) = (&self.connection_seconds, taken.connection_seconds) {
            bucket.settle(now, charged, lease.map_or(0, |lease| bucket.share_of(lease)));
        }
        if let (Some(bucket), Some(charged), None) = (&self.calls, taken.calls, lease) {
            bucket.settle(now, charged, 0);
        }
        if self.concurrency.is_some() {
            self.under_way.fetch_sub(1, Release);
        }
    }
}
