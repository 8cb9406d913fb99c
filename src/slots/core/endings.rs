//! How a lease ends, and what the core learns from its duration.
//!
//! A connection that comes back goes to the first waiter or becomes idle. The pool retires an unusable one. A caller
//! may detach one. In a healthy pool other connections are usually idle, so no caller waits. Then the core only records
//! the lease duration.

use std::time::Instant;

use super::held::Use;
use super::{Core, Ended, Held, Line, Place, Placed, PoolPhase};
use crate::policy::{Lane, LeaseDurations, Time};

impl<C, W> Core<C, W> {
    /// A lease ends, and its connection is fit for the next. `time`: that of `now`.
    pub(crate) fn release(&mut self, now: Instant, time: Time, mut held: Held<C>) -> Placed<C, W> {
        self.prove(&mut held);
        self.end_lease(time, held.ended());
        let lane = held.lane.unwrap_or_default();
        // What the pool does itself says nothing about its callers.
        let lasted = held.lasted(time).filter(|_| held.lane.is_some());
        let lasted = lasted.map(|lasted| self.record_lease(lane, time, lasted, held.used == Use::Cancelled));
        if self.is_at_rest() && !self.is_surplus(held.birth) {
            self.push_idle(held.conn, held.birth);
            return Placed { to: Place::Idle, refused: Vec::new() };
        }
        match lasted.or_else(|| self.longer_than_usual(lane, time)) {
            Some(seconds) => self.line_mut(lane).forecast.on_release(time, seconds),
            None => self.line_mut(lane).forecast.on_end(time),
        }
        self.place(now, time, held.conn, held.birth)
    }

    /// A lease ends, and its connection has to be settled. It stays in use until it is released or retired.
    pub(crate) fn settle(&mut self) {
        self.settling += 1;
    }

    /// Settling has ended. The connection is released or retired next.
    pub(crate) fn on_settled(&mut self) {
        self.settling -= 1;
    }

    /// A lease ends, and its connection has to be closed.
    pub(crate) fn retire(&mut self, now: Instant, ended: Ended) {
        self.closing += 1;
        self.detach(now, ended);
    }

    /// A lease ends, and its connection belongs to the caller. Its slot is free.
    pub(crate) fn detach(&mut self, now: Instant, ended: Ended) {
        let time = self.time(now);
        self.end_lease(time, ended);
        self.line_mut(ended.lane.unwrap_or_default()).forecast.on_end(time);
        self.record_work(time);
    }

    /// Returns whether other connections are idle, so that giving one back needs no update of the estimates.
    fn is_at_rest(&self) -> bool {
        self.normal.forecast.is_at_rest()
            && !self.idle.is_empty()
            && self.normal.queue.len() == 0
            && self.phase == PoolPhase::Open
            && self.normal.shadows.are_alike()
            && self.lanes.is_none()
    }

    /// Records a lease duration. Returns how many seconds the lease would have lasted if no call had been cancelled.
    fn record_lease(&mut self, lane: Lane, now: Time, lasted: f64, is_cancelled: bool) -> f64 {
        let leases = &mut self.line_mut(lane).leases;
        let seconds = if is_cancelled { leases.uncancelled(lasted) } else { lasted };
        leases.push(now, seconds);
        seconds
    }

    /// For a lease whose beginning is unknown: returns its least duration in seconds, if that is longer than usual. The
    /// lease began while other connections were idle, so it has lasted at least since then.
    fn longer_than_usual(&mut self, lane: Lane, now: Time) -> Option<f64> {
        let Line { forecast, leases, .. } = self.line_mut(lane);
        let at_least = forecast.busy_for(now);
        let typical = leases.typical(forecast.working())?;
        (at_least > typical).then(|| {
            let seconds = LeaseDurations::longer_than(at_least);
            leases.push(now, seconds);
            seconds
        })
    }
}
