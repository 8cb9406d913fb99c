//! Orders to a circuit breaker, snapshots of it, and the move of its state to another breaker.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counts::Counts;
use super::{Breaker, Cause, Deadline, Export, Past, Phase, Probes, Snapshot, State, Transition};

/// The largest count that an import takes from another breaker. One window never has that many calls.
const MOST_CALLS: u64 = 1 << 50;

/// The orders that an owner can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    ForceOpen,
    /// Opens the circuit for that long; then it recovers as if it had opened by itself. Any other order has priority.
    OpenFor(Duration),
    /// Closes the circuit and forgets everything except the history. By opossum's rule nothing is forgotten: the window
    /// stays, and calls under way count.
    Reset,
    Disable,
    /// Ends an earlier order. A circuit that opened by itself stays open.
    Enable,
    MetricsOnly,
    /// Final: every later order is ignored.
    ShutDown,
}

impl Breaker {
    /// Carries out an order, unless the breaker has been shut down. A change of state records `by`, the place in the
    /// code that gave the order.
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
        let latest = self.history.back_mut().into_iter().chain(self.changes.last_mut());
        for transition in latest.filter(|transition| transition.number > before) {
            transition.by = Some(by);
        }
    }

    pub(crate) fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.advance(now);
        let counts = *self.window.sum(now);
        let past = |transition: &Transition| Past {
            transition: transition.clone(),
            age: now.saturating_duration_since(transition.at),
        };
        Snapshot {
            name: self.name.clone(),
            state: self.phase.state(),
            age: now.saturating_duration_since(self.since),
            counts,
            failure_rate: self.settings.failure_rate(&counts),
            slow_rate: self.settings.slow_rate(&counts),
            retry_after: self.denied(now).map(|denied| denied.retry_after),
            probes: if let Phase::HalfOpen(probes) = &self.phase { probes.under_way() } else { 0 },
            latency: self.latencies.as_mut().map(|latencies| latencies.sum(now)),
            history: self.history.iter().map(past).collect(),
        }
    }

    pub(crate) fn export(&mut self, now: Instant) -> Export {
        self.advance(now);
        Export {
            state: self.phase.state(),
            age: now.saturating_duration_since(self.since),
            openings: self.openings,
            unreachable: self.unreachable,
            counts: *self.window.sum(now),
            open_for: match self.phase {
                Phase::Open { until, was_ordered: true } => Some(until.left(self.since)),
                _ => None,
            },
        }
    }

    /// Continues with the state of another breaker, unless this one has been shut down. Calls under way no longer
    /// count, because the imported window does not include them.
    pub(crate) fn import(&mut self, now: Instant, export: &Export) {
        if matches!(self.phase, Phase::ShutDown) {
            return;
        }
        let counts = self.plausible(export.counts);
        self.window.clear();
        self.window.add(now, counts);
        self.openings = export.openings;
        self.unreachable = export.unreachable;
        let phase = match export.state {
            State::Closed => Phase::Closed,
            State::Open => {
                let open_for =
                    export.open_for.unwrap_or_else(|| self.settings.open_for(export.openings, self.random01));
                let until = Deadline::after(now, open_for.saturating_sub(export.age));
                Phase::Open { until, was_ordered: export.open_for.is_some() }
            }
            State::HalfOpen => Phase::HalfOpen(Probes::new(self.settings.permitted_probes)),
            State::ForcedOpen => Phase::ForcedOpen,
            State::Disabled => Phase::Disabled,
            State::MetricsOnly => Phase::MetricsOnly,
            State::ShutDown => Phase::ShutDown,
        };
        self.change(now, phase, Cause::Imported, counts);
        self.counted_since = self.generation;
        self.since = now.checked_sub(export.age).unwrap_or(now);
    }

    /// Limits imported counts, which may be anything, so that no sum overflows and no rate exceeds 100%. Only opossum's
    /// rule counts the calls that asked. For an export without them, each completed call counts as one.
    fn plausible(&self, counts: Counts) -> Counts {
        let completed = counts.completed.min(MOST_CALLS);
        let failures = counts.failures.min(completed);
        let asked = counts.fires.min(MOST_CALLS).max(completed);
        Counts {
            fires: if self.settings.is_opossum() { asked } else { 0 },
            completed,
            failures,
            unreachable: counts.unreachable.min(failures),
            slow: counts.slow.min(completed),
            rejected: counts.rejected.min(MOST_CALLS),
            busy: counts.busy.min(MOST_CALLS),
        }
    }
}
