//! How long the queued callers have waited. The background task measures this, so that no caller reads a clock for it.
//!
//! Callers are numbered in order of arrival. Each look remembers the number of the next caller to come. A caller with a
//! smaller number was there at that look, so it has waited since then at least.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of looks that are remembered.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Waits {
    /// The time of each look, and the number of the next caller at that time.
    looks: VecDeque<(Instant, u64)>,
}

impl Waits {
    /// Returns how many callers have waited for longer than `than`, and the longest wait. The count includes callers
    /// that left the queue while an earlier one waits on. `first` and `next` are the numbers of the first waiter and of
    /// the next caller.
    pub(super) fn look(&mut self, now: Instant, (first, next): (u64, u64), than: Duration) -> (u64, Duration) {
        // A look before the first waiter came says nothing about it.
        while self.looks.front().is_some_and(|(_, next)| *next <= first) {
            self.looks.pop_front();
        }
        let age = |then: &Instant| now.saturating_duration_since(*then);
        let longest = self.looks.front().map_or(Duration::ZERO, |(then, _)| age(then));
        let slow = self.looks.iter().rev().find(|(then, _)| age(then) > than);
        let count = slow.map_or(0, |(_, next)| next - first);
        if next > first && self.looks.len() < MOST {
            self.looks.push_back((now, next));
        }
        (count, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_slow_if_it_still_waits_long_after_a_look() {
        let (begun, mut waits, than) = (Instant::now(), Waits::default(), Duration::from_millis(500));
        let mut look = |millis, first, next| {
            let now = begun + Duration::from_millis(millis);
            let (count, longest) = waits.look(now, (first, next), than);
            (count, longest.as_millis())
        };
        assert_eq!(look(0, 7, 7), (0, 0), "no caller waits");
        assert_eq!(look(250, 7, 10), (0, 0));
        assert_eq!(look(500, 8, 12), (0, 250));
        assert_eq!(look(1_000, 8, 15), (2, 750), "8 and 9");
        assert_eq!(look(1_250, 11, 15), (1, 750), "11, here since the look at 500 ms");
        assert_eq!(look(1_500, 15, 15), (0, 0));
    }

    #[test]
    fn the_number_of_looks_is_bounded() {
        let (begun, mut waits) = (Instant::now(), Waits::default());
        for look in 0..10_000 {
            waits.look(begun + Duration::from_millis(250 * look), (0, 5), Duration::from_secs(1));
        }
        assert_eq!(waits.looks.len(), MOST);
    }
}
