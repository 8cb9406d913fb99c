//! How long is the next caller likely to keep its connection?
//!
//! As long as the median of the last few leases. Two more answers serve where that is not enough: the duration that
//! nearly no lease exceeds, and the duration of the last two, which shows a slowdown before the median does.

use std::time::{Duration, Instant};

/// Leases remembered: few, so that a pool of one connection notices a slowdown within two of them.
const LEASES: usize = 7;
/// A lease whose work was cancelled would have lasted longer by about this factor, if none of those remembered lasted
/// for so long.
const LOWER_BOUND: f64 = 1.25;
/// Leases that end within this part of a typical one end together.
const APART: u32 = 4;

/// The last leases, in microseconds.
#[derive(Debug)]
pub(crate) struct LeaseDurations {
    ring: [u32; LEASES],
    seen: usize,
    /// When the last of them ended, and for how long after it others end together with it.
    last: Option<Instant>,
    apart: Duration,
    /// The median, and what all but the longest do not exceed; `None` until somebody asks.
    quantiles: Option<(u32, u32)>,
}

impl LeaseDurations {
    pub(crate) fn new() -> Self {
        Self { ring: [0; LEASES], seen: 0, last: None, apart: Duration::ZERO, quantiles: None }
    }

    /// Whether all leases of so many connections fit in: several of each are remembered.
    pub(crate) fn is_small(connections: usize) -> bool {
        connections < LEASES
    }

    /// A lease has ended. Leases that end together were long for one reason, such as a stall of the whole process: they
    /// count as one.
    pub(crate) fn push(&mut self, now: Instant, seconds: f64) {
        if self.last.is_some_and(|last| now < last + self.apart) {
            return;
        }
        self.last = Some(now);
        // Too long a lease saturates.
        self.ring[self.seen % LEASES] = (seconds * 1e6 + 0.5) as u32;
        self.seen += 1;
        self.quantiles = None;
    }

    /// For how many seconds a lease would have lasted whose work was cancelled after `seconds`: as long as the median
    /// of those that lasted longer.
    pub(crate) fn uncancelled(&self, seconds: f64) -> f64 {
        let (mut longer, mut count) = ([0; LEASES], 0);
        for micros in &self.ring[..self.seen.min(LEASES)] {
            if f64::from(*micros) >= seconds * 1e6 {
                longer[count] = *micros;
                count += 1;
            }
        }
        let longer = &mut longer[..count];
        longer.sort_unstable();
        longer.get(count / 2).map_or_else(|| Self::longer_than(seconds), |micros| f64::from(*micros) / 1e6)
    }

    /// For how many seconds a lease is assumed to last of which only a lower bound is known.
    pub(crate) fn longer_than(seconds: f64) -> f64 {
        seconds * LOWER_BOUND
    }

    /// The likely duration of the next lease, in seconds: the median of the last few. With a few `connections`, the
    /// shorter of the last two if that is longer: a slowdown shows there first. With many, two long leases in a row are
    /// chance. `None` before the first lease.
    pub(crate) fn typical(&mut self, connections: usize) -> Option<f64> {
        let both = if Self::is_small(connections) { self.both_of_the_last() } else { 0 };
        let (median, _) = self.quantiles();
        self.known(median.max(both))
    }

    /// The likely duration of the next lease, in seconds, if the last two show a slowdown and are no chance.
    pub(crate) fn recent(&mut self, connections: usize) -> Option<f64> {
        let both = self.known(self.both_of_the_last())?;
        Some(self.typical(connections)?.max(both))
    }

    /// The duration that nearly no lease exceeds, in seconds.
    pub(crate) fn long(&mut self, connections: usize) -> Option<f64> {
        let (_, long) = self.quantiles();
        let long = self.known(long)?;
        Some(self.typical(connections)?.max(long))
    }

    fn quantiles(&mut self) -> (u32, u32) {
        if let Some(known) = self.quantiles {
            return known;
        }
        let mut sorted = self.ring;
        let sorted = &mut sorted[..self.seen.min(LEASES)];
        sorted.sort_unstable();
        let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
        let (median, long) = (at(sorted.len() / 2), at(sorted.len().saturating_sub(2)));
        if self.seen >= LEASES {
            self.apart = Duration::from_micros(u64::from(median)) / APART;
        }
        self.quantiles = Some((median, long));
        (median, long)
    }

    fn both_of_the_last(&self) -> u32 {
        let last = |n: usize| self.seen.checked_sub(n).map_or(0, |place| self.ring[place % LEASES]);
        last(1).min(last(2))
    }

    fn known(&self, micros: u32) -> Option<f64> {
        (self.seen > 0).then(|| f64::from(micros) / 1e6)
    }
}

#[cfg(test)]
mod tests;
