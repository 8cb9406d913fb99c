//! How long calls take: a histogram of fixed size.
//!
//! Each power of two of microseconds has eight parts, so a percentile is at most an eighth too large. There are two
//! histograms, each for half a window. When the current one is full or its time is over, it replaces the past one.

use std::mem;
use std::time::{Duration, Instant};

/// The parts of each power of two.
const PARTS: usize = 8;
/// The powers of two, up to 2^37 microseconds (38 hours).
const POWERS: usize = 35;
const SLOTS: usize = PARTS * POWERS;

/// How long the recent calls through a circuit breaker took. It covers at least half a window, at most a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    counts: Box<[u32; SLOTS]>,
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: Box::new([0; SLOTS]), count: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }
}

impl Latency {
    /// Returns the number of calls.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the longest duration. 0 without calls.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Returns the mean duration. 0 without calls.
    pub fn mean(&self) -> Duration {
        let seconds = self.sum.as_secs_f64() / self.count.max(1) as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max)
    }

    /// Returns the duration that `percent` of the calls did not exceed; 50 is the median. It is rounded up by at most
    /// an eighth. 0 without calls. A `percent` below 0 means 0, above 100 means 100.
    pub fn percentile(&self, percent: f64) -> Duration {
        // The division comes last, because in floating point 7 / 100 * 100 is more than 7.
        let rank = (percent.clamp(0.0, 100.0) * self.count as f64 / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return longest_in(slot).min(self.max);
            }
        }
        self.max
    }

    fn add(&mut self, took: Duration) {
        if let Some(count) = self.counts.get_mut(slot(took)) {
            *count = count.saturating_add(1);
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
        self.max = self.max.max(took);
    }

    fn merge(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*other);
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

/// Each number of microseconds below `PARTS` has its own slot. Above that, each power of two has `PARTS` slots.
fn slot(took: Duration) -> usize {
    let micros = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
    let power = micros.max(1).ilog2().saturating_sub(PARTS.ilog2()) as usize;
    let part = (micros >> power) as usize;
    (power * PARTS + part).min(SLOTS - 1)
}

/// Returns the longest duration that belongs in a slot.
fn longest_in(slot: usize) -> Duration {
    let power = (slot / PARTS).saturating_sub(1);
    let part = slot - power * PARTS;
    Duration::from_micros(((part as u64 + 1) << power) - 1)
}

/// When the current half of the window ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Half {
    Time(Duration),
    Calls(u64),
}

#[derive(Debug)]
pub(crate) struct Latencies {
    half: Half,
    begun: Instant,
    current: Latency,
    past: Latency,
}

impl Latencies {
    pub(crate) fn new(now: Instant, half: Half) -> Self {
        Self { half, begun: now, current: Latency::default(), past: Latency::default() }
    }

    pub(crate) fn add(&mut self, now: Instant, took: Duration) {
        self.turn(now);
        self.current.add(took);
    }

    /// Returns the durations of both halves together.
    pub(crate) fn sum(&mut self, now: Instant) -> Latency {
        self.turn(now);
        let mut sum = self.past.clone();
        sum.merge(&self.current);
        sum
    }

    fn turn(&mut self, now: Instant) {
        let (is_over, is_long_over) = match self.half {
            Half::Time(half) => {
                let age = now.saturating_duration_since(self.begun);
                (age >= half, age >= 2 * half)
            }
            Half::Calls(half) => (self.current.count >= half, false),
        };
        if is_over {
            self.past = mem::take(&mut self.current);
            self.begun = now;
        }
        if is_long_over {
            self.past = Latency::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn of(half: Half, times: &[u64]) -> (Instant, Latencies) {
        let now = Instant::now();
        let mut latencies = Latencies::new(now, half);
        times.iter().for_each(|ms| latencies.add(now, MS * u32::try_from(*ms).unwrap()));
        (now, latencies)
    }

    #[test]
    fn half_a_window_is_forgotten_at_a_time() {
        let (now, mut latencies) = of(Half::Time(50 * MS), &[1, 2]);
        latencies.add(now + 50 * MS, 3 * MS);
        assert_eq!(latencies.sum(now + 99 * MS).count(), 3);
        assert_eq!(latencies.sum(now + 100 * MS).count(), 1);
        assert_eq!(latencies.sum(now + 300 * MS).count(), 0);
        let (now, mut latencies) = of(Half::Calls(2), &[1, 2, 3, 4]);
        assert_eq!(latencies.sum(now).count(), 2);
        latencies.add(now, MS);
        assert_eq!(latencies.sum(now + 3_600_000 * MS).count(), 3);
    }

    #[test]
    fn no_calls_and_extreme_durations_have_percentiles() {
        let none = Latency::default();
        assert_eq!((none.percentile(50.0), none.mean(), none.max()), Default::default());
        let mut one = Latency::default();
        one.add(Duration::MAX);
        one.add(Duration::ZERO);
        one.add(Duration::MAX);
        assert_eq!((one.percentile(0.0), one.max()), (Duration::ZERO, Duration::MAX));
        assert!(one.percentile(f64::NAN) <= Duration::MAX);
    }

    #[test]
    fn a_whole_rank_is_not_rounded_up() {
        let mut latency = Latency::default();
        (1..=100).for_each(|ms| latency.add(if ms <= 7 { MS } else { 2 * MS }));
        let found = latency.percentile(7.0);
        assert!((MS..=MS * 9 / 8).contains(&found), "{found:?}");
    }

    proptest! {
        #[test]
        fn a_percentile_is_at_most_an_eighth_too_large(
            times in prop::collection::vec(1u64..100_000, 1..200),
            percent in 1u32..=100,
        ) {
            let (now, mut latencies) = of(Half::Time(3_600_000 * MS), &times);
            let seen = latencies.sum(now);
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let rank = (percent as usize * sorted.len()).div_ceil(100);
            let exact = MS * u32::try_from(sorted[rank - 1]).unwrap();
            let found = seen.percentile(percent.into());
            prop_assert!(exact <= found && found <= exact * 9 / 8, "{:?} of {:?}", found, exact);
            prop_assert_eq!(seen.max(), MS * u32::try_from(sorted[sorted.len() - 1]).unwrap());
        }
    }
}
