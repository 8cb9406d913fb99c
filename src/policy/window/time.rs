//! What has been seen lately, and nothing older.
//!
//! The window is cut into buckets of equal length. What is seen is added to the current one; when its time is over the oldest bucket is
//! forgotten and a new one begun. So the window covers its length, less at most one bucket. The sum is kept along, so asking costs nothing.
//!
//! Times need not come in order: callers read the clock before they take the lock. What is late by that much counts in the current bucket.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counts::Counts;

#[derive(Debug)]
pub(crate) struct TimeWindow {
    bucket: Duration,
    /// When the current bucket's time is over.
    ends: Instant,
    current: Counts,
    /// The others, oldest first.
    past: VecDeque<Counts>,
    /// Of all buckets.
    sum: Counts,
}

impl TimeWindow {
    /// At least one bucket, and none shorter than a nanosecond.
    pub(super) fn new(now: Instant, length: Duration, buckets: u32) -> Self {
        let buckets = buckets.max(1);
        let bucket = (length / buckets).max(Duration::from_nanos(1));
        let past = (1..buckets).map(|_| Counts::default()).collect();
        Self { bucket, ends: now + bucket, current: Counts::default(), past, sum: Counts::default() }
    }

    pub(super) fn add(&mut self, now: Instant, counts: Counts) {
        self.rotate(now);
        self.add_to_current(counts);
    }

    /// What was seen before the current bucket ended, even if it has by now.
    pub(super) fn add_to_current(&mut self, counts: Counts) {
        self.current += counts;
        self.sum += counts;
    }

    /// When the current bucket ends.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// The sum when the window was last asked, or added to.
    pub(super) fn last_sum(&self) -> &Counts {
        &self.sum
    }

    /// What has been seen within the window that ends now.
    pub(super) fn sum(&mut self, now: Instant) -> &Counts {
        self.rotate(now);
        &self.sum
    }

    pub(super) fn clear(&mut self) {
        self.current = Counts::default();
        self.past.iter_mut().for_each(|bucket| *bucket = Counts::default());
        self.sum = Counts::default();
    }

    /// Whether time has moved on is asked for each result; that it has is rare.
    fn rotate(&mut self, now: Instant) {
        if now >= self.ends {
            self.begin_bucket(now);
        }
    }

    fn begin_bucket(&mut self, now: Instant) {
        let (late, bucket) = ((now - self.ends).as_nanos(), self.bucket.as_nanos());
        // Once round is enough, however long nothing was seen.
        for _ in (0..=late / bucket).take(self.past.len() + 1) {
            self.past.push_back(self.current);
            self.current = Counts::default();
            if let Some(oldest) = self.past.pop_front() {
                self.sum -= oldest;
            }
        }
        let into_bucket = u64::try_from(late % bucket).map_or(Duration::ZERO, Duration::from_nanos);
        self.ends = now + self.bucket.saturating_sub(into_bucket);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FAILURE: Counts =
        Counts { fires: 0, completed: 1, failures: 1, unreachable: 0, slow: 0, rejected: 0, busy: 0 };

    // O: a bucket's counts are gone once the window has passed over it.
    #[test]
    fn conformance_09_after_300_ms_a_window_of_200_ms_is_empty() {
        let start = Instant::now();
        let mut window = TimeWindow::new(start, 200 * MS, 2);
        window.add(start, FAILURE);
        assert_eq!(window.sum(start + 199 * MS).failures, 1);
        assert_eq!(*window.sum(start + 300 * MS), Counts::default());
    }

    // O: what does not rotate stays; what rotates moves out.
    #[test]
    fn conformance_10_counts_stay_until_their_bucket_moves_out() {
        let start = Instant::now();
        let mut window = TimeWindow::new(start, 300 * MS, 3);
        window.add(start, FAILURE);
        window.add(start + 99 * MS, FAILURE);
        window.add(start + 100 * MS, FAILURE);
        assert_eq!(window.sum(start + 299 * MS).failures, 3);
        assert_eq!(window.sum(start + 300 * MS).failures, 1);
        assert_eq!(window.sum(start + 400 * MS).failures, 0);
    }

    #[test]
    fn what_comes_late_counts_in_the_current_bucket() {
        let start = Instant::now();
        let mut window = TimeWindow::new(start, 200 * MS, 2);
        window.add(start + 150 * MS, FAILURE);
        window.add(start, FAILURE);
        assert_eq!(window.sum(start + 299 * MS).failures, 2);
    }

    #[test]
    fn one_bucket_is_enough() {
        let start = Instant::now();
        let mut window = TimeWindow::new(start, 100 * MS, 1);
        window.add(start, FAILURE);
        assert_eq!(window.sum(start + 99 * MS).failures, 1);
        assert_eq!(window.sum(start + 100 * MS).failures, 0);
    }

    proptest! {
        /// Beside a plain list of times.
        #[test]
        fn counts_what_is_in_its_buckets(
            buckets in 1u32..6,
            gaps in prop::collection::vec(prop_oneof![0u64..20, 0u64..400], 1..80),
        ) {
            let start = Instant::now();
            let mut window = TimeWindow::new(start, 10 * MS * buckets, buckets);
            let (mut at, mut seen) = (0, Vec::new());
            for gap in gaps {
                at += gap;
                window.add(start + MS * u32::try_from(at).unwrap(), FAILURE);
                seen.push(at / 10);
                let oldest = (at / 10 + 1).saturating_sub(u64::from(buckets));
                let expected = seen.iter().filter(|bucket| **bucket >= oldest).count() as u64;
                prop_assert_eq!(window.sum(start + MS * u32::try_from(at).unwrap()).failures, expected);
            }
        }
    }
}
