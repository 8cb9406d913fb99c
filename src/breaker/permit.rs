//! The right to make one call.
//!
//! Taking and returning it is inlined into the caller's crate: that saves 5 ns of 40.

use std::time::{Duration, Instant};

use super::now;
use super::shared::Shared;
use crate::policy::{Deadline, Outcome, Ticket};

/// The right to make one call, from [`CircuitBreaker::try_acquire`](super::CircuitBreaker::try_acquire). Say how it went.
///
/// Dropping it says nothing, as [`ignore`](Self::ignore): if it was a probe, another one is let out.
#[derive(Debug)]
#[must_use = "dropping a permit records nothing"]
pub struct Permit<'a> {
    shared: &'a Shared,
    /// `None` once it has been said how the call went.
    ticket: Option<Ticket>,
    /// `None` if nobody wants to know.
    since: Option<Instant>,
}

impl<'a> Permit<'a> {
    #[inline]
    pub(super) fn new(shared: &'a Shared, ticket: Ticket) -> Self {
        Self { shared, ticket: Some(ticket), since: shared.measures().then(now) }
    }

    /// The call ends after this time by itself.
    pub(super) fn ends_after(&self, timeout: Duration) {
        if let Some(ticket) = self.ticket {
            self.shared.ends_at(ticket, || Deadline::after(now(), timeout));
        }
    }

    /// The call went well.
    #[inline]
    pub fn success(self) {
        self.record(Outcome::Success);
    }

    /// The dependency failed.
    pub fn failure(self) {
        self.record(Outcome::Failure);
    }

    /// The call says nothing of the dependency: it was given up, or refused elsewhere.
    pub fn ignore(self) {
        drop(self);
    }

    /// The call was refused: as many are under way as there may be.
    pub(super) fn busy(mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = now();
            self.shared.with(|breaker| breaker.refuse_busy(now, ticket, fastrand::f64));
        }
    }

    #[inline]
    fn record(mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            let now = now();
            let took = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            self.shared.record(now, ticket, outcome, took);
        }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.release(now, ticket);
        }
    }
}
