//! The breaker of a pool. The pool passes the time that it has read already, and holds tickets instead of permits.
//!
//! An owner may give the pool a breaker of another crate (a [`Machine`]). Then the machine decides and gets every
//! result. Our own breaker is disabled, but an owner's orders still hold, because the pool asks both. The machine sends
//! no notice when it opens: callers go on waiting, and are refused when they get their connection. The pool does not
//! check the server meanwhile, and `retry_after` is only an estimate.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{BreakerConfig, CircuitBreaker};
use crate::error::ConfigError;
use crate::policy::{Deadline, Denied, ResultKind, State, Ticket};

/// A breaker of another crate.
pub(crate) trait Machine: fmt::Debug + Send + Sync {
    fn permits(&self) -> bool;
    fn record_success(&self);
    fn record_failure(&self);
}

#[derive(Debug)]
pub(crate) struct PoolBreaker {
    own: CircuitBreaker,
    machine: Option<Arc<dyn Machine>>,
    /// The `retry_after` of a caller that the machine rejects. The machine does not say when it permits calls again.
    retry_after: Duration,
}

impl PoolBreaker {
    /// Returns the breaker of a pool. A `machine`, if there is one, decides.
    pub(crate) fn new(config: BreakerConfig, machine: Option<Arc<dyn Machine>>) -> Result<Self, ConfigError> {
        config.check_for_pool()?;
        let retry_after = config.retry_after();
        let own = CircuitBreaker::new(config)?;
        if machine.is_some() {
            own.disable("a failsafe state machine decides");
        }
        Ok(Self { own, machine, retry_after })
    }

    /// Returns the breaker that the pool's owner sees.
    pub(crate) fn own(&self) -> &CircuitBreaker {
        &self.own
    }

    /// Returns a ticket without a lock while every call gets one. `None`: [`check`](Self::check) and
    /// [`admit`](Self::admit) decide.
    #[inline]
    pub(crate) fn free_pass(&self) -> Option<Ticket> {
        if self.machine.is_none() { self.own.shared.pass() } else { None }
    }

    /// Checks whether a call would be admitted, without admitting it. Counts a rejection. Reads the clock only if the
    /// circuit is not closed.
    pub(crate) fn check(&self, now: impl FnOnce() -> Instant) -> Result<(), Denied> {
        self.ask_machine()?;
        if self.own.shared.pass().is_some() { Ok(()) } else { self.own.shared.check(now()) }
    }

    /// Admits a call, perhaps as a probe. Counts a rejection. Reads the clock, and when the call will end by itself,
    /// only if the circuit is not closed.
    pub(crate) fn admit(
        &self,
        now: impl FnOnce() -> Instant,
        limit: impl FnOnce(Instant) -> Deadline,
    ) -> Result<Ticket, Denied> {
        self.ask_machine()?;
        if let Some(ticket) = self.own.shared.pass() {
            return Ok(ticket);
        }
        let now = now();
        let ticket = self.own.shared.admit(now)?;
        self.own.shared.limit_call(ticket, || limit(now));
        Ok(ticket)
    }

    /// Returns a ticket for a dial, if the circuit is closed. A dial is no call and never a probe.
    pub(crate) fn ticket_for_dial(&self) -> Option<Ticket> {
        self.own.shared.pass().or_else(|| self.own.shared.with(|breaker| breaker.closed_ticket()))
    }

    /// Records a call that ended after `took`. The duration matters only if slow calls count.
    pub(crate) fn record(&self, now: Instant, ticket: Ticket, outcome: ResultKind, took: Duration) {
        if let Some(machine) = &self.machine {
            match outcome {
                ResultKind::Success => machine.record_success(),
                ResultKind::Failure | ResultKind::Unreachable => machine.record_failure(),
                ResultKind::Ignored => {}
            }
        }
        self.own.shared.record(now, ticket, outcome, took);
    }

    /// Records a dial. A machine gets only failed dials: any success closes a half-open machine, and a server that
    /// accepts connections may still fail every call.
    pub(crate) fn record_dial(&self, now: Instant, ticket: Ticket, outcome: ResultKind, took: Duration) {
        if outcome == ResultKind::Success {
            self.own.shared.record(now, ticket, outcome, took);
        } else {
            self.record(now, ticket, outcome, took);
        }
    }

    /// Takes back the ticket of a call that says nothing about the database.
    pub(crate) fn release(&self, now: Instant, ticket: Ticket) {
        self.own.shared.release(now, ticket);
    }

    /// The server has answered a check. If the circuit opened because it did not answer, calls may probe now.
    pub(crate) fn on_server_answer(&self, now: Instant) {
        self.own.shared.with(|breaker| breaker.on_server_answer(now));
    }

    /// The server takes much longer than usual to answer a check.
    pub(crate) fn on_server_late(&self, now: Instant) {
        self.own.shared.with(|breaker| breaker.on_server_late(now));
    }

    /// The server was not reached, or did not answer a check.
    pub(crate) fn on_server_silent(&self, now: Instant) {
        self.own.shared.with(|breaker| breaker.on_server_silent(now, fastrand::f64));
    }

    /// Returns the state as of the latest call or check. It changes nothing and runs no hook.
    pub(crate) fn last_state(&self) -> State {
        self.own.shared.last_state()
    }

    fn ask_machine(&self) -> Result<(), Denied> {
        if self.machine.as_ref().is_none_or(|machine| machine.permits()) {
            return Ok(());
        }
        Err(Denied { state: State::Open, retry_after: self.retry_after, may_end_early: false })
    }
}

#[cfg(test)]
mod tests;
