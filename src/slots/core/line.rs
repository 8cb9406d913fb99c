//! The callers of one lane: those that wait, and the estimates that decide which newcomers may.
//!
//! Each lane is estimated as a pool of its own, with as many connections as it may use.

use std::time::Duration;

use super::held::{Ended, Use};
use super::lending::Lending;
use super::shares::Shares;
use crate::policy::{Appointments, Forecast, Lane, LeaseDurations, PerLane, ShadowQueues, Time};
use crate::slots::queue::Queue;

#[derive(Debug)]
pub(super) struct Line<W> {
    pub(super) queue: Queue<W>,
    pub(super) forecast: Forecast,
    pub(super) leases: LeaseDurations,
    pub(super) shadows: ShadowQueues,
    pub(super) appointments: Appointments,
}

impl<W> Line<W> {
    /// `wait_budget`: see [`Forecast::new`].
    pub(super) fn new(wait_budget: Duration) -> Self {
        Self {
            queue: Queue::new(),
            forecast: Forecast::new(wait_budget),
            leases: LeaseDurations::new(),
            shadows: ShadowQueues::new(),
            appointments: Appointments::new(),
        }
    }

    /// The mean time from one release that serves a caller of this line to the next, in seconds, if the lane has so
    /// many `connections`. `None` while too few releases are known.
    #[inline]
    pub(super) fn gap(&mut self, now: Time, supply: &Supply, connections: usize) -> Option<f64> {
        let own = self.forecast.gap(now, connections)?;
        Some(if supply.borrowed_rate > 0.0 { 1.0 / (1.0 / own + supply.borrowed_rate) } else { own })
    }

    /// When the lane last got a connection back, or a lower lane did whose connections come to it first.
    #[inline]
    pub(super) fn progress(&self, supply: &Supply) -> Time {
        self.forecast.progress().later(supply.borrowed_progress)
    }
}

/// What the callers of a lane can expect of the rest of the pool.
#[derive(Debug)]
pub(super) struct Supply {
    /// The lane's connections.
    pub(super) in_use: usize,
    /// The connections to reckon with: all that the limit allows while the pool can still dial, otherwise those in use.
    pub(super) connections: usize,
    /// The pool can still dial for this lane.
    pub(super) is_growing: bool,
    /// How many connections per second the lane gets back from lower lanes.
    pub(super) borrowed_rate: f64,
    /// When the last of them came back.
    pub(super) borrowed_progress: Time,
}

/// The lanes beside `Normal`, and what all lanes share.
#[derive(Debug)]
pub(super) struct Lanes<W> {
    pub(super) critical: Line<W>,
    pub(super) background: Line<W>,
    pub(super) shares: Shares,
    pub(super) lending: PerLane<Lending>,
}

impl<W> Lanes<W> {
    pub(super) fn line_mut(&mut self, lane: Lane) -> &mut Line<W> {
        if lane == Lane::Critical { &mut self.critical } else { &mut self.background }
    }

    #[inline(never)]
    pub(super) fn begin_lease(&mut self, now: Time, lane: Lane) {
        self.shares.in_use[lane as usize] += 1;
        self.lending[lane as usize].begin(now);
    }

    #[inline(never)]
    pub(super) fn end_lease(&mut self, now: Time, lane: Lane, ended: Ended) {
        self.shares.in_use[lane as usize] -= 1;
        self.lending[lane as usize].end(now, ended.since, ended.used != Use::None);
    }
}
