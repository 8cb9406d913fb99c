//! What somebody may order a circuit breaker to do, whatever the calls say.

use std::panic::Location;
use std::sync::Arc;
use std::time::Instant;

use super::{Breaker, Cause, Phase};

/// What somebody may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    ForceOpen,
    /// Closed, and everything forgotten but the history.
    Reset,
    Disable,
    /// Ends what was ordered. A circuit that opened by itself stays open.
    Enable,
    MetricsOnly,
    /// For good.
    ShutDown,
}

impl Breaker {
    /// Does what somebody asks for, unless it is that already, or has been shut down.
    pub(crate) fn obey(&mut self, now: Instant, order: Order, reason: Arc<str>, by: &'static Location<'static>) {
        self.advance(now);
        let told = self.news.len();
        let phase = match (order, &self.phase) {
            (_, Phase::ShutDown) => return,
            (Order::ForceOpen, _) => Phase::ForcedOpen,
            (Order::Reset, _) => {
                self.window.clear();
                self.openings = 0;
                Phase::Closed
            }
            (Order::Disable, _) => Phase::Disabled,
            (Order::Enable, Phase::ForcedOpen | Phase::Disabled | Phase::MetricsOnly) => Phase::Closed,
            (Order::Enable, _) => return,
            (Order::MetricsOnly, _) => Phase::MetricsOnly,
            (Order::ShutDown, _) => Phase::ShutDown,
        };
        let counts = *self.window.sum(now);
        self.change(now, phase, Cause::Requested(reason), counts);
        for transition in &mut self.news[told..] {
            transition.by = Some(by);
        }
    }
}
