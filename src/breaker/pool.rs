//! What the pool asks of its breaker: the same, by a clock that it has read already, and with tickets instead of permits.
//!
//! If the pool goes by somebody else's breaker, that one is asked and told too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::foreign::{Foreign, Machine};
use super::{BreakerConfig, CircuitBreaker};
use crate::error::ConfigError;
use crate::policy::{Deadline, Denied, Outcome, State, Ticket};

impl CircuitBreaker {
    /// A pool's. With a `machine`, that one decides; ours is disabled, and only says for how long it rejects.
    pub(crate) fn for_pool(config: BreakerConfig, machine: Option<Arc<dyn Machine>>) -> Result<Self, ConfigError> {
        config.check_for_pool()?;
        let retry_after = config.retry_after();
        let own = Self::new(config)?;
        let Some(machine) = machine else { return Ok(own) };
        own.disable("a failsafe state machine decides");
        Ok(Self { foreign: Some(Foreign::new(machine, retry_after)), ..own })
    }

    /// Returns a ticket without a lock while every call gets one. `None`: [`check`](Self::check) and [`admit`](Self::admit) decide.
    #[inline]
    pub(crate) fn free_pass(&self) -> Option<Ticket> {
        if self.foreign.is_none() { self.shared.pass() } else { None }
    }

    /// Whether a call would be admitted. Takes nothing; a rejection is counted. The clock is asked only if the circuit is not closed.
    pub(crate) fn check(&self, now: impl FnOnce() -> Instant) -> Result<(), Denied> {
        self.foreign.as_ref().map_or(Ok(()), Foreign::admit)?;
        if self.shared.pass().is_some() { Ok(()) } else { self.shared.check(now()) }
    }

    /// Lets a call through, perhaps as a probe; or not, which is counted. The clock is asked, and when the call ends by itself, only if the circuit is not
    /// closed.
    pub(crate) fn admit(
        &self,
        now: impl FnOnce() -> Instant,
        limit: impl FnOnce(Instant) -> Deadline,
    ) -> Result<Ticket, Denied> {
        self.foreign.as_ref().map_or(Ok(()), Foreign::admit)?;
        if let Some(ticket) = self.shared.pass() {
            return Ok(ticket);
        }
        let now = now();
        let ticket = self.shared.admit(now)?;
        self.shared.ends_at(ticket, || limit(now));
        Ok(ticket)
    }

    /// For what is no call and not to be a probe, a dial: a ticket if the circuit is closed.
    pub(crate) fn pass(&self) -> Option<Ticket> {
        self.shared.pass().or_else(|| self.shared.with(|breaker| breaker.closed_ticket()))
    }

    /// A call ended after `took`, which matters only if slow calls do.
    pub(crate) fn record(&self, now: Instant, ticket: Ticket, outcome: Outcome, took: Duration) {
        if let Some(foreign) = &self.foreign {
            foreign.record(outcome);
        }
        self.shared.record(now, ticket, outcome, took);
    }

    /// A dial ended. Somebody else's breaker is told only if it failed: any success closes one that is half-open, and a server that takes
    /// connections may still fail every call.
    pub(crate) fn record_dial(&self, now: Instant, ticket: Ticket, outcome: Outcome, took: Duration) {
        if outcome == Outcome::Success {
            self.shared.record(now, ticket, outcome, took);
        } else {
            self.record(now, ticket, outcome, took);
        }
    }

    /// A call ended without saying anything of the database.
    pub(crate) fn release(&self, now: Instant, ticket: Ticket) {
        self.shared.release(now, ticket);
    }

    /// The server answers a probe of the pool's own. If the circuit opened because it did not, calls may probe now.
    pub(crate) fn server_answers(&self, now: Instant) {
        self.shared.with(|breaker| breaker.server_answers(now));
    }

    /// The server takes much longer than usual to answer a probe of the pool's own.
    pub(crate) fn server_is_late(&self, now: Instant) {
        self.shared.with(|breaker| breaker.server_is_late(now));
    }

    /// The server was not reached, or did not answer a probe of the pool's own.
    pub(crate) fn server_is_silent(&self, now: Instant) {
        self.shared.with(|breaker| breaker.server_is_silent(now, fastrand::f64));
    }

    /// The state as everybody was told last: nothing changes by asking, and no hook is called.
    pub(crate) fn last_state(&self) -> State {
        self.shared.last_state()
    }
}
