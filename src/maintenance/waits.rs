//! How long do callers wait who still do? Seen from outside: no caller looks at a clock for this.
//!
//! Waiters are numbered in order of arrival. Whoever has a smaller number than the next to come had at some look has been here since then at least.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Looks remembered.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Waits {
    /// When, and the number of the next to come.
    looks: VecDeque<(Instant, u64)>,
}

impl Waits {
    /// How many have waited for longer than this, those included that have given up behind them; and the longest wait.
    pub(super) fn look(&mut self, now: Instant, (first, next): (u64, u64), than: Duration) -> (u64, Duration) {
        // Looks before the first came say nothing.
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
    fn those_are_slow_who_were_there_at_an_early_look_and_still_are() {
        let (begun, mut waits, than) = (Instant::now(), Waits::default(), Duration::from_millis(500));
        let mut look = |millis, first, next| {
            let now = begun + Duration::from_millis(millis);
            let (count, longest) = waits.look(now, (first, next), than);
            (count, longest.as_millis())
        };
        assert_eq!(look(0, 7, 7), (0, 0), "nobody waits");
        assert_eq!(look(250, 7, 10), (0, 0));
        assert_eq!(look(500, 8, 12), (0, 250));
        assert_eq!(look(1_000, 8, 15), (2, 750), "8 and 9");
        assert_eq!(look(1_250, 11, 15), (1, 750), "11, here since the look at 500 ms");
        assert_eq!(look(1_500, 15, 15), (0, 0));
    }

    #[test]
    fn only_so_many_looks_are_remembered() {
        let (begun, mut waits) = (Instant::now(), Waits::default());
        for look in 0..10_000 {
            waits.look(begun + Duration::from_millis(250 * look), (0, 5), Duration::from_secs(1));
        }
        assert_eq!(waits.looks.len(), MOST);
    }
}
