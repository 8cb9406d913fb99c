//! The circuit breaker: whether to ask a dependency that keeps failing.
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
//! Each change of state begins a new generation. A call carries the one in which it was admitted: results of another are stale, and say
//! nothing of the dependency as it is now. A probe that ends without a verdict lets another one out.
//!
//! Besides, somebody may order it: forced open, disabled, metrics only, shut down. Semantics beside those of opossum and
//! resilience4j: the conformance cases in `tests/`.

mod handover;
mod latency;
mod orders;
mod probes;
mod report;
mod settings;
mod streak;
mod ticket;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::latency::Latencies;
pub use self::latency::Latency;
pub(crate) use self::orders::Order;
use self::probes::Probes;
pub(crate) use self::report::Prefix;
pub use self::report::{Cause, Export, Past, Snapshot, State, Transition};
pub(crate) use self::settings::{Growth, Rule, Settings, SlowCall};
use self::streak::Streak;
pub(crate) use self::ticket::{Denied, Outcome, Ticket};
use super::Deadline;
use super::window::{Counts, Window};

/// What a call that ran out of time may take to tell the breaker.
pub(crate) const TO_SAY_SO: Duration = Duration::from_secs(1);
/// Changes of state remembered.
const REMEMBERED: usize = 16;

#[derive(Debug)]
enum Phase {
    Closed,
    /// `was_ordered`: for a time that somebody named.
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
    settings: Settings,
    phase: Phase,
    since: Instant,
    /// Counts up with each change of state, from 1.
    generation: u64,
    /// The oldest generation whose calls count.
    counted_since: u64,
    window: Window,
    /// `None` if nobody wants to know.
    latencies: Option<Latencies>,
    /// Failures since the last success, and when they began.
    streak: Streak,
    /// Until then nothing opens a closed circuit.
    warm_up: Option<Deadline>,
    /// In a row, without a close between.
    openings: u32,
    /// What last opened the circuit was that the server was not reached. A probe that hangs shows nothing new.
    unreachable: bool,
    /// How much of the jitter there is to the reset timeout, from 0 to 1; drawn anew when a result opens the circuit.
    random01: f64,
    /// Oldest first.
    history: VecDeque<Transition>,
    /// Nobody has been told yet.
    changes: Vec<Transition>,
}

impl Breaker {
    /// Closed. `random01` is random, from 0 to 1.
    pub(crate) fn new(now: Instant, settings: Settings, random01: f64) -> Self {
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

    /// Whether a call would be admitted. Takes nothing; a rejection is counted.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), Denied> {
        self.advance(now);
        let denied = self.denied(now);
        denied.map_or(Ok(()), |denied| Err(self.reject(now, denied)))
    }

    /// Lets a call through, perhaps as a probe; or not, which is counted.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Ticket, Denied> {
        self.advance(now);
        if let Some(denied) = self.denied(now) {
            return Err(self.reject(now, denied));
        }
        self.fire(now);
        let probe_timeout = self.settings.probe_timeout;
        let is_probe = match &mut self.phase {
            Phase::HalfOpen(probes) => probes.let_out(now, probe_timeout),
            _ => false,
        };
        Ok(Ticket { is_probe, ..self.ticket() })
    }

    /// A call that was admitted ends at `limit` by itself. If it is a probe, the half-open state waits for that, and for it to say how it went.
    pub(crate) fn ends_at(&mut self, ticket: Ticket, limit: Deadline) {
        if let Phase::HalfOpen(probes) = &mut self.phase {
            if ticket.is_probe && ticket.generation == self.generation {
                probes.extend(Deadline::after(limit.instant(), TO_SAY_SO));
            }
        }
    }

    /// The ticket of calls that need not ask: they all pass and admitting them would change nothing.
    pub(crate) fn free_pass(&self) -> Option<Ticket> {
        let is_free = match self.phase {
            Phase::Disabled => true,
            Phase::Closed | Phase::MetricsOnly => !self.settings.is_opossum(),
            _ => false,
        };
        is_free.then(|| self.ticket())
    }

    /// Of a call that is no probe.
    fn ticket(&self) -> Ticket {
        if matches!(self.phase, Phase::Disabled) { Ticket::uncounted() } else { Ticket::free(self.generation) }
    }

    /// The generation whose successes need no judgement, and until when, if that has an end: they can only lower the rates. They may be counted elsewhere, and brought by
    /// [`count_successes`](Self::count_successes) before anything else is done here.
    pub(crate) fn calm(&self) -> Option<(u64, Option<Instant>)> {
        let seen = self.window.last_sum();
        let is_calm = matches!(self.phase, Phase::Closed) && !self.settings.is_opossum() && self.settings.is_calm(seen);
        is_calm.then(|| (self.generation, self.window.ends()))
    }

    pub(crate) fn is_generation(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// Successes that needed no judgement, since the last call of anything here.
    pub(crate) fn count_successes(&mut self, completed: u64) {
        if completed > 0 {
            self.streak = Streak::default();
        }
        self.window.add_to_current(Counts { completed, ..Counts::default() });
    }

    /// A ticket that is no probe, while the circuit is closed.
    pub(crate) fn closed_ticket(&self) -> Option<Ticket> {
        matches!(self.phase, Phase::Closed).then_some(Ticket::free(self.generation))
    }

    /// A call ended after `took`. `random01` is random, from 0 to 1, and asked only when the circuit opens.
    pub(crate) fn record(
        &mut self,
        now: Instant,
        ticket: Ticket,
        outcome: Outcome,
        took: Duration,
        random01: impl FnOnce() -> f64,
    ) {
        self.advance(now);
        if !(self.counted_since..=self.generation).contains(&ticket.generation) {
            return;
        }
        let Some(counts) = self.count(outcome, took) else { return self.release(now, ticket) };
        self.count_unless_off(now, counts);
        if let Some(latencies) = &mut self.latencies {
            latencies.add(now, took);
        }
        self.streak.count(now, counts);
        match &mut self.phase {
            Phase::Closed if counts.failures > 0 || !self.settings.is_opossum() => self.judge_window(now, random01),
            Phase::HalfOpen(probes) => {
                if ticket.generation == self.generation {
                    probes.take_back();
                }
                probes.count(counts);
                self.judge_probes(now, random01);
            }
            _ => {}
        }
    }

    /// A call ended without saying anything of the dependency.
    pub(crate) fn release(&mut self, now: Instant, ticket: Ticket) {
        self.advance(now);
        if ticket.generation == self.generation {
            if let Phase::HalfOpen(probes) = &mut self.phase {
                probes.take_back();
            }
        }
    }

    /// An admitted call was refused because too many are under way: to opossum that is a failure, to us it says nothing.
    pub(crate) fn refuse_busy(&mut self, now: Instant, ticket: Ticket, random01: impl FnOnce() -> f64) {
        self.advance(now);
        self.count_unless_off(now, Counts { busy: 1, ..Counts::default() });
        let outcome = if self.settings.is_opossum() { Outcome::Failure } else { Outcome::Ignored };
        self.record(now, ticket, outcome, Duration::ZERO, random01);
    }

    /// The server answers. If the circuit opened because it did not, that is a reason to probe now.
    pub(crate) fn server_answers(&mut self, now: Instant) {
        self.advance(now);
        if self.unreachable && matches!(self.phase, Phase::Open { .. }) {
            self.half_open(now, Cause::ServerAnswers);
        }
    }

    /// The server takes much longer than usual to answer. That opens nothing; but once the circuit is open, the server's next answer is a reason to probe.
    pub(crate) fn server_is_late(&mut self, now: Instant) {
        self.advance(now);
        self.unreachable |= matches!(self.phase, Phase::Open { .. });
    }

    /// The server was not reached, or did not answer, and no call will tell. Closed, that is one more failure in a row; half-open, it is the verdict; open, the
    /// server's next answer is a reason to probe. `random01` as for [`record`](Self::record).
    pub(crate) fn server_is_silent(&mut self, now: Instant, random01: impl FnOnce() -> f64) {
        self.advance(now);
        match &self.phase {
            Phase::HalfOpen(probes) => {
                let seen = probes.seen();
                self.open(now, Cause::ServerSilent, seen);
            }
            Phase::Closed if !self.settings.is_opossum() => {
                self.streak.silence(now);
                self.judge_window(now, random01);
            }
            _ => {}
        }
        self.unreachable |= matches!(self.phase, Phase::Open { .. });
    }

    /// A health check failed: opens the circuit, whatever the calls say.
    pub(crate) fn health_check_failed(&mut self, now: Instant) {
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

    /// The state as it was told last.
    pub(crate) fn last_state(&self) -> State {
        self.phase.state()
    }

    /// The changes of state that nobody has been told yet, oldest first.
    pub(crate) fn take_changes(&mut self) -> Vec<Transition> {
        mem::take(&mut self.changes)
    }

    /// When time alone will change the state.
    pub(crate) fn due(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Open { until, .. } => Some(*until),
            Phase::HalfOpen(probes) => probes.lease(),
            _ => None,
        }
    }

    /// What time alone changes. Every question begins with it.
    fn advance(&mut self, now: Instant) {
        if let Phase::HalfOpen(probes) = &self.phase {
            if let Some(timed_out) = probes.timed_out(now) {
                let seen = probes.seen();
                self.open(timed_out, Cause::ProbeTimeout, seen);
            }
        }
        if matches!(self.phase, Phase::Open { until, .. } if until.has_passed(now)) {
            self.half_open(now, Cause::ResetTimeout);
        }
    }

    fn denied(&self, now: Instant) -> Option<Denied> {
        let retry_after = match &self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly => return None,
            Phase::HalfOpen(probes) if probes.has_room() => return None,
            Phase::HalfOpen(probes) => probes.retry_after(now),
            Phase::Open { until, .. } => until.left(now),
            // Nobody knows. Asking again that often does no harm.
            Phase::ForcedOpen | Phase::ShutDown => self.settings.reset_timeout,
        };
        let may_end_early = self.unreachable && matches!(self.phase, Phase::Open { .. });
        Some(Denied { state: self.phase.state(), retry_after, may_end_early })
    }

    fn reject(&mut self, now: Instant, denied: Denied) -> Denied {
        self.fire(now);
        self.count_unless_off(now, Counts { rejected: 1, ..Counts::default() });
        denied
    }

    /// opossum counts who asks, before anything else.
    fn fire(&mut self, now: Instant) {
        if self.settings.is_opossum() {
            self.count_unless_off(now, Counts { fires: 1, ..Counts::default() });
        }
    }

    fn count_unless_off(&mut self, now: Instant, counts: Counts) {
        if !matches!(self.phase, Phase::Disabled | Phase::ShutDown) {
            self.window.add(now, counts);
        }
    }

    /// One call. `None`: it does not count.
    fn count(&self, outcome: Outcome, took: Duration) -> Option<Counts> {
        let failures = u64::from(outcome != Outcome::Success);
        let unreachable = u64::from(outcome == Outcome::Unreachable);
        let slow = u64::from(self.settings.is_slow(took));
        let counts = Counts { completed: 1, failures, unreachable, slow, ..Counts::default() };
        (outcome != Outcome::Ignored).then_some(counts)
    }

    fn judge_window(&mut self, now: Instant, random01: impl FnOnce() -> f64) {
        let seen = *self.window.sum(now);
        let Some(cause) = self.settings.tripped(&seen).or_else(|| self.settings.blackout(now, &self.streak)) else {
            return;
        };
        if self.warm_up.is_none_or(|warm_up| warm_up.has_passed(now)) {
            self.unreachable = cause != Cause::SlowRate && seen.mostly_unreachable();
            self.random01 = random01();
            self.open(now, cause, seen);
        }
    }

    fn judge_probes(&mut self, now: Instant, random01: impl FnOnce() -> f64) {
        let Phase::HalfOpen(probes) = &self.phase else { return };
        let seen = probes.seen();
        match self.settings.verdict(&seen) {
            Some(Cause::ProbesPassed) => self.close(now, seen),
            Some(cause) => {
                self.unreachable = seen.mostly_unreachable();
                self.random01 = random01();
                self.open(now, cause, seen);
            }
            None => {}
        }
    }

    fn open(&mut self, at: Instant, cause: Cause, seen: Counts) {
        self.openings = self.openings.saturating_add(1);
        let until = Deadline::after(at, self.settings.open_for(self.openings, self.random01));
        self.change(at, Phase::Open { until, was_ordered: false }, cause, seen);
    }

    fn half_open(&mut self, now: Instant, cause: Cause) {
        let seen = *self.window.sum(now);
        self.change(now, Phase::HalfOpen(Probes::new(self.settings.permitted_probes)), cause, seen);
    }

    fn close(&mut self, now: Instant, seen: Counts) {
        self.forget();
        self.change(now, Phase::Closed, Cause::ProbesPassed, seen);
    }

    /// To begin anew. As opossum, only time forgets what was seen.
    fn forget(&mut self) {
        self.openings = 0;
        if !self.settings.is_opossum() {
            self.window.clear();
        }
    }

    /// Calls under way belong to the past, even if the state is the same again; but then there is nothing to tell. Not as opossum, which counts
    /// them whenever they end.
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
