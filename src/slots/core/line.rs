//! The callers of one lane: those that wait, and the estimates that decide which newcomers may.
//!
//! Each lane is estimated as a pool of its own, with as many connections as it may use.

use std::time::Duration;

use super::lending::Lending;
use super::shares::Shares;
use crate::policy::{Appointments, Forecast, Lane, LeaseDurations, PerLane, ShadowQueues};
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
}
