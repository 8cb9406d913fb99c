//! What maintenance does with idle connections: it closes old ones and checks those that have been idle for long.
//!
//! Maintenance checks early. So a connection is overdue at hand-out only after the process was stopped. Then the pool
//! checks it while its caller waits.

use std::mem;
use std::time::{Duration, Instant};

use super::ages::{Check, Idle, Life, MOMENT, NEVER, YOUNG, moments};
use super::held::{Birth, Held};
use super::outcomes::{Place, Placed};
use super::{Core, PoolPhase};

/// The most connections that maintenance checks at once.
const MOST_CHECKS: usize = 4;

impl<C, W> Core<C, W> {
    /// Takes out the idle connections that are too old, or beyond `min_idle` and idle for too long. To be closed.
    pub(crate) fn reap(&mut self, now: Instant) -> Vec<C> {
        self.update_moment(now);
        let mut spare = self.idle.len().saturating_sub(self.limits.ages.min_idle);
        let (moment, timeout) = (self.moment, self.limits.ages.idle_timeout.map_or(NEVER, moments));
        self.end(now, |idle| {
            let is_idle_too_long = moment.saturating_sub(idle.since) >= timeout;
            let is_over = idle.birth.expires <= moment || (is_idle_too_long && spare > 0);
            spare -= usize::from(is_over && spare > 0);
            is_over
        })
    }

    /// Returns the age of the core.
    pub(crate) fn life(&mut self, now: Instant) -> Life {
        self.update_moment(now);
        let read = Duration::from_millis(u64::from(self.moment) * MOMENT);
        Life(now.saturating_duration_since(self.begun).max(read))
    }

    /// Updates the current moment from the exact clock.
    pub(super) fn update_moment(&mut self, now: Instant) {
        if now >= self.next_moment {
            self.moment = self.moment.max(moments(now.saturating_duration_since(self.begun)));
            self.next_moment = self.begun + Duration::from_millis((u64::from(self.moment) + 1) * MOMENT);
        }
    }

    /// Returns whether the connection was idle and unchecked for too long to be handed out.
    #[inline]
    pub(super) fn is_overdue(&self, idle: &Idle<C>) -> bool {
        idle.checked != self.moment && self.was_checked_long_ago(idle)
    }

    fn was_checked_long_ago(&self, idle: &Idle<C>) -> bool {
        let ages = &self.limits.ages;
        let longest = ages.check_after.into_iter().chain(ages.idle_timeout).min().map_or(NEVER, moments);
        self.moment.saturating_sub(idle.checked) >= longest
    }

    /// Takes the most recently used idle connection for the pool itself, whatever the lanes of its callers may use.
    pub(crate) fn borrow(&mut self, now: Instant) -> Option<Held<C>> {
        if self.phase != PoolPhase::Open {
            return None;
        }
        self.update_moment(now);
        let Idle { conn, birth, .. } = self.idle.pop()?;
        self.in_use += 1;
        self.used_by_pool += 1;
        let time = self.time(now);
        self.record_work(time);
        Some(Held { is_expired: self.is_old(birth), ..Held::new(conn, Some(time), self.moment, birth, None) })
    }

    /// Takes an idle connection to check it on behalf of a waiter. A caller that may have an idle connection waits only
    /// if all of them are overdue.
    pub(crate) fn begin_due_check(&mut self, now: Instant) -> Option<Check<C>> {
        let are_overdue = || self.idle.iter().all(|idle| self.is_overdue(idle));
        if self.lanes.is_some() && (!are_overdue() || self.next_lane(now).is_none()) {
            return None;
        }
        let idle = self.idle.pop()?;
        self.used_by_pool += 1;
        self.settling += 1;
        self.in_use += 1;
        self.record_work(self.time(now));
        Some(Check::of(idle))
    }

    /// Fixes the age limit of a new connection.
    pub(super) fn birth(&mut self, generation: u32) -> Birth {
        // At least one moment: the pool would only replace a connection that is too old from the start.
        let expiry = |life| self.moment.saturating_add(moments(life).max(1));
        let expires = self.limits.ages.lifetimes.next().map_or(NEVER, expiry);
        Birth { generation, expires }
    }

    /// Returns whether a connection is too old, by its age or by its generation.
    #[inline]
    pub(super) fn is_old(&self, birth: Birth) -> bool {
        birth.generation != self.generation || birth.expires <= self.moment
    }

    #[inline]
    pub(super) fn push_idle(&mut self, conn: C, birth: Birth) {
        let (since, checked) = (self.moment, self.moment);
        self.idle.push(Idle { conn, birth, since, checked });
    }

    /// Takes out the idle connections that are unusable. To be closed.
    pub(crate) fn sweep(&mut self, now: Instant, is_usable: impl Fn(&C) -> bool) -> Vec<C> {
        let (young, mut died_young) = (self.moment.saturating_sub(moments(YOUNG)), false);
        let ended = self.end(now, |idle| {
            let has_ended = !is_usable(&idle.conn);
            died_young |= has_ended && idle.since >= young;
            has_ended
        });
        if died_young {
            self.redial_pause.on_early_end(now);
        }
        ended
    }

    /// Marks all idle connections for a check as soon as possible.
    pub(crate) fn check_all_soon(&mut self) {
        for idle in &mut self.idle {
            idle.checked = NEVER;
        }
    }

    /// The server did not answer the check. Returns the connections that were idle for as long, to be closed, and marks
    /// the others for a check. The connection itself has to be retired next.
    pub(crate) fn on_silent(&mut self, now: Instant, check: &Check<C>) -> Vec<C> {
        self.on_settled();
        let since = check.idle_since;
        let out = self.end(now, |idle| idle.since <= since);
        self.check_all_soon();
        out
    }

    /// Takes the idle connections that are due for a check: a few at once, and at most half of the idle ones, because
    /// callers may come.
    pub(crate) fn begin_checks(&mut self, now: Instant) -> Vec<Check<C>> {
        let Some(after) = self.limits.ages.check_after.filter(|_| self.phase == PoolPhase::Open) else {
            return Vec::new();
        };
        let (moment, after) = (self.moment, moments(after - after / 4));
        let mut checks_left = MOST_CHECKS.saturating_sub(self.used_by_pool).min(self.idle.len().div_ceil(2));
        let due = self.take_out(|idle| {
            let is_due = idle.checked == NEVER || moment.saturating_sub(idle.checked) >= after;
            let is_due = is_due && checks_left > 0;
            checks_left -= usize::from(is_due);
            is_due
        });
        self.in_use += due.len();
        self.settling += due.len();
        self.used_by_pool += due.len();
        self.record_work(self.time(now));
        due.into_iter().map(Check::of).collect()
    }

    /// The server has answered the check. The connection goes to the first waiter, or back to its place among the idle
    /// ones.
    pub(crate) fn on_checked(&mut self, now: Instant, Check { held, idle_since }: Check<C>) -> Placed<C, W> {
        self.on_settled();
        let time = self.time(now);
        self.end_lease(time, held.ended());
        if self.next_lane(now).is_some() || self.phase != PoolPhase::Open || self.is_surplus(held.birth) {
            return self.place(now, time, held.conn, held.birth);
        }
        let Held { conn, birth, .. } = held;
        let place = self.idle.partition_point(|idle| idle.since <= idle_since);
        self.idle.insert(place, Idle { conn, birth, since: idle_since, checked: self.moment });
        self.record_work(time);
        Placed { to: Place::Idle, refused: Vec::new() }
    }

    fn end(&mut self, now: Instant, is_out: impl FnMut(&Idle<C>) -> bool) -> Vec<C> {
        let out = self.take_out(is_out);
        self.closing += out.len();
        self.record_work(self.time(now));
        out.into_iter().map(|idle| idle.conn).collect()
    }

    fn take_out(&mut self, is_out: impl FnMut(&Idle<C>) -> bool) -> Vec<Idle<C>> {
        let (out, kept) = mem::take(&mut self.idle).into_iter().partition(is_out);
        self.idle = kept;
        out
    }
}
