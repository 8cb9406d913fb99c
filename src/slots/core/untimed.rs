//! While there is plenty, connections are taken and given back without a look at the exact clock, and their hold is not measured.
//!
//! With more than one idle, nobody waits and nothing is predicted: the time matters to nothing but their ages, which are judged when they are taken, and how
//! long connections are held, of which a sample will do.

use super::ages::moments_of;
use super::{Core, Held, Idle, PoolPhase};

/// One in so many is timed.
const TIMED: u8 = 8;

impl<C, W> Core<C, W> {
    /// [`take`](Self::take) of one whose hold is not measured, while there is more than one idle: then nothing depends on it. `None` as well for one in a
    /// few, so that it is known how long connections are held. The pool has lived for so many milliseconds, by a clock that may be some milliseconds behind.
    #[inline]
    pub(crate) fn take_untimed(&mut self, life: u64) -> Option<Held<C>> {
        if self.phase != PoolPhase::Open || self.idle.len() < 2 {
            return None;
        }
        self.untimed = (self.untimed + 1) % TIMED;
        if self.untimed == 0 {
            return None;
        }
        self.moment = self.moment.max(moments_of(life));
        let freshest = self.idle.last()?;
        if self.is_old(freshest.birth) || self.is_overdue(freshest) {
            return None;
        }
        let Idle { conn, birth, .. } = self.idle.pop()?;
        self.in_use += 1;
        self.at_once += 1;
        Some(Held::new(conn, None, birth))
    }

    #[inline]
    /// [`release`](Self::release) without a look at the clock, of what was taken without one. Gives it back if the clock is needed by now.
    pub(crate) fn release_untimed(&mut self, held: Held<C>) -> Option<Held<C>> {
        let is_over = self.idle.len() + self.in_use + self.dials.len() > self.limits.max_size;
        let is_plain = held.since.is_none() && !self.idle.is_empty() && self.phase == PoolPhase::Open;
        if !is_plain || is_over || self.is_old(held.birth) {
            return Some(held);
        }
        self.in_use -= 1;
        self.rest(held.conn, held.birth);
        None
    }
}
