//! Pretended outcomes of statements and of COMMIT. Feature `testing`.
//!
//! They take the path of real ones from the moment at which the driver has answered, or the time is up: the same code
//! classifies them, and reports them to the circuit breaker, metrics and spans. So retries and fallbacks follow as
//! after a real one.

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::{self, Sleep};
use tokio_postgres::error::SqlState;

use super::calls::InFlightCall;
use super::client::Client;
use super::wire::TransactionStatus;
use crate::clock::now;
use crate::error::{AbortReason, Error};
use crate::pretend::{Moment, Outcome, ServerError, closed};
use crate::telemetry::Span;

/// A statement that no server understands. In a transaction, it makes the transaction fail.
const NOT_SQL: &str = "failfast pretends that this statement failed";

/// What a statement waits for before it begins.
pub(super) type Delay = Pin<Box<Sleep>>;

impl Client {
    fn meets(&self, moment: Moment) -> Option<Outcome> {
        self.conn().handling.pretences.meet(moment, self.options().operation)
    }

    /// Returns whether a stream that has begun comes to its end at once, because its reader pauses for too long.
    pub(super) fn pretends_idle_reader(&self) -> bool {
        self.meets(Moment::Stream).is_some()
    }

    /// Returns the pretended error that the next statement comes to, or the delay with which it begins.
    pub(super) async fn pretended(&self, span: Span) -> Result<(Span, Option<Delay>), Error> {
        match self.meets(Moment::Statement) {
            None => Ok((span, None)),
            Some(Outcome::Delay(delay)) => Ok((span, Some(Box::pin(time::sleep(delay))))),
            Some(outcome) => Err(Box::pin(self.instead(outcome, span)).await),
        }
    }

    /// Ends a call, of which nothing is sent, with this outcome.
    async fn instead(&self, outcome: Outcome, span: Span) -> Error {
        let limit = self.options().limit(now());
        if outcome == Outcome::Busy {
            return self.busy(limit.left(now()), span);
        }
        let call = match self.begin(limit, span).await {
            Ok(call) => call,
            Err(error) => return error,
        };
        match outcome {
            Outcome::Server(error) => self.answer_with(error, call).await,
            Outcome::ConnectionLost => {
                let error = call.pretend_written().lose(closed());
                self.conn().link.seal();
                error
            }
            _ => call.begun_earlier(limit.left(now())).timed_out(),
        }
    }

    async fn answer_with(&self, error: ServerError, call: InFlightCall) -> Error {
        let wire = Arc::clone(&self.conn().link.wire);
        if wire.status() != TransactionStatus::Idle {
            let _ = self.driver().batch_execute(NOT_SQL).await;
            wire.pretend_error(&SqlState::from_code(error.state()));
        }
        call.pretend_written().explain(error.to_driver()).await
    }

    /// Ends the transaction with the pretended outcome of its COMMIT, if there is one.
    pub(super) async fn pretended_commit(&self, call: InFlightCall) -> Result<InFlightCall, Error> {
        let Some(outcome) = self.meets(Moment::Commit) else { return Ok(call) };
        let is_committed = outcome == Outcome::CommitUnknown { committed: true };
        let ended = self.driver().batch_execute(if is_committed { "COMMIT" } else { "ROLLBACK" }).await;
        match (ended, outcome) {
            (Err(error), _) => Err(call.explain_commit(error).await),
            (Ok(()), Outcome::TransactionAborted) => {
                Err(call.answered_with(Error::TransactionAborted { reason: AbortReason::RolledBack }))
            }
            (Ok(()), _) => {
                let left = self.options().limit(now()).left(now());
                Err(call.begun_earlier(left).commit_timed_out())
            }
        }
    }
}
