//! The dials under way, and when the next may begin.
//!
//! A few at once, as long as they succeed. After a failure one at a time, after a pause that doubles up to a second; a connection that
//! dies before anybody has used it is a failure, too. A dial that has been
//! quiet for a second is stuck as far as callers are concerned: another may be begun beside it, and the first success gives it up.

use std::time::{Duration, Instant};

use super::core::Begin;

/// Pause after the first failed dial. It doubles with every further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// No pause is longer: a server that is back is found within about a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A dial that has taken longer than this is stuck.
const STUCK: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Dial {
    number: u64,
    begun: Instant,
    generation: u32,
    /// The shell has been told to end it.
    given_up: bool,
}

#[derive(Debug)]
pub(super) struct Dials {
    /// Oldest first.
    under_way: Vec<Dial>,
    next: u64,
    /// Failed dials since the last connection that proved good; those of one burst count once.
    failures: u32,
    retry_at: Option<Instant>,
    /// When the shell will ask again.
    asks_again: Option<Instant>,
}

/// What the core wants: so many dials, as far as there is room, and so many at once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) dials: usize,
    pub(super) room: usize,
    pub(super) at_once: usize,
}

impl Dials {
    pub(super) fn new() -> Self {
        Self { under_way: Vec::new(), next: 0, failures: 0, retry_at: None, asks_again: None }
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn are_failing(&self) -> bool {
        self.failures > 0
    }

    /// How long until the next dial may begin, if not at once.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let pause = self.retry_at?.saturating_duration_since(now);
        (!pause.is_zero()).then_some(pause)
    }

    pub(super) fn begin(&mut self, now: Instant, generation: u32, wanted: Wanted) -> Begin {
        let fresh = self.under_way.iter().filter(|dial| !dial.is_stuck(now)).count();
        let missing = wanted.dials.saturating_sub(fresh).min(wanted.room);
        let at_once = if self.failures == 0 { wanted.at_once } else { 1 };
        let count = missing.min(at_once.saturating_sub(fresh));
        let paused = count > 0 && self.pause(now).is_some();
        let first = self.next;
        self.next += if paused { 0 } else { count as u64 };
        self.under_way.extend((first..self.next).map(|number| Dial {
            number,
            begun: now,
            generation,
            given_up: false,
        }));
        let ask_again = if paused {
            self.retry_at
        } else if wanted.dials > 0 && wanted.room > count {
            // Somebody hopes for the dials under way: look again when the first of them gets stuck.
            self.under_way.iter().find(|dial| !dial.is_stuck(now)).map(|dial| dial.begun + STUCK)
        } else {
            None
        };
        let ask_again = ask_again.filter(|instant| self.asks_again.is_none_or(|asks| *instant < asks));
        self.asks_again = ask_again.or(self.asks_again);
        Begin { dials: first..self.next, ask_again }
    }

    /// One more, if none is under way that could still tell.
    pub(super) fn begin_probe(&mut self, now: Instant, generation: u32) -> Option<u64> {
        if self.under_way.iter().any(|dial| !dial.is_stuck(now)) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.under_way.push(Dial { number, begun: now, generation, given_up: false });
        Some(number)
    }

    pub(super) fn give_one_up(&mut self, number: u64) {
        self.give_up(|dial| dial.number == number);
    }

    /// The oldest that is stuck and has not been given up, if there is one.
    pub(super) fn give_a_stuck_one_up(&mut self, now: Instant) -> Option<u64> {
        let stuck = self.under_way.iter().find(|dial| dial.is_stuck(now) && !dial.given_up)?.number;
        self.give_one_up(stuck);
        Some(stuck)
    }

    pub(super) fn asking_again(&mut self) {
        self.asks_again = None;
    }

    /// Returns the dial's generation, and the older dials that are stuck: they are given up.
    pub(super) fn succeeded(&mut self, now: Instant, number: u64) -> (u32, Vec<u64>) {
        let generation = self.remove(number);
        (generation, self.give_up(|dial| dial.number < number && dial.is_stuck(now)))
    }

    /// What was dialed is good: the server is in order.
    pub(super) fn proved_good(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Gives every dial up. Each keeps its slot until it has come to its end.
    pub(super) fn give_all_up(&mut self) -> Vec<u64> {
        self.give_up(|_| true)
    }

    pub(super) fn is_under_way(&self, number: u64) -> bool {
        self.under_way.iter().any(|dial| dial.number == number)
    }

    pub(super) fn is_given_up(&self, number: u64) -> bool {
        self.under_way.iter().any(|dial| dial.number == number && dial.given_up)
    }

    pub(super) fn failed(&mut self, now: Instant, number: u64, jitter: f64) {
        self.remove(number);
        self.back_off(now, jitter);
    }

    pub(super) fn back_off(&mut self, now: Instant, jitter: f64) {
        if self.pause(now).is_none() {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
            self.failures += 1;
            self.retry_at = Some(now + pause.mul_f64(1.0 - jitter / 2.0));
        }
    }

    pub(super) fn abandoned(&mut self, number: u64) {
        self.remove(number);
    }

    fn give_up(&mut self, which: impl Fn(&Dial) -> bool) -> Vec<u64> {
        let given_up = self.under_way.iter_mut().filter(|dial| which(dial));
        given_up
            .map(|dial| {
                dial.given_up = true;
                dial.number
            })
            .collect()
    }

    fn remove(&mut self, number: u64) -> u32 {
        let index = self.under_way.iter().position(|dial| dial.number == number);
        self.under_way.remove(index.expect("a dial ends once")).generation
    }
}

impl Dial {
    fn is_stuck(&self, now: Instant) -> bool {
        self.given_up || now.saturating_duration_since(self.begun) >= STUCK
    }
}
