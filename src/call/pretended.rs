//! Pretended refusals: a call comes to one of them instead of a connection. Feature `testing`.

use std::io;
use std::time::{Duration, Instant};

use super::{Shared, no_wait};
use crate::clock::now;
use crate::conn::CallOptions;
use crate::error::{ConnectError, Error};
use crate::policy::{Denied, ShedReason, State, WaitPolicy};
use crate::pretend::{Moment, Outcome};
use crate::slots::Refusal;

/// The `retry_after` of pretended refusals.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Shared {
    /// Returns the pretended refusal that the call meets, counted as a real one.
    pub(super) fn pretended_refusal(
        &self,
        options: &CallOptions,
        wait_policy: impl Fn(&Self, Instant) -> WaitPolicy,
    ) -> Result<(), Error> {
        let Some(outcome) = self.pretences.meet(Moment::Acquire, options.operation) else { return Ok(()) };
        let asked = now();
        let error = match outcome {
            Outcome::CircuitOpen => {
                let denied = Denied { state: State::Open, retry_after: RETRY_AFTER, may_end_early: false };
                self.circuit_open(Some(denied))
            }
            other => self.explain(refusal(&other), options.lane, asked, wait_policy(self, asked).deadline),
        };
        Err(self.failed(options, no_wait, error))
    }
}

fn refusal(outcome: &Outcome) -> Refusal<ConnectError> {
    match outcome {
        Outcome::Shed => Refusal::Shed(ShedReason::QueueFull, RETRY_AFTER),
        Outcome::AcquireTimeout => Refusal::TimedOut,
        Outcome::Connect => {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            Refusal::Unreachable(ConnectError::io("pretended-host:5432", refused), RETRY_AFTER)
        }
        _ => Refusal::Closed,
    }
}
