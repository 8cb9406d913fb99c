//! A circuit breaker of another crate in the place of ours: it decides who is let through, and is told how calls went.
//!
//! Behind a trait, so that nothing else knows whose it is. Ours stands beside it, disabled: what is ordered by hand still holds, because both
//! are asked and both are told.
//!
//! Such a breaker says nothing by itself. So callers who wait when it opens go on waiting, and are turned away one by one when they get
//! their connection; nobody looks after the server meanwhile; and when to come back is a guess.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Denied, Outcome, State};

/// What a pool asks of somebody else's breaker, and tells it.
pub(crate) trait Machine: fmt::Debug + Send + Sync {
    fn permits(&self) -> bool;
    fn succeeded(&self);
    fn failed(&self);
}

#[cfg(any(feature = "failsafe", test))]
impl<P, I> Machine for failsafe::StateMachine<P, I>
where
    P: failsafe::FailurePolicy + Send,
    I: failsafe::Instrument + Send + Sync,
{
    fn permits(&self) -> bool {
        self.is_call_permitted()
    }

    fn succeeded(&self) {
        self.on_success();
    }

    fn failed(&self) {
        self.on_error();
    }
}

/// Somebody else's breaker, at work.
#[derive(Debug, Clone)]
pub(super) struct Foreign {
    machine: Arc<dyn Machine>,
    /// What those are told whom it rejects: it does not say.
    retry_after: Duration,
}

impl Foreign {
    pub(super) fn new(machine: Arc<dyn Machine>, retry_after: Duration) -> Self {
        Self { machine, retry_after }
    }

    pub(super) fn admit(&self) -> Result<(), Denied> {
        let denied = Denied { state: State::Open, retry_after: self.retry_after, may_end_early: false };
        if self.machine.permits() { Ok(()) } else { Err(denied) }
    }

    pub(super) fn record(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.machine.succeeded(),
            Outcome::Failure | Outcome::Unreachable => self.machine.failed(),
            Outcome::Ignored => {}
        }
    }
}

#[cfg(test)]
mod tests;
