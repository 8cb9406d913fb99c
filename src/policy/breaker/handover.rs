//! A circuit breaker seen from outside, and what goes from one to another.

use std::time::Instant;

use super::{Breaker, Cause, Deadline, Export, Past, Phase, Probes, Snapshot, State, Transition};
use crate::policy::window::Counts;

/// More calls than this in one window are a mistake.
const MOST_CALLS: u64 = 1 << 50;

impl Breaker {
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
            probes: if let Phase::HalfOpen(probes) = &self.phase { probes.out() } else { 0 },
            latency: self.latencies.as_mut().map(|latencies| latencies.seen(now)),
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

    /// Goes on where another one was, unless it has been shut down. Calls under way are forgotten: what they were part of is not in the window
    /// that is imported.
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

    /// What comes from elsewhere may be anything: nothing that is counted on it may overflow, and no rate may be more than 100%. Only opossum
    /// counts who asks; of whoever does not, all calls that ended had asked.
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
