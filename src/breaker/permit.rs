//! The right to make one call.
//!
//! Taking and returning it is inlined into the caller's crate: that saves 5 ns of 40.

use std::time::{Duration, Instant};

use super::hooks::CallOutcome;
use super::shared::Shared;
use super::verdict::Verdict;
use crate::clock::now;
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
        self.record(Verdict::Success);
    }

    /// The dependency failed.
    pub fn failure(self) {
        self.record(Verdict::Failure);
    }

    /// The call says nothing of the dependency: it was given up, or refused elsewhere.
    pub fn ignore(self) {
        drop(self);
    }

    /// What the call says of the dependency.
    #[inline]
    pub fn record(mut self, verdict: Verdict) {
        self.end(verdict.into(), verdict.into());
    }

    /// The call ran out of time.
    pub(super) fn timed_out(mut self, verdict: Verdict) {
        self.end(verdict.into(), CallOutcome::Timeout);
    }

    /// The call was refused: as many are under way as there may be.
    pub(super) fn busy(mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = now();
            self.shared.with(|breaker| breaker.refuse_busy(now, ticket, fastrand::f64));
            self.shared.tell_call(CallOutcome::Busy, Duration::ZERO);
        }
    }

    /// Records once how the call went.
    #[inline]
    fn end(&mut self, outcome: Outcome, told: CallOutcome) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = now();
        let took = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if outcome == Outcome::Ignored {
            self.shared.release(now, ticket);
        } else {
            self.shared.record(now, ticket, outcome, took);
        }
        if !ticket.is_uncounted() {
            self.shared.tell_call(told, took);
        }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Ignored, CallOutcome::Ignored);
    }
}
