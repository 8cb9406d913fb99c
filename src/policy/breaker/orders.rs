//! What somebody may order a circuit breaker to do, whatever the calls say.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Breaker, Cause, Deadline, Phase};

/// What somebody may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    ForceOpen,
    /// Open for so long, and then as if it had opened by itself. Other orders come first.
    OpenFor(Duration),
    /// Closed, and everything forgotten but the history. As opossum, nothing is forgotten: the window goes on, and calls under way count.
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
        let before = self.generation;
        let phase = match (order, &self.phase) {
            (_, Phase::ShutDown) => return,
            (Order::ForceOpen, _) => Phase::ForcedOpen,
            (Order::OpenFor(time), Phase::Closed | Phase::Open { .. } | Phase::HalfOpen(_)) => {
                let until = Deadline::after(now, time);
                if matches!(self.phase, Phase::Open { until: already, .. } if already >= until) {
                    return;
                }
                self.unreachable = false;
                Phase::Open { until, was_ordered: true }
            }
            (Order::OpenFor(_), _) => return,
            (Order::Reset, _) => {
                self.forget();
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
        let told = self.history.back_mut().into_iter().chain(self.changes.last_mut());
        for transition in told.filter(|transition| transition.number > before) {
            transition.by = Some(by);
        }
    }
}
