//! What the pool asks of its breaker: the same, by a clock that it has read already, and with tickets instead of permits.

use std::time::{Duration, Instant};

use super::CircuitBreaker;
use crate::policy::{Denied, Outcome, Ticket};

impl CircuitBreaker {
    /// Whether a call would be admitted. Takes nothing; a rejection is counted.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Denied> {
        self.shared.check(now)
    }

    /// Lets a call through, perhaps as a probe; or not, which is counted.
    pub(crate) fn admit(&self, now: Instant) -> Result<Ticket, Denied> {
        self.shared.admit(now)
    }

    /// A call ended after `took`, which matters only if slow calls do.
    pub(crate) fn record(&self, now: Instant, ticket: Ticket, outcome: Outcome, took: Duration) {
        self.shared.record(now, ticket, outcome, took);
    }

    /// A call ended without saying anything of the database.
    pub(crate) fn release(&self, now: Instant, ticket: Ticket) {
        self.shared.release(|| now, ticket);
    }

    /// The server answers a probe of the pool's own. If the circuit opened because it did not, calls may probe now.
    pub(crate) fn server_answers(&self, now: Instant) {
        self.shared.with(|breaker| breaker.server_answers(now));
    }
}
