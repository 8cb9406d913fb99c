//! The recent calls that a circuit breaker judges by: the calls of the last seconds, or a number of the last calls.
//!
//! [`TimeWindow`] has buckets of equal length. It adds each call to the current bucket. When the time of that bucket is
//! over, it forgets the oldest bucket and begins a new one. So it covers its length, less at most one bucket.
//! [`CallWindow`] keeps the last calls, whatever their age. Both keep their sum up to date, so reading it costs
//! nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counts::Counts;

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

    /// Adds calls that ended before the current bucket did, even if its time is over by now.
    pub(crate) fn add_to_current(&mut self, counts: Counts) {
        match self {
            Self::Time(window) => window.add_to_current(counts),
            Self::Calls(window) => window.add(counts),
        }
    }

    /// Returns when the current bucket ends. `None` if the passing of time alone forgets nothing.
    pub(crate) fn bucket_end(&self) -> Option<Instant> {
        match self {
            Self::Time(window) => Some(window.end),
            Self::Calls(_) => None,
        }
    }

    /// Returns the sum as of the last `add` or `sum`.
    pub(crate) fn last_sum(&self) -> &Counts {
        match self {
            Self::Time(window) => &window.sum,
            Self::Calls(window) => &window.sum,
        }
    }

    /// Returns the sum over the window that ends now.
    pub(crate) fn sum(&mut self, now: Instant) -> &Counts {
        match self {
            Self::Time(window) => window.sum(now),
            Self::Calls(window) => &window.sum,
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Time(window) => window.clear(),
            Self::Calls(window) => window.clear(),
        }
    }
}

/// The calls of the last seconds.
///
/// The times passed in need not be in order, because callers read the clock before they take the lock. A call with an
/// earlier time counts in the current bucket.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    bucket: Duration,
    /// When the current bucket ends.
    end: Instant,
    current: Counts,
    /// The other buckets, oldest first.
    past: VecDeque<Counts>,
    /// The sum of all buckets.
    sum: Counts,
}

impl TimeWindow {
    /// Uses at least one bucket, and none shorter than a nanosecond.
    fn new(now: Instant, length: Duration, buckets: u32) -> Self {
        let buckets = buckets.max(1);
        let bucket = (length / buckets).max(Duration::from_nanos(1));
        let past = (1..buckets).map(|_| Counts::default()).collect();
        Self { bucket, end: now + bucket, current: Counts::default(), past, sum: Counts::default() }
    }

    fn add(&mut self, now: Instant, counts: Counts) {
        self.rotate(now);
        self.add_to_current(counts);
    }

    fn add_to_current(&mut self, counts: Counts) {
        self.current += counts;
        self.sum += counts;
    }

    fn sum(&mut self, now: Instant) -> &Counts {
        self.rotate(now);
        &self.sum
    }

    fn clear(&mut self) {
        self.current = Counts::default();
        self.past.iter_mut().for_each(|bucket| *bucket = Counts::default());
        self.sum = Counts::default();
    }

    /// This is small, so that it is inlined. Each result calls it, and few find that the bucket has ended.
    fn rotate(&mut self, now: Instant) {
        if now >= self.end {
            self.begin_bucket(now);
        }
    }

    fn begin_bucket(&mut self, now: Instant) {
        let (late, bucket) = ((now - self.end).as_nanos(), self.bucket.as_nanos());
        // After a long pause, each bucket is cleared only once.
        for _ in (0..=late / bucket).take(self.past.len() + 1) {
            self.past.push_back(self.current);
            self.current = Counts::default();
            if let Some(oldest) = self.past.pop_front() {
                self.sum -= oldest;
            }
        }
        let into_bucket = u64::try_from(late % bucket).map_or(Duration::ZERO, Duration::from_nanos);
        self.end = now + self.bucket.saturating_sub(into_bucket);
    }
}

/// The last calls that ended, up to a number, whatever their age.
#[derive(Debug)]
pub(crate) struct CallWindow {
    most: u64,
    /// Oldest first.
    calls: VecDeque<EndedCall>,
    /// The sum of `calls`. The counts that do not come from ended calls (fires, rejected, busy) are since the last
    /// `clear`.
    sum: Counts,
}

/// How one call ended. Three bytes, because a window may have thousands of them.
#[derive(Debug, Clone, Copy)]
struct EndedCall {
    failed: bool,
    unreachable: bool,
    slow: bool,
}

impl EndedCall {
    fn counts(self) -> Counts {
        let Self { failed, unreachable, slow } = self;
        let (failures, unreachable, slow) = (u64::from(failed), u64::from(unreachable), u64::from(slow));
        Counts { completed: 1, failures, unreachable, slow, ..Counts::default() }
    }
}

impl CallWindow {
    fn new(most: u32) -> Self {
        Self { most: most.into(), calls: VecDeque::new(), sum: Counts::default() }
    }

    /// Adds one call, or several calls of unknown order. Then failed and slow calls count as the oldest. If there are
    /// more calls than the window can hold, it keeps the shares of failed and slow calls.
    fn add(&mut self, counts: Counts) {
        let Counts { fires, completed, failures, unreachable, slow, rejected, busy } = counts;
        self.sum += Counts { fires, rejected, busy, ..Counts::default() };
        let taken = completed.min(self.most);
        let share = |part: u64| if completed > taken { part.min(completed) * taken / completed } else { part };
        let (failures, unreachable, slow) = (share(failures), share(unreachable), share(slow));
        for call in 0..taken {
            self.push(EndedCall { failed: call < failures, unreachable: call < unreachable, slow: call < slow });
        }
    }

    fn push(&mut self, call: EndedCall) {
        if self.calls.len() as u64 == self.most {
            if let Some(oldest) = self.calls.pop_front() {
                self.sum -= oldest.counts();
            }
        }
        self.calls.push_back(call);
        self.sum += call.counts();
    }

    fn clear(&mut self) {
        self.calls.clear();
        self.sum = Counts::default();
    }
}

#[cfg(test)]
mod tests;
