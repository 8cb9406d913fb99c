//! The right to make one call.
//!
//! Taking and returning it is inlined into the caller's crate: that saves 5 ns of 40.

use std::time::{Duration, Instant};

use super::shared::Shared;
use super::{Verdict, now};
use crate::policy::{Outcome, Ticket};

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

    /// The breaker is disabled.
    pub(super) fn is_uncounted(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_uncounted)
    }

    /// The call went well.
    #[inline]
    pub fn success(self) {
        self.end(Outcome::Success);
    }

    /// The dependency failed.
    pub fn failure(self) {
        self.end(Outcome::Failure);
    }

    /// What the call says of the dependency.
    pub fn record(self, verdict: Verdict) {
        match verdict {
            Verdict::Success => self.success(),
            Verdict::Failure => self.failure(),
            Verdict::Ignore => self.ignore(),
        }
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
    fn end(mut self, outcome: Outcome) {
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
