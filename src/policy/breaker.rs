//! The circuit breaker's rules: may a call pass, and what does its result change? Time is an argument.
//!
//! ```text
//!              too many failures                reset timeout,
//!              or slow calls                    or the server answers
//!   closed ──────────────────────▶ open ──────────────────────────────▶ half-open
//!      ▲                            ▲                                   │      │
//!      │                            └────── probes fail, or hang ───────┘      │
//!      └────────────────────────────────── probes pass ────────────────────────┘
//! ```
//!
//! This file: the state machine. Below it: `settings` (thresholds), `ticket` (what a call gets and brings back),
//! `window` and `counts` (what is counted), `latency` (percentiles), `probes` (half-open), `admin` (orders, export,
//! import), `report` (the public types). `src/breaker.rs` puts it under a lock and reads the clock.
//!
//! Each change of state begins a new generation. A ticket carries the generation in which its call was admitted. The
//! result of a call of an earlier generation is stale: it says nothing about the dependency as it is now.

mod admin;
mod counts;
mod latency;
mod probes;
mod report;
mod settings;
mod ticket;
mod window;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::admin::Order;
pub use self::counts::Counts;
use self::counts::Streak;
use self::latency::Latencies;
pub use self::latency::Latency;
use self::probes::Probes;
pub(crate) use self::report::Prefix;
pub use self::report::{Cause, Export, Past, Snapshot, State, Transition};
pub(crate) use self::settings::{BreakerParameters, Growth, Rule, SlowCall};
pub(crate) use self::ticket::{Denied, ResultKind, Ticket};
pub(crate) use self::window::Window;
use super::Deadline;

/// How long after its own timeout a probe may take to record its result.
pub(crate) const TO_RECORD: Duration = Duration::from_secs(1);
/// How many changes of state the history has.
const REMEMBERED: usize = 16;

#[derive(Debug)]
enum Phase {
    Closed,
    /// `was_ordered` is whether an owner named the time.
    Open {
        until: Deadline,
        was_ordered: bool,
    },
    HalfOpen(Probes),
    ForcedOpen,
    Disabled,
    MetricsOnly,
    ShutDown,
}

impl Phase {
    fn state(&self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen(_) => State::HalfOpen,
            Self::ForcedOpen => State::ForcedOpen,
            Self::Disabled => State::Disabled,
            Self::MetricsOnly => State::MetricsOnly,
            Self::ShutDown => State::ShutDown,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Breaker {
    name: Option<Arc<str>>,
    settings: BreakerParameters,
    phase: Phase,
    since: Instant,
    /// Increases with each change of state, from 1.
    generation: u64,
    /// The oldest generation whose calls count.
    counted_since: u64,
    window: Window,
    /// `None` if the setting is off.
    latencies: Option<Latencies>,
    streak: Streak,
    /// Until then no result opens a closed circuit.
    warm_up: Option<Deadline>,
    /// Openings in a row, without a close between them.
    openings: u32,
    /// The circuit last opened because the server was not reached. A probe that times out does not change this.
    unreachable: bool,
    /// The share of the jitter that lengthens the reset timeout, from 0 to 1. Drawn when a result opens the circuit.
    random01: f64,
    /// Oldest first.
    history: VecDeque<Transition>,
    /// The changes that no hook has seen yet.
    changes: Vec<Transition>,
}

impl Breaker {
    /// Returns a closed breaker. `random01` is random, from 0 to 1.
    pub(crate) fn new(now: Instant, settings: BreakerParameters, random01: f64) -> Self {
        Self {
            name: None,
            settings,
            phase: Phase::Closed,
            since: now,
            generation: 1,
            counted_since: 1,
            window: settings.window(now),
            latencies: settings.latencies(now),
            streak: Streak::default(),
            warm_up: settings.warm_up.then(|| Deadline::after(now, settings.window)),
            openings: 0,
            unreachable: false,
            random01,
            history: VecDeque::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn named(self, name: Option<Arc<str>>) -> Self {
        Self { name, ..self }
    }

    /// Checks whether a call would be admitted, without admitting it. Counts a rejection.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), Denied> {
        self.advance(now);
        let denied = self.denied(now);
        denied.map_or(Ok(()), |denied| Err(self.reject(now, denied)))
    }

    /// Admits a call, as a probe if the circuit is half-open. Counts a rejection.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Ticket, Denied> {
        self.advance(now);
        if let Some(denied) = self.denied(now) {
            return Err(self.reject(now, denied));
        }
        self.count_fire(now);
        let probe_timeout = self.settings.probe_timeout;
        let is_probe = match &mut self.phase {
            Phase::HalfOpen(probes) => probes.try_begin(now, probe_timeout),
            _ => false,
        };
        Ok(Ticket { is_probe, ..self.ticket() })
    }

    /// An admitted call ends at `limit` by itself. If it is a probe, the half-open state waits for that and for the
    /// record of its result.
    pub(crate) fn limit_call(&mut self, ticket: Ticket, limit: Deadline) {
        if let Phase::HalfOpen(probes) = &mut self.phase {
            if ticket.is_probe && ticket.generation == self.generation {
                probes.extend(Deadline::after(limit.instant(), TO_RECORD));
            }
        }
    }

    /// Returns the ticket for calls that need not ask, because each of them passes and admitting it changes nothing.
    pub(crate) fn free_pass(&self) -> Option<Ticket> {
        let is_free = match self.phase {
            Phase::Disabled => true,
            Phase::Closed | Phase::MetricsOnly => !self.settings.is_opossum(),
            _ => false,
        };
        is_free.then(|| self.ticket())
    }

    fn ticket(&self) -> Ticket {
        if matches!(self.phase, Phase::Disabled) { Ticket::uncounted() } else { Ticket::regular(self.generation) }
    }

    /// Returns the generation whose successes cannot change the state, because they only lower the rates. Also returns
    /// when that ends, if it does. The caller may count such successes elsewhere. It passes them to
    /// [`count_successes`](Self::count_successes) before it calls any other method.
    pub(crate) fn calm(&self) -> Option<(u64, Option<Instant>)> {
        let sum = self.window.last_sum();
        let is_calm = matches!(self.phase, Phase::Closed) && !self.settings.is_opossum() && self.settings.is_calm(sum);
        is_calm.then(|| (self.generation, self.window.bucket_end()))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds the successes of calm times that were counted elsewhere since the last call of any method.
    pub(crate) fn count_successes(&mut self, completed: u64) {
        if completed > 0 {
            self.streak = Streak::default();
        }
        self.window.add_to_current(Counts { completed, ..Counts::default() });
    }

    /// Returns a ticket that is no probe, if the circuit is closed.
    pub(crate) fn closed_ticket(&self) -> Option<Ticket> {
        matches!(self.phase, Phase::Closed).then_some(Ticket::regular(self.generation))
    }

    /// Records a call that ended after `took`. `random01` returns a random number from 0 to 1. It is called only when
    /// the circuit opens.
    pub(crate) fn record(
        &mut self,
        now: Instant,
        ticket: Ticket,
        outcome: ResultKind,
        took: Duration,
        random01: impl FnOnce() -> f64,
    ) {
        self.advance(now);
        if !(self.counted_since..=self.generation).contains(&ticket.generation) {
            return;
        }
        let Some(counts) = self.counts_of(outcome, took) else { return self.release(now, ticket) };
        self.count_unless_off(now, counts);
        if let Some(latencies) = &mut self.latencies {
            latencies.add(now, took);
        }
        self.streak.add(now, counts);
        match &mut self.phase {
            Phase::Closed if counts.failures > 0 || !self.settings.is_opossum() => self.judge_window(now, random01),
            Phase::HalfOpen(probes) => {
                if ticket.generation == self.generation {
                    probes.on_ended();
                }
                probes.add_result(counts);
                self.judge_probes(now, random01);
            }
            _ => {}
        }
    }

    /// Takes back the ticket of a call that says nothing about the dependency. Another call may probe in its place.
    pub(crate) fn release(&mut self, now: Instant, ticket: Ticket) {
        self.advance(now);
        if ticket.generation == self.generation {
            if let Phase::HalfOpen(probes) = &mut self.phase {
                probes.on_ended();
            }
        }
    }

    /// Records an admitted call that was refused because the capacity was in use. By opossum's rule that is a failure;
    /// by ours it says nothing about the dependency.
    pub(crate) fn record_busy(&mut self, now: Instant, ticket: Ticket, random01: impl FnOnce() -> f64) {
        self.advance(now);
        self.count_unless_off(now, Counts { busy: 1, ..Counts::default() });
        let outcome = if self.settings.is_opossum() { ResultKind::Failure } else { ResultKind::Ignored };
        self.record(now, ticket, outcome, Duration::ZERO, random01);
    }

    /// The server has answered. If the circuit opened because it did not, calls may probe now.
    pub(crate) fn on_server_answer(&mut self, now: Instant) {
        self.advance(now);
        if self.unreachable && matches!(self.phase, Phase::Open { .. }) {
            self.half_open(now, Cause::ServerAnswers);
        }
    }

    /// The server takes much longer than usual to answer. That opens no circuit. If the circuit is open, the server's
    /// next answer lets calls probe.
    pub(crate) fn on_server_late(&mut self, now: Instant) {
        self.advance(now);
        self.unreachable |= matches!(self.phase, Phase::Open { .. });
    }

    /// The server was not reached or did not answer, and no call records that. A closed circuit counts one more failure
    /// in a row. A half-open one opens. An open one lets calls probe at the server's next answer. `random01` is as for
    /// [`record`](Self::record).
    pub(crate) fn on_server_silent(&mut self, now: Instant, random01: impl FnOnce() -> f64) {
        self.advance(now);
        match &self.phase {
            Phase::HalfOpen(probes) => {
                let results = probes.results();
                self.open(now, Cause::ServerSilent, results);
            }
            Phase::Closed if !self.settings.is_opossum() => {
                self.streak.add_silence(now);
                self.judge_window(now, random01);
            }
            _ => {}
        }
        self.unreachable |= matches!(self.phase, Phase::Open { .. });
    }

    /// A health check failed. The circuit opens, whatever the results of calls are.
    pub(crate) fn on_health_check_failed(&mut self, now: Instant) {
        self.advance(now);
        if matches!(self.phase, Phase::Closed | Phase::HalfOpen(_)) {
            let counts = *self.window.sum(now);
            self.unreachable = false;
            self.open(now, Cause::HealthCheck, counts);
        }
    }

    pub(crate) fn state(&mut self, now: Instant) -> State {
        self.advance(now);
        self.phase.state()
    }

    /// Returns the state as of the last method that took the time. It changes nothing.
    pub(crate) fn last_state(&self) -> State {
        self.phase.state()
    }

    /// Returns the changes of state since the last call of this method, oldest first.
    pub(crate) fn take_changes(&mut self) -> Vec<Transition> {
        mem::take(&mut self.changes)
    }

    /// Returns when time alone will change the state.
    pub(crate) fn due(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Open { until, .. } => Some(*until),
            Phase::HalfOpen(probes) => probes.deadline(),
            _ => None,
        }
    }

    /// Makes the changes that time alone causes. Every method with a `now` calls it first.
    fn advance(&mut self, now: Instant) {
        if let Phase::HalfOpen(probes) = &self.phase {
            if let Some(timed_out) = probes.timed_out(now) {
                let results = probes.results();
                self.open(timed_out, Cause::ProbeTimeout, results);
            }
        }
        if matches!(self.phase, Phase::Open { until, .. } if until.has_passed(now)) {
            self.half_open(now, Cause::ResetTimeout);
        }
    }

    fn denied(&self, now: Instant) -> Option<Denied> {
        let retry_after = match &self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly => return None,
            Phase::HalfOpen(probes) if probes.has_free() => return None,
            Phase::HalfOpen(probes) => probes.retry_after(now),
            Phase::Open { until, .. } => until.left(now),
            // The end of the order is unknown. A caller that asks again this often does no harm.
            Phase::ForcedOpen | Phase::ShutDown => self.settings.reset_timeout,
        };
        let may_end_early = self.unreachable && matches!(self.phase, Phase::Open { .. });
        Some(Denied { state: self.phase.state(), retry_after, may_end_early })
    }

    fn reject(&mut self, now: Instant, denied: Denied) -> Denied {
        self.count_fire(now);
        self.count_unless_off(now, Counts { rejected: 1, ..Counts::default() });
        denied
    }

    /// opossum counts a call when it asks, before anything else.
    fn count_fire(&mut self, now: Instant) {
        if self.settings.is_opossum() {
            self.count_unless_off(now, Counts { fires: 1, ..Counts::default() });
        }
    }

    fn count_unless_off(&mut self, now: Instant, counts: Counts) {
        if !matches!(self.phase, Phase::Disabled | Phase::ShutDown) {
            self.window.add(now, counts);
        }
    }

    /// Returns the counts of one call. `None`: it does not count.
    fn counts_of(&self, outcome: ResultKind, took: Duration) -> Option<Counts> {
        let failures = u64::from(outcome != ResultKind::Success);
        let unreachable = u64::from(outcome == ResultKind::Unreachable);
        let slow = u64::from(self.settings.is_slow(took));
        let counts = Counts { completed: 1, failures, unreachable, slow, ..Counts::default() };
        (outcome != ResultKind::Ignored).then_some(counts)
    }

    fn judge_window(&mut self, now: Instant, random01: impl FnOnce() -> f64) {
        let sum = *self.window.sum(now);
        let Some(cause) = self.settings.tripped(&sum).or_else(|| self.settings.blackout(now, &self.streak)) else {
            return;
        };
        if self.warm_up.is_none_or(|warm_up| warm_up.has_passed(now)) {
            self.unreachable = cause != Cause::SlowRate && sum.is_mostly_unreachable();
            self.random01 = random01();
            self.open(now, cause, sum);
        }
    }

    fn judge_probes(&mut self, now: Instant, random01: impl FnOnce() -> f64) {
        let Phase::HalfOpen(probes) = &self.phase else { return };
        let results = probes.results();
        match self.settings.judge_probes(&results) {
            Some(Cause::ProbesPassed) => self.close(now, results),
            Some(cause) => {
                self.unreachable = results.is_mostly_unreachable();
                self.random01 = random01();
                self.open(now, cause, results);
            }
            None => {}
        }
    }

    fn open(&mut self, at: Instant, cause: Cause, counts: Counts) {
        self.openings = self.openings.saturating_add(1);
        let until = Deadline::after(at, self.settings.open_for(self.openings, self.random01));
        self.change(at, Phase::Open { until, was_ordered: false }, cause, counts);
    }

    fn half_open(&mut self, now: Instant, cause: Cause) {
        let counts = *self.window.sum(now);
        self.change(now, Phase::HalfOpen(Probes::new(self.settings.permitted_probes)), cause, counts);
    }

    fn close(&mut self, now: Instant, counts: Counts) {
        self.forget();
        self.change(now, Phase::Closed, Cause::ProbesPassed, counts);
    }

    /// Clears the window. By opossum's rule only time does that.
    fn forget(&mut self) {
        self.openings = 0;
        if !self.settings.is_opossum() {
            self.window.clear();
        }
    }

    /// Enters a phase. Calls under way become stale, even if the state stays the same; the history then has no entry.
    /// By opossum's rule, calls under way count whenever they end.
    fn change(&mut self, at: Instant, phase: Phase, cause: Cause, counts: Counts) {
        let (from, to) = (self.phase.state(), phase.state());
        self.phase = phase;
        self.streak = Streak::default();
        self.generation += 1;
        if !self.settings.is_opossum() {
            self.counted_since = self.generation;
        }
        if from == to {
            return;
        }
        self.since = at;
        let (name, number) = (self.name.clone(), self.generation);
        let transition = Transition { name, from, to, cause, counts, at, by: None, number };
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(transition.clone());
        self.changes.push(transition);
    }
}

#[cfg(test)]
mod tests;
