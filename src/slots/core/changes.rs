//! Changes to the pool as a whole: its size, its generation, its end.

use std::time::Instant;

use super::{Core, PoolPhase};
use crate::slots::queue::WaiterId;

impl<C, W> Core<C, W> {
    /// The pool dials until it has so many connections, even if no caller waits for them.
    pub(crate) fn set_target(&mut self, connections: usize) {
        self.target = connections;
    }

    /// From now on, `max_size` connections at most. Returns the idle ones beyond; leases beyond end when they are given back.
    pub(crate) fn resize(&mut self, now: Instant, max_size: usize) -> Vec<C> {
        self.limits.max_size = max_size;
        let surplus = (self.idle.len() + self.in_use).saturating_sub(max_size).min(self.idle.len());
        let idle = self.idle.drain(..surplus).map(|idle| idle.conn).collect();
        self.closing += surplus;
        self.note_work(self.time(now));
        idle
    }

    /// No connection made before now, and none that is being made, is used again. Returns the idle ones, to be closed.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<C> {
        self.generation = self.generation.wrapping_add(1);
        self.close_idle(now)
    }

    /// The circuit is not closed: so many dials at once, at most. With none, nobody waits either: returns those who did. `None` ends it.
    /// What comes after a later `change` is out of date.
    pub(crate) fn hold_back(&mut self, change: u64, at_once: Option<usize>) -> Vec<(WaiterId, W)> {
        if change < self.last_change {
            return Vec::new();
        }
        (self.last_change, self.held_back) = (change, at_once);
        if !self.is_shut() {
            return Vec::new();
        }
        self.dismiss()
    }

    /// A dial for a look at the server, whoever is held back and however the last one failed, unless that lasts; if there is room, and none is under way that could
    /// still tell.
    pub(crate) fn begin_probe(&mut self, now: Instant) -> Option<u64> {
        let may = self.phase == PoolPhase::Open && self.has_room();
        may.then(|| self.dials.begin_probe(now, self.generation, self.limits.max_connecting)).flatten()
    }

    /// The next dial may begin now, whatever the last one said.
    pub(crate) fn try_at_once(&mut self) {
        self.dials.try_at_once();
    }

    /// Newcomers are refused; those who wait already are served.
    pub(crate) fn drain(&mut self) {
        if self.phase == PoolPhase::Open {
            self.phase = PoolPhase::Draining;
        }
    }

    /// Nothing is served from now on. Returns the idle connections, to be closed, everybody who waits, and the dials to be given up.
    pub(crate) fn close(&mut self, now: Instant) -> (Vec<C>, Vec<(WaiterId, W)>, Vec<u64>) {
        self.phase = PoolPhase::Closed;
        let waiters = self.queue.drain();
        (self.close_idle(now), waiters, self.dials.give_all_up())
    }

    /// Returns the idle connections, to be closed.
    pub(crate) fn close_idle(&mut self, now: Instant) -> Vec<C> {
        let idle: Vec<_> = self.idle.drain(..).map(|idle| idle.conn).collect();
        self.closing += idle.len();
        self.note_work(self.time(now));
        idle
    }
}
