//! How long do the leases of an operation take while the pool is calm?
//!
//! The baseline is the lower quintile of durations that were seen while less than 30% of the connections were in use,
//! in the fastest ten minutes of the last hour. A "duration" here is the mean of a batch of leases, so that it can be
//! compared with the mean of a window: of single leases, the lower quintile is far below the mean.
//!
//! What is older than an hour is forgotten. So a slow day does not teach a baseline for ever, and a lasting slow-down
//! becomes usual only when nothing faster was seen for an hour.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const BUCKET: Duration = Duration::from_secs(600);
const KEPT: Duration = Duration::from_secs(3_600);
/// So many leases make a batch.
const BATCH: u32 = 30;
/// A bucket has at most so many batches. Then every second one is dropped, and the next ones are twice as large.
const MOST_IN_BUCKET: usize = 64;
/// A bucket with fewer batches counts only if there is no other.
const ENOUGH: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Baseline {
    leases: u32,
    seconds: f64,
    buckets: VecDeque<Bucket>,
    usual: Option<f64>,
}

#[derive(Debug)]
struct Bucket {
    begun: Instant,
    means: Vec<f64>,
    batch: u32,
}

impl Baseline {
    /// A lease has ended while the pool was calm.
    pub(super) fn record(&mut self, now: Instant, seconds: f64) {
        self.leases += 1;
        self.seconds += seconds;
        let size = self.buckets.back().map_or(BATCH, |bucket| bucket.batch);
        if self.leases < size {
            return;
        }
        let mean = self.seconds / f64::from(self.leases);
        (self.leases, self.seconds) = (0, 0.0);
        if self.buckets.back().is_none_or(|bucket| now.saturating_duration_since(bucket.begun) >= BUCKET) {
            self.buckets.push_back(Bucket { begun: now, means: Vec::new(), batch: BATCH });
        }
        if let Some(bucket) = self.buckets.back_mut() {
            bucket.push(mean);
        }
        self.update();
    }

    /// Forgets what is too old. Returns the usual duration in seconds, if it is known.
    pub(super) fn usual(&mut self, now: Instant) -> Option<f64> {
        let is_old = |bucket: &Bucket| now.saturating_duration_since(bucket.begun) >= KEPT + BUCKET;
        if self.buckets.front().is_some_and(is_old) {
            self.buckets.pop_front();
            self.update();
        }
        self.usual
    }

    pub(super) fn is_known(&self) -> bool {
        self.usual.is_some()
    }

    fn update(&mut self) {
        // Over all buckets, the quintile would flicker when the fast ones among them become few.
        let lowest = |enough: usize| {
            let known = self.buckets.iter().filter(|bucket| bucket.means.len() >= enough);
            known.filter_map(Bucket::lower_quintile).min_by(f64::total_cmp)
        };
        self.usual = lowest(ENOUGH).or_else(|| lowest(1));
    }
}

impl Bucket {
    fn lower_quintile(&self) -> Option<f64> {
        let mut means = self.means.clone();
        means.sort_by(f64::total_cmp);
        means.get(means.len().saturating_sub(1) / 5).copied()
    }

    fn push(&mut self, mean: f64) {
        if self.means.len() >= MOST_IN_BUCKET {
            let mut number = 0;
            self.means.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.batch = self.batch.saturating_mul(2);
        }
        self.means.push(mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn batches(baseline: &mut Baseline, now: Instant, seconds: f64, count: u32) {
        (0..count * BATCH).for_each(|_| baseline.record(now, seconds));
    }

    #[test]
    fn nothing_is_known_before_the_first_batch() {
        let (mut baseline, now) = (Baseline::default(), Instant::now());
        (1..BATCH).for_each(|_| baseline.record(now, 0.01));
        assert_eq!(baseline.usual(now), None);
        baseline.record(now, 0.01);
        assert!((baseline.usual(now).unwrap() - 0.01).abs() < 1e-9);
    }

    #[test]
    fn one_slow_hour_ends_with_its_last_bucket() {
        let (mut baseline, begun) = (Baseline::default(), Instant::now());
        batches(&mut baseline, begun, 0.01, 10);
        for ten in 1..=7 {
            let now = begun + minutes(10 * ten);
            batches(&mut baseline, now, 0.1, 3);
            let usual = baseline.usual(now).unwrap();
            assert_eq!(usual < 0.02, ten < 7, "after {ten} buckets: {usual}");
        }
        assert!(baseline.usual(begun + minutes(131)).is_some());
    }

    #[test]
    fn a_bucket_is_bounded() {
        let (mut baseline, now) = (Baseline::default(), Instant::now());
        batches(&mut baseline, now, 0.01, 10_000);
        assert!(baseline.buckets.len() == 1 && baseline.buckets[0].means.len() <= MOST_IN_BUCKET);
    }
}
