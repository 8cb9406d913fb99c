//! The dials under way, and when the next may begin.
//!
//! While dials succeed, several run at once. After a failure they run one at a time, with pauses (`policy/pauses.rs`).
//! A connection that dies before its first use counts as a failure. A *quiet* dial has waited much longer for the
//! server than dials usually take, and another may begin beside it. At most `max_connecting` dials are under way. Only
//! the end of the pool cuts a dial short.

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
    /// The dial may end at any moment.
    Pending,
    Quiet,
    /// The pool was closed, and the shell aborts the dial.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct Dials {
    /// Oldest first.
    under_way: Vec<Dial>,
    next: u64,
    /// The pause after failures, until a connection has proved to work.
    pauses: Pauses,
    /// When the shell asks again for dials.
    asks_again: Option<Instant>,
}

/// The numbers of the dials to begin now, and when the shell has to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) dials: Range<u64>,
    pub(crate) ask_again: Option<Instant>,
}

/// How many dials the core wants, and its limits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) dials: usize,
    /// The number of free slots.
    pub(super) free_slots: usize,
    /// The most dials at once that are not quiet.
    pub(super) concurrent: usize,
    /// The most dials at once in all.
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

    /// How long until the next dial may begin. `None` if it may begin now.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.pauses.left(now)
    }

    pub(super) fn begin(&mut self, now: Instant, generation: u32, wanted: Wanted) -> Begin {
        let pending = self.pending();
        let missing = wanted.dials.saturating_sub(pending).min(wanted.free_slots);
        let concurrent = if self.are_failing() { wanted.concurrent.min(1) } else { wanted.concurrent };
        let allowed = concurrent.saturating_sub(pending).min(wanted.most.saturating_sub(self.len()));
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

    /// Begins one dial to check the server. Returns `None` if another dial may still succeed, if `most` dials are
    /// under way, or during a pause after a lasting failure.
    pub(super) fn begin_check(&mut self, now: Instant, generation: u32, most: usize) -> Option<u64> {
        let may = self.pending() == 0 && self.len() < most && !self.pauses.are_lasting(now);
        may.then(|| self.push(generation))
    }

    /// The server has not answered the dial for much longer than usual.
    pub(super) fn on_quiet(&mut self, number: u64) {
        let dial = self.under_way.iter_mut().find(|dial| dial.number == number && dial.stage == Stage::Pending);
        if let Some(dial) = dial {
            dial.stage = Stage::Quiet;
        }
    }

    pub(super) fn on_asked_again(&mut self) {
        self.asks_again = None;
    }

    /// Returns the dial's generation.
    pub(super) fn on_success(&mut self, number: u64) -> u32 {
        self.remove(number)
    }

    /// A new connection works, so the pause ends.
    pub(super) fn on_proved(&mut self) {
        self.pauses.succeeded();
    }

    /// Ends the pause, because the cause of the failures may be gone.
    pub(super) fn try_at_once(&mut self) {
        self.pauses.try_at_once();
    }

    /// Returns whether the latest failure is a lasting one and its pause is not over. Then even a check of the server
    /// waits.
    pub(super) fn are_held_off(&self, now: Instant) -> bool {
        self.pauses.are_lasting(now)
    }

    /// Gives up all dials and returns them. Each keeps its slot until it has ended.
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

    pub(super) fn on_failure(&mut self, now: Instant, number: u64, trouble: Trouble, jitter: f64) {
        self.remove(number);
        self.back_off(now, trouble, jitter);
    }

    pub(super) fn back_off(&mut self, now: Instant, trouble: Trouble, jitter: f64) {
        self.pauses.failed(now, trouble, jitter);
    }

    pub(super) fn on_abandoned(&mut self, number: u64) {
        self.remove(number);
    }

    fn pending(&self) -> usize {
        self.under_way.iter().filter(|dial| dial.stage == Stage::Pending).count()
    }

    fn push(&mut self, generation: u32) -> u64 {
        let number = self.next;
        self.next += 1;
        self.under_way.push(Dial { number, generation, stage: Stage::Pending });
        number
    }

    fn remove(&mut self, number: u64) -> u32 {
        let index = self.under_way.iter().position(|dial| dial.number == number);
        self.under_way.remove(index.expect("a dial ends once")).generation
    }
}
