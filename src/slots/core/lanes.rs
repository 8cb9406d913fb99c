//! Lanes: which callers get connections first, and how many slots the callers of each lane may use.
//!
//! Until a caller names a lane, all callers are in `Normal` and may use every slot. From then on `shares` decides who
//! may use a slot and who gets the next one, and `lending` whose leases are short enough for lent slots. Each lane has
//! a `Line`: its waiters, and its estimates, for which it is a pool of its own.

use std::time::Instant;

use super::Core;
use super::ages::Idle;
use super::held::Ended;
use super::lending::Lending;
use super::line::{Lanes, Line, Supply};
use super::outcomes::Placed;
use super::shares::Shares;
use crate::policy::{Lane, PerLane, Time};

/// A lease lasts at least so many seconds, whatever a stopped clock says.
const SHORTEST: f64 = 1e-9;

impl<C, W> Core<C, W> {
    /// From the first caller that names a lane on, lanes have their guarantees and limits.
    pub(super) fn open_lane(&mut self, lane: Lane) {
        if lane != Lane::Normal && self.lanes.is_none() {
            self.open_lanes();
        }
    }

    pub(crate) fn open_lanes(&mut self) {
        let budget = self.limits.wait_budget;
        let mut shares = Shares::new(self.limits.lanes, self.limits.max_size);
        shares.in_use[Lane::Normal as usize] = self.in_use - self.used_by_pool; // the pool's own use is in no lane
        let lending = Lane::ALL.map(|_| Lending::new(budget));
        let (critical, background) = (Line::new(budget), Line::new(budget));
        self.lanes = Some(Box::new(Lanes { critical, background, shares, lending }));
    }

    /// Sets the share of its limit that `Background` may use, from 0 to 1.
    pub(crate) fn set_background_share(&mut self, share: f64) {
        if let Some(lanes) = &mut self.lanes {
            lanes.shares.set_background_share(share);
        }
    }

    #[inline]
    pub(super) fn line(&self, lane: Lane) -> &Line<W> {
        match &self.lanes {
            Some(lanes) if lane == Lane::Critical => &lanes.critical,
            Some(lanes) if lane == Lane::Background => &lanes.background,
            Some(_) | None => &self.normal,
        }
    }

    #[inline]
    pub(super) fn line_mut(&mut self, lane: Lane) -> &mut Line<W> {
        match &mut self.lanes {
            Some(lanes) if lane != Lane::Normal => lanes.line_mut(lane),
            Some(_) | None => &mut self.normal,
        }
    }

    /// The lines in use, the highest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line<W>> {
        let lanes = self.lanes.as_deref();
        let (critical, background) = (lanes.map(|lanes| &lanes.critical), lanes.map(|lanes| &lanes.background));
        critical.into_iter().chain([&self.normal]).chain(background)
    }

    /// As [`lines`](Self::lines).
    pub(super) fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line<W>> {
        let (critical, background) = match &mut self.lanes {
            Some(lanes) => (Some(&mut lanes.critical), Some(&mut lanes.background)),
            None => (None, None),
        };
        critical.into_iter().chain([&mut self.normal]).chain(background)
    }

    /// How many callers of each lane wait.
    fn waiting_by_lane(&self) -> PerLane<usize> {
        Lane::ALL.map(|lane| if self.lanes.is_some() || lane == Lane::Normal { self.line(lane).queue.len() } else { 0 })
    }

    /// How many slots no lease has.
    fn free(&self) -> usize {
        self.limits.max_size.saturating_sub(self.in_use)
    }

    /// How many more slots the lane may use now.
    #[inline]
    pub(crate) fn available_to(&self, lane: Lane) -> usize {
        match &self.lanes {
            Some(lanes) => lanes.shares.available_to(lane, self.free()),
            None => self.free(),
        }
    }

    /// How many of the idle connections the lane may take.
    #[inline]
    pub(super) fn idle_for(&self, lane: Lane) -> usize {
        if self.lanes.is_some() { self.idle.len().min(self.available_to(lane)) } else { self.idle.len() }
    }

    /// How many connections the lane uses.
    #[inline]
    pub(super) fn in_use_of(&self, lane: Lane) -> usize {
        match &self.lanes {
            Some(lanes) => lanes.shares.in_use(lane),
            None => self.in_use,
        }
    }

    /// Whether a newcomer of this lane may take an idle connection.
    #[inline]
    pub(super) fn may_take(&mut self, now: Instant, lane: Lane) -> bool {
        if self.lanes.is_none() {
            return true;
        }
        self.update_lending(now);
        self.line(lane).queue.len() == 0 && self.available_to(lane) > 0
    }

    /// The lane whose first waiter gets the next connection.
    #[inline]
    pub(super) fn next_lane(&mut self, now: Instant) -> Option<Lane> {
        if self.lanes.is_none() {
            return (self.normal.queue.len() > 0).then_some(Lane::Normal);
        }
        self.update_lending(now);
        let (free, waiting) = (self.free(), self.waiting_by_lane());
        self.lanes.as_ref()?.shares.next(free, waiting)
    }

    /// How many waiters could be served now if there were enough connections.
    pub(super) fn servable(&mut self, now: Instant) -> usize {
        if self.lanes.is_none() {
            return self.normal.queue.len();
        }
        self.update_lending(now);
        let (free, waiting) = (self.free(), self.waiting_by_lane());
        // No more connections are idle, under way or can be dialed now.
        let most = self.idle.len() + self.dials.len() + self.limits.max_connecting;
        self.lanes.as_ref().map_or(0, |lanes| lanes.shares.servable(free, waiting, most))
    }

    /// Whether the lane has fewer connections than its guarantee, even if all its waiters had one: a newcomer is served
    /// as soon as any connection comes back.
    pub(super) fn is_owed(&self, lane: Lane) -> bool {
        let waiting = self.line(lane).queue.len();
        self.lanes.as_ref().is_some_and(|lanes| waiting < lanes.shares.owed(lane))
    }

    #[inline]
    pub(super) fn begin_lease(&mut self, now: Time, lane: Lane) {
        self.in_use += 1;
        if let Some(lanes) = &mut self.lanes {
            lanes.begin_lease(now, lane);
        }
    }

    #[inline]
    pub(super) fn end_lease(&mut self, now: Time, ended: Ended) {
        self.in_use -= 1;
        let Some(lane) = ended.lane else {
            self.used_by_pool -= 1;
            return;
        };
        if let Some(lanes) = &mut self.lanes {
            lanes.end_lease(now, lane, ended);
        }
    }

    /// What the callers of a lane can expect of the rest of the pool.
    #[inline]
    pub(super) fn supply(&mut self, lane: Lane, now: Time) -> Supply {
        if self.lanes.is_some() {
            return self.supply_of_lane(lane, now);
        }
        let in_use = self.in_use;
        let is_growing = in_use < self.limits.max_size && !self.dials.are_failing();
        let connections = if is_growing { self.limits.max_size } else { in_use };
        Supply { in_use, connections, is_growing, borrowed_rate: 0.0, borrowed_progress: Time::BEGIN }
    }

    #[inline(never)]
    fn supply_of_lane(&mut self, lane: Lane, now: Time) -> Supply {
        let (in_use, available) = (self.in_use_of(lane), self.available_to(lane));
        let is_growing = available > 0 && !self.dials.are_failing();
        let connections = (if is_growing { in_use + available } else { in_use }).max(1);
        let (mut borrowed_rate, mut borrowed_progress) = (0.0, Time::BEGIN);
        // The lane gets these connections first.
        for lower in self.givers(lane) {
            let borrowed = self.lanes.as_ref().map_or(0, |lanes| lanes.shares.borrowed(lower));
            let forecast = &mut self.line_mut(lower).forecast;
            borrowed_rate += forecast.gap(now, 1).map_or(0.0, |lease| borrowed as f64 / lease.max(SHORTEST));
            borrowed_progress = borrowed_progress.later(forecast.progress());
        }
        Supply { in_use, connections, is_growing, borrowed_rate, borrowed_progress }
    }

    /// The lower lanes whose connections come to this lane first when they are given back.
    fn givers(&self, lane: Lane) -> impl Iterator<Item = Lane> + use<C, W> {
        let is_giver = |lower: Lane| {
            self.lanes.as_ref().is_some_and(|lanes| {
                let is_below_limit = lanes.shares.in_use(lane) < lanes.shares.at_most(lane);
                lower as usize > lane as usize && is_below_limit && lanes.shares.borrowed(lower) > 0
            })
        };
        let givers = Lane::ALL.map(|lower| is_giver(lower).then_some(lower));
        givers.into_iter().flatten()
    }

    /// A connection has become idle.
    #[inline]
    pub(super) fn on_idle(&mut self) {
        if self.lanes.is_none() {
            return self.normal.shadows.on_served(0, self.in_use + 1);
        }
        for lane in Lane::ALL {
            if self.available_to(lane) > 0 {
                let connections = self.in_use_of(lane) + 1;
                self.line_mut(lane).shadows.on_served(0, connections);
            }
        }
    }

    /// To be called whenever the number of connections in use or idle has changed.
    #[inline]
    pub(super) fn record_work(&mut self, time: Time) {
        if self.lanes.is_some() {
            return self.record_work_of_lanes(time);
        }
        let idle = self.idle.len();
        let Line { forecast, shadows, .. } = &mut self.normal;
        forecast.on_working(time, if idle == 0 { self.in_use } else { 0 });
        shadows.on_idle(time, idle, || forecast.gap(time, 1));
    }

    #[inline(never)]
    fn record_work_of_lanes(&mut self, time: Time) {
        for lane in Lane::ALL {
            let (idle, in_use) = (self.idle_for(lane), self.in_use_of(lane));
            let Line { forecast, shadows, .. } = self.line_mut(lane);
            forecast.on_working(time, if idle == 0 { in_use } else { 0 });
            shadows.on_idle(time, idle, || forecast.gap(time, 1));
        }
    }

    /// Whether callers wait while connections are idle or slots are free: their lanes may use no more, or may use more
    /// since just now.
    #[inline]
    pub(crate) fn may_owe(&self) -> bool {
        self.lanes.is_some() && self.waiting() > 0 && (!self.idle.is_empty() || self.has_free_slot())
    }

    /// Hands an idle connection to a waiter whose lane may use more slots by now: slots became free, or are lent again.
    pub(crate) fn hand_idle(&mut self, now: Instant) -> Option<Placed<C, W>> {
        if !self.may_owe() {
            return None;
        }
        self.next_lane(now)?;
        let Idle { conn, birth, .. } = self.freshest()?;
        Some(self.place(now, self.time(now), conn, birth))
    }

    /// A waiter left its queue in vain.
    pub(super) fn on_turned_away(&mut self, lane: Lane, time: Time) {
        let Line { forecast, shadows, .. } = self.line_mut(lane);
        shadows.on_left(1);
        shadows.on_turned_away(time, forecast.wait_budget());
    }

    #[inline(never)]
    fn update_lending(&mut self, instant: Instant) {
        let now = self.time(instant);
        if let Some(lanes) = &mut self.lanes {
            for (lending, may_borrow) in lanes.lending.iter().zip(&mut lanes.shares.may_borrow) {
                *may_borrow = lending.is_allowed(now);
            }
        }
    }
}
