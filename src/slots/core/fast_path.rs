//! The fast path: while several connections are idle, taking one and giving it back reads no exact clock.
//!
//! While more than one connection is idle, no caller waits and nothing is predicted. The time matters only to ages,
//! which a coarse clock is enough for, and to lease durations, of which a sample is enough.

use super::ages::moments_of;
use super::{Core, Held, Idle, PoolPhase};
use crate::policy::Lane;

/// The core measures the duration of one lease in so many.
const TIMED: u8 = 8;

impl<C, W> Core<C, W> {
    /// As [`take`](Self::take) for [`Lane::Normal`], without measuring the lease duration. Returns `None` if fewer than
    /// two connections are idle, if there are other lanes, and for a sample of leases whose duration has to be
    /// measured. `life` is the age of the pool in milliseconds, by a clock that may be a few milliseconds late.
    #[inline]
    pub(crate) fn take_fast(&mut self, life: u64) -> Option<Held<C>> {
        if self.phase != PoolPhase::Open || self.idle.len() < 2 || self.lanes.is_some() {
            return None;
        }
        self.fast_takes = (self.fast_takes + 1) % TIMED;
        if self.fast_takes == 0 {
            return None;
        }
        self.moment = self.moment.max(moments_of(life));
        let freshest = self.idle.last()?;
        if self.is_old(freshest.birth) || self.is_overdue(freshest) {
            return None;
        }
        let Idle { conn, birth, .. } = self.idle.pop()?;
        self.in_use += 1;
        self.served_at_once += 1;
        Some(Held::new(conn, None, self.moment, birth, Some(Lane::Normal)))
    }

    /// As [`release`](Self::release), without the time, for a lease that began on the fast path. Returns the connection
    /// if the time is needed by now.
    #[inline]
    pub(crate) fn release_fast(&mut self, held: Held<C>) -> Option<Held<C>> {
        let is_over = self.idle.len() + self.in_use + self.dials.len() > self.limits.max_size;
        let is_plain = held.since.is_none() && !self.idle.is_empty() && self.phase == PoolPhase::Open;
        // A caller may wait although connections are idle: for a check of an overdue one.
        let has_waiter = self.normal.queue.len() > 0;
        if !is_plain || is_over || has_waiter || self.lanes.is_some() || self.is_old(held.birth) {
            return Some(held);
        }
        self.in_use -= 1;
        self.push_idle(held.conn, held.birth);
        None
    }
}
