//! How a call under way ends: answered, failed, given up; and who is told.
//!
//! The circuit breaker hears of each end that says something of the server. The metrics and the span hear of each end.

use std::sync::Arc;
use std::time::Duration;

use super::in_flight::InFlightCall;
use crate::clock::now;
use crate::conn::ConnectionEvent;
use crate::error::{Error, Lost, driver};
use crate::policy::{Effect, Fate, StatementPhase, Verdict};
use crate::telemetry::Fault;

impl InFlightCall {
    /// The call's time was up before anything was sent.
    pub(in crate::conn) fn not_begun(mut self) -> Error {
        self.is_answered = true;
        let (operation, process_id) = (self.options.operation, self.link.process_id());
        let after = Duration::ZERO;
        self.failed(after, Error::QueryTimeout { operation, after, process_id, effect: Effect::NotApplied })
    }

    /// The call has its answer.
    pub(in crate::conn) fn answered(mut self) {
        let took = self.took_its_answer();
        self.measure(took, None);
    }

    /// The server has said that it did what it was asked to, and nothing after that: the connection was lost, or the time is up.
    pub(in crate::conn) fn answered_in_part(mut self) {
        let took = self.took_its_answer();
        self.is_answered = false;
        self.measure(took, None);
    }

    /// The call has its answer, which means this error.
    pub(in crate::conn) fn answered_with(mut self, error: Error) -> Error {
        let took = self.took_its_answer();
        self.failed(took, error)
    }

    fn took_its_answer(&mut self) -> Duration {
        self.is_answered = true;
        let now = now();
        let took = now.saturating_duration_since(self.begun);
        self.link.tell(|recorder, ticket| recorder.answered(now, ticket, took));
        took
    }

    /// Its reader wants no more of it: no failure, but the statement has to be stopped.
    pub(in crate::conn) fn dropped(self) {
        self.measure(now().saturating_duration_since(self.begun), None);
    }

    fn measure(&self, took: Duration, fault: Option<Fault>) {
        let meter = &self.link.meter;
        match self.whole {
            Some(begun) => meter.operated_since(begun, self.options.operation, fault),
            None if !self.options.is_part => meter.operated(self.options.operation, took, fault),
            None => {}
        }
    }

    /// It failed with this error, which is passed on.
    fn failed(&self, took: Duration, error: Error) -> Error {
        let fault = Fault::from(&error);
        self.measure(took, Some(fault));
        self.link.calls.set_fault(fault);
        self.span.with(error)
    }

    /// The call has its answer, and that is an error.
    pub(in crate::conn) async fn explain(self, error: tokio_postgres::Error) -> Error {
        let phase = self.phase();
        self.explain_in(phase, error).await
    }

    /// As [`explain`](Self::explain), for a COMMIT.
    pub(in crate::conn) async fn explain_commit(self, error: tokio_postgres::Error) -> Error {
        self.explain_in(StatementPhase::Commit, error).await
    }

    /// As [`explain`](Self::explain), where one cannot wait: why a connection was lost may not be known yet.
    pub(in crate::conn) fn explain_now(self, error: tokio_postgres::Error) -> Error {
        let lost = if error.is_closed() { self.link.monitor.close_reason().cause() } else { None };
        let phase = self.phase();
        self.conclude(phase, error, lost)
    }

    async fn explain_in(self, phase: StatementPhase, error: tokio_postgres::Error) -> Error {
        let lost = if error.is_closed() { self.link.monitor.close_reason().last_cause().await } else { None };
        self.conclude(phase, error, lost)
    }

    fn phase(&self) -> StatementPhase {
        if self.link.wire.is_committing() {
            StatementPhase::Commit
        } else if self.is_contained() {
            StatementPhase::Transaction
        } else if self.has_changed_nothing() {
            StatementPhase::Preparing
        } else {
            StatementPhase::Autocommit
        }
    }

    /// Whether nothing of it is applied until a COMMIT that is ours. One begun by hand may be committed by hand, come what may.
    fn is_contained(&self) -> bool {
        self.before.was_open && self.options.is_transaction
    }

    fn conclude(mut self, phase: StatementPhase, error: tokio_postgres::Error, lost: Option<Arc<Lost>>) -> Error {
        let link = &self.link;
        // At one row too many the driver itself gives up, and the server goes on.
        let is_an_end = error.as_db_error().is_some() || error.is_closed();
        self.is_answered = is_an_end || link.wire.unanswered() == 0;
        let was_written = link.wire.attempts() != self.before.attempts;
        let was_ended_by_us = link.wire.is_sealed();
        let mut phase = phase;
        let mut failure = driver::failure(&error, was_written, phase, lost.as_deref());
        if failure.is_read_only() && link.monitor.is_read_only() == Some(false) {
            // The server takes writes: it was the caller who wanted a transaction without any.
            phase = StatementPhase::ReadOnlyTransaction;
            failure = driver::failure(&error, was_written, phase, lost.as_deref());
        } else if failure.is_read_only() {
            link.notify_maintenance(ConnectionEvent::WrongHost { dialed_as: link.monitor.dialed_as() });
        }
        if failure.fate() == Fate::Discard {
            link.wire.seal();
        }
        if failure.reprepare().is_some() {
            link.calls.set_outdated(true);
        }
        let now = now();
        let after = now.saturating_duration_since(self.begun);
        // A timeout and an administrator's cancel read alike in all but the message, which may be in any language.
        let is_our_timeout = failure.is_cancel() && link.statement_timeout.is_reached(after);
        let verdict = if is_our_timeout { Verdict::Failure } else { failure.verdict() };
        let verdict = (verdict, failure.is_unreachable());
        let error = if is_our_timeout {
            let (process_id, effect) = (link.process_id(), failure.effect());
            Error::QueryTimeout { operation: self.options.operation, after, process_id, effect }
        } else {
            Error::of_statement(error, was_written, phase, lost)
        };
        // Another call on this connection may have done it: then this one is on the safe side.
        let error = if link.wire.commits() == self.before.commits { error } else { error.after_a_commit() };
        if !was_ended_by_us {
            link.tell(|recorder, ticket| recorder.failed(now, ticket, verdict, &error, after));
        }
        link.calls.set_retry(error.retry());
        self.failed(after, error)
    }

    /// As [`timed_out`](Self::timed_out), for a COMMIT.
    pub(in crate::conn) fn commit_timed_out(self) -> Error {
        let (now, error) = (now(), Error::CommitUnknown { source: None, lost: None });
        let took = now.saturating_duration_since(self.begun);
        self.link.tell(|recorder, ticket| recorder.timed_out(now, ticket, &self.options, &error, took));
        self.failed(took, error)
    }

    /// The call is given up, because the server did not answer in time; or could not, because the reader of a stream on the connection has stopped.
    pub(in crate::conn) fn timed_out(self) -> Error {
        if self.link.watcher.has_unread() {
            return self.not_in_time();
        }
        let (now, error) = (now(), self.late());
        let took = now.saturating_duration_since(self.begun);
        self.link.tell(|recorder, ticket| recorder.timed_out(now, ticket, &self.options, &error, took));
        self.given_up(error)
    }

    /// The call is given up at its deadline, because its caller did not read what the server sent, or did not send what the server waits for. That says
    /// nothing of the server.
    pub(in crate::conn) fn not_in_time(self) -> Error {
        let error = self.late();
        self.given_up(error)
    }

    /// The call is given up because its reader has not come for so long.
    pub(in crate::conn) fn not_read_for(self, idle: Duration) -> Error {
        let (operation, process_id) = (self.options.operation, self.link.process_id());
        let error = Error::StreamIdle { operation, idle, process_id, effect: self.effect_if_given_up() };
        self.given_up(error)
    }

    fn late(&self) -> Error {
        let (operation, process_id) = (self.options.operation, self.link.process_id());
        let after = now().saturating_duration_since(self.begun);
        Error::QueryTimeout { operation, after, process_id, effect: self.effect_if_given_up() }
    }

    fn effect_if_given_up(&self) -> Effect {
        // In a transaction of the pool's there will be no COMMIT.
        if self.is_contained() { Effect::NotApplied } else { Effect::Unknown }
    }

    fn given_up(self, error: Error) -> Error {
        self.link.calls.on_timeout(error.retry());
        let took = now().saturating_duration_since(self.begun);
        self.failed(took, error)
    }
}
