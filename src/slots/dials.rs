//! The dials under way, and when the next may begin.
//!
//! A few at once, as long as they succeed. After a failure one at a time, after a pause (`policy/pauses.rs`); a connection that
//! dies before anybody has used it is a failure, too. A *quiet* dial has waited for the server for much longer than dials take (the shell notices that):
//! another may begin beside it. Whatever happens, no more dials are under way than `max_connecting`, and only the end of the pool cuts one short.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::policy::{Pauses, Trouble};

#[derive(Debug)]
struct Dial {
    number: u64,
    generation: u32,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It may end at any moment.
    Hopeful,
    Quiet,
    /// The shell has been told to end it.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct Dials {
    /// Oldest first.
    under_way: Vec<Dial>,
    next: u64,
    /// After failures, until a connection has proved good.
    pauses: Pauses,
    /// When the shell will ask again.
    asks_again: Option<Instant>,
}

/// Dials to begin now, with these numbers; and when to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) dials: Range<u64>,
    pub(crate) ask_again: Option<Instant>,
}

/// What the core wants: so many dials, as far as there is room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) dials: usize,
    pub(super) room: usize,
    /// So many that are not quiet, at most.
    pub(super) at_once: usize,
    /// So many in all, at most.
    pub(super) most: usize,
}

impl Dials {
    pub(super) fn new() -> Self {
        Self { under_way: Vec::new(), next: 0, pauses: Pauses::default(), asks_again: None }
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn are_failing(&self) -> bool {
        self.pauses.are_failing()
    }

    /// How long until the next dial may begin, if not at once.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.pauses.left(now)
    }

    pub(super) fn begin(&mut self, now: Instant, generation: u32, wanted: Wanted) -> Begin {
        let hopeful = self.hopeful();
        let missing = wanted.dials.saturating_sub(hopeful).min(wanted.room);
        let at_once = if self.are_failing() { wanted.at_once.min(1) } else { wanted.at_once };
        let allowed = at_once.saturating_sub(hopeful).min(wanted.most.saturating_sub(self.len()));
        let count = missing.min(allowed);
        let paused = count > 0 && self.pause(now).is_some();
        let first = self.next;
        for _ in 0..if paused { 0 } else { count } {
            self.push(generation);
        }
        let ask_again =
            self.pauses.until().filter(|instant| paused && self.asks_again.is_none_or(|asks| *instant < asks));
        self.asks_again = ask_again.or(self.asks_again);
        Begin { dials: first..self.next, ask_again }
    }

    /// One more, if no other could still tell, and no more than `most` are under way then. Only lasting trouble makes it wait.
    pub(super) fn begin_probe(&mut self, now: Instant, generation: u32, most: usize) -> Option<u64> {
        let may = self.hopeful() == 0 && self.len() < most && !self.pauses.are_lasting(now);
        may.then(|| self.push(generation))
    }

    /// The server has said nothing for much longer than usual. Notices it of a dial that is still hoped for.
    pub(super) fn is_quiet(&mut self, number: u64) {
        let dial = self.under_way.iter_mut().find(|dial| dial.number == number && dial.stage == Stage::Hopeful);
        if let Some(dial) = dial {
            dial.stage = Stage::Quiet;
        }
    }

    pub(super) fn asking_again(&mut self) {
        self.asks_again = None;
    }

    /// Returns the dial's generation.
    pub(super) fn succeeded(&mut self, number: u64) -> u32 {
        self.remove(number)
    }

    /// What was dialed is good: the server is in order.
    pub(super) fn proved_good(&mut self) {
        self.pauses.succeeded();
    }

    /// Whoever asks for that may have removed the cause of failures.
    pub(super) fn try_at_once(&mut self) {
        self.pauses.try_at_once();
    }

    /// Whether even a look at the server has to wait.
    pub(super) fn are_held_off(&self, now: Instant) -> bool {
        self.pauses.are_lasting(now)
    }

    /// Gives every dial up. Each keeps its slot until it has come to its end.
    pub(super) fn give_all_up(&mut self) -> Vec<u64> {
        self.under_way.iter_mut().for_each(|dial| dial.stage = Stage::GivenUp);
        self.under_way.iter().map(|dial| dial.number).collect()
    }

    pub(super) fn is_under_way(&self, number: u64) -> bool {
        self.under_way.iter().any(|dial| dial.number == number)
    }

    pub(super) fn is_given_up(&self, number: u64) -> bool {
        self.under_way.iter().any(|dial| dial.number == number && dial.stage == Stage::GivenUp)
    }

    pub(super) fn failed(&mut self, now: Instant, number: u64, trouble: Trouble, jitter: f64) {
        self.remove(number);
        self.back_off(now, trouble, jitter);
    }

    pub(super) fn back_off(&mut self, now: Instant, trouble: Trouble, jitter: f64) {
        self.pauses.failed(now, trouble, jitter);
    }

    pub(super) fn abandoned(&mut self, number: u64) {
        self.remove(number);
    }

    fn hopeful(&self) -> usize {
        self.under_way.iter().filter(|dial| dial.stage == Stage::Hopeful).count()
    }

    fn push(&mut self, generation: u32) -> u64 {
        let number = self.next;
        self.next += 1;
        self.under_way.push(Dial { number, generation, stage: Stage::Hopeful });
        number
    }

    fn remove(&mut self, number: u64) -> u32 {
        let index = self.under_way.iter().position(|dial| dial.number == number);
        self.under_way.remove(index.expect("a dial ends once")).generation
    }
}
