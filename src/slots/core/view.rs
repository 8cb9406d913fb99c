//! What the shell can read from the core.

use std::time::{Duration, Instant};

use super::{Core, LaneCounts, PoolPhase, SlotCounts};
use crate::policy::{Deadline, Lane, PerLane};
use crate::slots::queue::WaiterId;

impl SlotCounts {
    /// Returns whether callers have all connections that the limit allows.
    pub(crate) fn is_fully_leased(&self) -> bool {
        self.in_use >= self.limit
    }

    /// The slots in use: connections in every state, dials included.
    #[cfg(feature = "fleet")]
    pub(crate) fn taken(&self) -> usize {
        self.dialing + self.idle + self.in_use + self.settling + self.closing
    }
}

impl<C, W> Core<C, W> {
    pub(crate) fn counts(&self) -> SlotCounts {
        SlotCounts {
            limit: self.limits.max_size,
            dialing: self.dials.len(),
            idle: self.idle.len(),
            in_use: self.in_use - self.settling,
            settling: self.settling,
            closing: self.closing,
            waiting: self.waiting(),
            max_waiting: self.limits.max_waiting,
            is_open: self.phase == PoolPhase::Open,
            arrivals: self.served_at_once + self.entered,
            served_at_once: self.served_at_once,
        }
    }

    /// Takes back the last count of a caller served at once: its connection was dead.
    pub(crate) fn on_dead_at_hand_out(&mut self) {
        self.served_at_once -= 1;
    }

    /// How long until the next dial may begin. `None` if it may begin now, or if there is a connection or a dial.
    pub(crate) fn unreachable_for(&self, now: Instant) -> Option<Duration> {
        if self.is_alive() { None } else { self.dials.pause(now) }
    }

    /// The connections there are, without dials and those being closed.
    pub(crate) fn live(&self) -> usize {
        self.idle.len() + self.in_use
    }

    /// Returns whether a slot is free.
    pub(crate) fn has_free_slot(&self) -> bool {
        self.taken() < self.limits.max_size
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(crate) fn each_idle(&self, mut look: impl FnMut(&C)) {
        self.idle.iter().for_each(|idle| look(&idle.conn));
    }

    /// How long the next caller of this lane would wait. `None` if a connection is idle that it may have, or if there
    /// is no estimate yet.
    pub(crate) fn predicted_wait(&mut self, lane: Lane, now: Instant) -> Option<Duration> {
        if self.idle_for(lane) > 0 {
            return None;
        }
        self.predicted_seconds(lane, self.time(now)).map(Duration::from_secs_f64)
    }

    /// What each lane may use and uses. `None` if there are none but `Normal`.
    pub(crate) fn lane_counts(&mut self, now: Instant) -> Option<PerLane<LaneCounts>> {
        self.lanes.as_ref()?;
        Some(Lane::ALL.map(|lane| {
            let predicted_wait = self.predicted_wait(lane, now);
            let waiting = self.line(lane).queue.len();
            let shares = &self.lanes.as_ref().expect("looked at above").shares;
            let (guaranteed, at_most, in_use) = (shares.guaranteed(lane), shares.at_most(lane), shares.in_use(lane));
            LaneCounts { guaranteed, at_most, in_use, waiting, predicted_wait }
        }))
    }

    /// The number of the caller that has waited longest, and the number of the next caller to wait.
    pub(crate) fn waiters(&self) -> (u64, u64) {
        let first = self.lines().filter_map(|line| line.queue.first()).min();
        (first.unwrap_or(self.next_waiter), self.next_waiter)
    }

    /// The number of waiters.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        let others = self.lanes.as_ref().map_or(0, |lanes| lanes.critical.queue.len() + lanes.background.queue.len());
        self.normal.queue.len() + others
    }

    /// The deadline of a waiter that is still in the queue.
    pub(crate) fn deadline_of(&self, id: WaiterId) -> Option<Deadline> {
        self.line(id.lane()).queue.deadline_of(id)
    }

    /// Returns whether the latest dials failed.
    pub(crate) fn dials_are_failing(&self) -> bool {
        self.dials.are_failing()
    }

    /// Returns whether the latest dial failed for a lasting reason, and the next may not begin yet.
    pub(crate) fn dials_are_held_off(&self, now: Instant) -> bool {
        self.dials.are_held_off(now)
    }

    /// Returns whether the dial is still under way.
    pub(crate) fn is_dialing(&self, dial: u64) -> bool {
        self.dials.is_under_way(dial)
    }

    /// Returns whether the shell was asked to abort the dial.
    pub(crate) fn is_given_up(&self, dial: u64) -> bool {
        self.dials.is_given_up(dial)
    }
}
