//! How long is the next caller likely to keep its connection?
//!
//! The usual answer is the median of the last few leases. There are two more: the duration that nearly no lease
//! exceeds, and the duration of the last two leases, which shows a slowdown before the median does.

use super::Time;

/// The number of leases remembered. They are few, so that a pool of one connection notices a slowdown within two.
const LEASES: usize = 7;
/// A cancelled lease is assumed to have lasted this many times as long, if it was longer than every remembered lease.
const LOWER_BOUND: f64 = 1.25;
/// Two leases end together if they end within a typical duration divided by this.
const APART: f64 = 4.0;

/// The last leases, in microseconds.
#[derive(Debug)]
pub(crate) struct LeaseDurations {
    ring: [u32; LEASES],
    seen: usize,
    /// When the last lease ended.
    last: Option<Time>,
    /// A lease that ends so many seconds after the last one, or fewer, ends together with it.
    apart: f64,
    /// The median and the second longest duration. `None` until they are computed.
    quantiles: Option<(u32, u32)>,
}

impl LeaseDurations {
    pub(crate) fn new() -> Self {
        Self { ring: [0; LEASES], seen: 0, last: None, apart: 0.0, quantiles: None }
    }

    /// Returns whether the memory holds more leases than there are connections.
    pub(crate) fn is_small(connections: usize) -> bool {
        connections < LEASES
    }

    /// A lease has ended. Leases that end together count as one, because they were long for one reason, such as a stall
    /// of the whole process.
    pub(crate) fn push(&mut self, now: Time, seconds: f64) {
        if self.last.is_some_and(|last| now < last.after(self.apart)) {
            return;
        }
        self.last = Some(now);
        // The cast saturates if the lease was too long.
        self.ring[self.seen % LEASES] = (seconds * 1e6 + 0.5) as u32;
        self.seen += 1;
        self.quantiles = None;
    }

    /// Returns how many seconds a lease would have lasted if its work had not been cancelled after `seconds`. That is
    /// the median of the leases that lasted longer.
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

    /// Returns the assumed duration of a lease in seconds, if `seconds` is only a lower bound.
    pub(crate) fn longer_than(seconds: f64) -> f64 {
        seconds * LOWER_BOUND
    }

    /// Returns the likely duration of the next lease, in seconds: the median of the last few. `None` before the first
    /// lease.
    ///
    /// With few `connections`, it is the shorter of the last two leases if that is longer: a slowdown shows there
    /// first. With many connections, two long leases in a row are chance.
    pub(crate) fn typical(&mut self, connections: usize) -> Option<f64> {
        let both = if Self::is_small(connections) { self.both_of_the_last() } else { 0 };
        let (median, _) = self.quantiles();
        self.known(median.max(both))
    }

    /// Returns the likely duration of the next lease, in seconds, assuming that the last two leases are no chance.
    pub(crate) fn recent(&mut self, connections: usize) -> Option<f64> {
        let both = self.known(self.both_of_the_last())?;
        Some(self.typical(connections)?.max(both))
    }

    /// Returns the duration that nearly no lease exceeds, in seconds.
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
            self.apart = f64::from(median) / 1e6 / APART;
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
