//! What can be seen of the core from outside.

use std::time::{Duration, Instant};

use super::{Core, Counts, PoolPhase};
use crate::policy::Deadline;
use crate::slots::queue::WaiterId;

impl Counts {
    /// Callers have every connection that there may be.
    pub(crate) fn is_fully_leased(&self) -> bool {
        self.in_use >= self.limit
    }
}

impl<C, W> Core<C, W> {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            limit: self.limits.max_size,
            dialing: self.dials.len(),
            idle: self.idle.len(),
            in_use: self.in_use - self.settling,
            settling: self.settling,
            closing: self.closing,
            waiting: self.queue.len(),
            max_waiting: self.limits.max_waiting,
            is_open: self.phase == PoolPhase::Open,
            arrivals: self.at_once + self.entered,
            at_once: self.at_once - self.not_served,
        }
    }

    /// Who was counted last as having found a connection idle has none: it was dead, or the pool itself took it.
    pub(crate) fn uncount(&mut self) {
        self.not_served += 1;
    }

    /// Set while nothing is connected, nothing is being dialed, and the next dial is not due yet.
    pub(crate) fn unreachable_for(&self, now: Instant) -> Option<Duration> {
        if self.is_alive() { None } else { self.dials.pause(now) }
    }

    /// Whether a dial could begin at all.
    pub(crate) fn has_room(&self) -> bool {
        self.taken() < self.limits.max_size
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(crate) fn each_idle(&self, mut look: impl FnMut(&C)) {
        self.idle.iter().for_each(|idle| look(&idle.conn));
    }

    /// How long the next caller would wait, if nothing is idle and anybody knows.
    pub(crate) fn predicted_wait(&mut self, now: Instant) -> Option<Duration> {
        if self.idle.is_empty() { self.predicted_seconds(self.time(now)).map(Duration::from_secs_f64) } else { None }
    }

    /// The numbers of the one who has waited longest and of the next to come: those in between wait, or have left.
    pub(crate) fn waiters(&self) -> (u64, u64) {
        self.queue.span()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The deadline of one that still waits.
    pub(crate) fn deadline_of(&self, id: WaiterId) -> Option<Deadline> {
        self.queue.deadline_of(id)
    }

    /// Whether the latest dials failed.
    pub(crate) fn dials_are_failing(&self) -> bool {
        self.dials.are_failing()
    }

    /// Whether the latest dials failed of something that lasts, and the next may not begin yet.
    pub(crate) fn dials_are_held_off(&self, now: Instant) -> bool {
        self.dials.are_held_off(now)
    }

    /// Whether the dial has not come to its end.
    pub(crate) fn is_dialing(&self, dial: u64) -> bool {
        self.dials.is_under_way(dial)
    }

    /// Whether the dial was to be given up.
    pub(crate) fn is_given_up(&self, dial: u64) -> bool {
        self.dials.is_given_up(dial)
    }
}
