//! How a lease ends, and what is learned of its duration.
//!
//! A connection that is given back serves the first waiter or becomes idle. One that is of no use is retired, and one that its caller keeps is detached.
//! While others are idle nobody waits and no work is counted: then giving one back only notes how long the lease lasted, which is most of what a
//! healthy pool does.

use std::time::{Duration, Instant};

use super::{Core, Held, Place, Placed, PoolPhase};
use crate::policy::{LeaseDurations, Time};

impl<C, W> Core<C, W> {
    /// A lease ends and its connection is fit for the next. `lasted`: [`Held::lasted`].
    pub(crate) fn release(&mut self, now: Instant, mut held: Held<C>, lasted: Option<Duration>) -> Placed<C, W> {
        self.prove(&mut held);
        self.in_use -= 1;
        let lasted = lasted.map(|lasted| self.note_lease(now, lasted, held.is_given_up));
        if self.is_at_rest() && !self.is_surplus(held.birth) {
            self.rest(held.conn, held.birth);
            return Placed { to: Place::Idle, refused: Vec::new() };
        }
        let time = self.time(now);
        match lasted.or_else(|| self.longer_than_usual(now, time)) {
            Some(seconds) => self.forecast.on_release(time, seconds),
            None => self.forecast.on_end(time),
        }
        self.place(now, time, held.conn, held.birth)
    }

    /// A lease ends and its connection has to be cleaned up before anybody gets it: it stays in use until it is released or retired.
    pub(crate) fn settle(&mut self) {
        self.settling += 1;
    }

    /// The clean-up has ended: the connection is released or retired next.
    pub(crate) fn settled(&mut self) {
        self.settling -= 1;
    }

    /// A lease ends and its connection is not fit for anybody: it is to be closed.
    pub(crate) fn retire(&mut self, now: Instant) {
        self.in_use -= 1;
        self.closing += 1;
        let time = self.time(now);
        self.forecast.on_end(time);
        self.note_work(time);
    }

    /// A lease ends and its connection is the caller's from now on: its slot is free.
    pub(crate) fn detach(&mut self, now: Instant) {
        self.in_use -= 1;
        let time = self.time(now);
        self.forecast.on_end(time);
        self.note_work(time);
    }

    /// Others are idle, so nobody waits and no work is counted. Giving a connection back changes nothing else.
    fn is_at_rest(&self) -> bool {
        self.forecast.is_at_rest()
            && !self.idle.is_empty()
            && self.queue.len() == 0
            && self.phase == PoolPhase::Open
            && self.shadows.are_alike()
    }

    /// A lease of known duration has ended. Returns for how many seconds it would have lasted if its work had not been cancelled.
    fn note_lease(&mut self, now: Instant, lasted: Duration, is_cancelled: bool) -> f64 {
        let lasted = lasted.as_secs_f64();
        let seconds = if is_cancelled { self.leases.uncancelled(lasted) } else { lasted };
        self.leases.push(now, seconds);
        seconds
    }

    /// Of a lease that began while others were idle, at an unknown time: for how many seconds it lasted, if it is known to be longer than usual.
    fn longer_than_usual(&mut self, now: Instant, time: Time) -> Option<f64> {
        let at_least = self.forecast.busy_for(time);
        let typical = self.leases.typical(self.forecast.working())?;
        (at_least > typical).then(|| {
            let seconds = LeaseDurations::longer_than(at_least);
            self.leases.push(now, seconds);
            seconds
        })
    }
}
