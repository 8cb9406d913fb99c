//! Changes to the pool as a whole: its size, its generation, its end.

use std::time::Instant;

use super::{Core, PoolPhase};
use crate::slots::queue::WaiterId;

impl<C, W> Core<C, W> {
    /// The pool dials until it has so many connections, even if no caller waits for them.
    pub(crate) fn set_target(&mut self, connections: usize) {
        self.target = connections;
    }

    /// Changes the limit. Returns the idle connections beyond it, to be closed. Leased ones are closed when their lease
    /// ends.
    pub(crate) fn resize(&mut self, now: Instant, max_size: usize) -> Vec<C> {
        self.limits.max_size = max_size;
        if let Some(lanes) = &mut self.lanes {
            lanes.shares.resize(max_size);
        }
        let surplus = (self.idle.len() + self.in_use).saturating_sub(max_size).min(self.idle.len());
        let idle = self.idle.drain(..surplus).map(|idle| idle.conn).collect();
        self.closing += surplus;
        self.record_work(self.time(now));
        idle
    }

    /// Retires all connections, also those that are being dialed. Returns the idle ones, to be closed.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<C> {
        self.generation = self.generation.wrapping_add(1);
        self.close_idle(now)
    }

    /// Limits the dials at once while the circuit is not closed. At 0 no caller may wait: returns the waiters, to be
    /// refused. `None` lifts the limit. A call with an older number than the latest `change` has no effect.
    pub(crate) fn limit_dials(&mut self, change: u64, concurrent: Option<usize>) -> Vec<(WaiterId, W)> {
        if change < self.last_change {
            return Vec::new();
        }
        (self.last_change, self.dial_limit) = (change, concurrent);
        if !self.is_circuit_open() {
            return Vec::new();
        }
        self.dismiss()
    }

    /// Begins a dial to check the server, whatever the limit of dials. Returns `None` if no slot is free, if another
    /// dial may still succeed, or if the last dial failed for a lasting reason and its pause is not over.
    pub(crate) fn begin_check(&mut self, now: Instant) -> Option<u64> {
        let may = self.phase == PoolPhase::Open && self.has_free_slot();
        may.then(|| self.dials.begin_check(now, self.generation, self.limits.max_connecting)).flatten()
    }

    /// Ends the pause after failed dials.
    pub(crate) fn try_at_once(&mut self) {
        self.dials.try_at_once();
    }

    /// Refuses newcomers from now on. The waiters are still served.
    pub(crate) fn drain(&mut self) {
        if self.phase == PoolPhase::Open {
            self.phase = PoolPhase::Draining;
        }
    }

    /// Closes the pool. Returns the idle connections to close, the waiters to refuse, and the dials to abort.
    pub(crate) fn close(&mut self, now: Instant) -> (Vec<C>, Vec<(WaiterId, W)>, Vec<u64>) {
        self.phase = PoolPhase::Closed;
        let waiters = self.lines_mut().flat_map(|line| line.queue.drain()).collect();
        (self.close_idle(now), waiters, self.dials.give_all_up())
    }

    /// Takes out the idle connections, to be closed.
    pub(crate) fn close_idle(&mut self, now: Instant) -> Vec<C> {
        let idle: Vec<_> = self.idle.drain(..).map(|idle| idle.conn).collect();
        self.closing += idle.len();
        self.record_work(self.time(now));
        idle
    }
}
