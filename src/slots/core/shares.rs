//! Which lane may use a free slot, and which one gets the next.
//!
//! A lane has a guarantee and a limit. A guaranteed slot that its lane does not use is lent, but only to lanes whose
//! leases are short, because what is lent cannot be taken back. One slot of `Critical` is never lent.
//!
//! The next free slot goes to a lane below its guarantee if callers of it wait, else to the highest lane in which
//! callers wait. So no lane starves, and a caller of a higher lane is passed only for a guarantee.

use crate::policy::{Lane, LaneLimits, PerLane};

/// A pool of fewer connections has guarantees only for the lanes that name a share.
const LARGE: usize = 5;
/// A tenth of ten is one, whatever a float makes of it.
const ROUNDING: f64 = 1e-9;

#[derive(Debug)]
pub(super) struct Shares {
    limits: PerLane<LaneLimits>,
    size: usize,
    /// The share of its limit that `Background` may use, from 0 to 1.
    background_share: f64,
    guaranteed: PerLane<usize>,
    at_most: PerLane<usize>,
    pub(super) in_use: PerLane<usize>,
    /// Whether the lane's leases are short enough for lent slots.
    pub(super) may_borrow: PerLane<bool>,
}

impl Shares {
    pub(super) fn new(limits: PerLane<LaneLimits>, size: usize) -> Self {
        let mut shares = Self {
            limits,
            size,
            background_share: 1.0,
            guaranteed: [0; 3],
            at_most: [0; 3],
            in_use: [0; 3],
            may_borrow: [false; 3],
        };
        shares.divide();
        shares
    }

    pub(super) fn resize(&mut self, size: usize) {
        self.size = size;
        self.divide();
    }

    /// `share`: from 0 to 1.
    pub(super) fn set_background_share(&mut self, share: f64) {
        self.background_share = share;
        self.divide();
    }

    pub(super) fn guaranteed(&self, lane: Lane) -> usize {
        self.guaranteed[lane as usize]
    }

    pub(super) fn at_most(&self, lane: Lane) -> usize {
        self.at_most[lane as usize]
    }

    pub(super) fn in_use(&self, lane: Lane) -> usize {
        self.in_use[lane as usize]
    }

    /// How many slots of its guarantee the lane does not use.
    pub(super) fn owed(&self, lane: Lane) -> usize {
        self.guaranteed(lane).saturating_sub(self.in_use(lane))
    }

    /// How many slots beyond its guarantee the lane uses.
    pub(super) fn borrowed(&self, lane: Lane) -> usize {
        self.in_use(lane).saturating_sub(self.guaranteed(lane))
    }

    /// How many of the `free` slots the lane may take now.
    pub(super) fn available_to(&self, lane: Lane, free: usize) -> usize {
        let others = || Lane::ALL.into_iter().filter(|other| *other != lane);
        let never_lent = others().map(|other| self.never_lent(other)).sum();
        let kept = if self.may_borrow[lane as usize] {
            never_lent
        } else {
            others().map(|other| self.owed(other)).sum::<usize>()
        };
        let own = self.owed(lane).min(free.saturating_sub(never_lent));
        let left = self.at_most(lane).saturating_sub(self.in_use(lane));
        left.min(own.max(free.saturating_sub(kept)))
    }

    /// The lane that gets the next of the `free` slots, if callers wait that may have it. `waiting`: the number of
    /// waiters of each lane.
    pub(super) fn next(&self, free: usize, waiting: PerLane<usize>) -> Option<Lane> {
        let may = |lane: &Lane| waiting[*lane as usize] > 0 && self.available_to(*lane, free) > 0;
        let below = Lane::ALL.into_iter().find(|lane| self.owed(*lane) > 0 && may(lane));
        below.or_else(|| Lane::ALL.into_iter().find(may))
    }

    /// How many of the waiters may have a slot now. Counts no further than `most`.
    pub(super) fn servable(&self, mut free: usize, mut waiting: PerLane<usize>, most: usize) -> usize {
        let mut after = Self { ..*self };
        let mut servable = 0;
        while let Some(lane) = after.next(free, waiting).filter(|_| servable < most) {
            after.in_use[lane as usize] += 1;
            waiting[lane as usize] -= 1;
            free -= 1;
            servable += 1;
        }
        servable
    }

    /// How many slots that the lane does not use are never lent.
    fn never_lent(&self, lane: Lane) -> usize {
        usize::from(lane == Lane::Critical && self.guaranteed(lane) > 0 && self.in_use(lane) == 0)
    }

    /// Turns shares into slots. A guarantee of a part of a slot is one slot. The highest lanes come first if the pool
    /// is too small for all. One slot is left to those without a guarantee.
    fn divide(&mut self) {
        let size = self.size as f64;
        let slots = |share: f64| (size * share + ROUNDING) as usize;
        let mut left = self.size.saturating_sub(1);
        for lane in Lane::ALL {
            let limits = self.limits[lane as usize];
            let wished = match limits.guaranteed {
                Some(share) if share > 0.0 => slots(share).max(1),
                None if self.size >= LARGE => 1,
                Some(_) | None => 0,
            };
            let guaranteed = wished.min(left);
            left -= guaranteed;
            let share = if lane == Lane::Background { self.background_share } else { 1.0 };
            let most = (slots(limits.at_most).max(1) as f64 * share + ROUNDING) as usize;
            self.guaranteed[lane as usize] = guaranteed;
            self.at_most[lane as usize] = most.max(guaranteed).max(1);
        }
    }
}

#[cfg(test)]
mod tests;
