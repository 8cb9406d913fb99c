//! How a call under way ends: answered, failed or abandoned.
//!
//! Each end is recorded in the metrics and in the call's span. If it says something about the server, the circuit
//! breaker records it, too.

use std::sync::Arc;
use std::time::Duration;

use super::in_flight::InFlightCall;
use crate::clock::now;
use crate::conn::ConnectionEvent;
use crate::error::{BusyReason, Error, Lost, driver};
use crate::policy::{CountsAs, Effect, StatementPhase};
use crate::telemetry::Fault;

impl InFlightCall {
    /// The time of the call was up before anything was sent.
    pub(in crate::conn) fn not_begun(mut self) -> Error {
        self.is_answered = true;
        let (operation, process_id) = (self.options.operation, self.link.process_id());
        let after = Duration::ZERO;
        self.failed(after, Error::QueryTimeout { operation, after, process_id, effect: Effect::NotApplied })
    }

    /// The call cannot begin, because others are under way on the connection. Nothing was sent.
    pub(super) fn not_alone(mut self) -> Error {
        self.is_answered = true;
        let (reason, process_id) = (BusyReason::InUse, self.link.process_id());
        self.failed(Duration::ZERO, Error::Busy { reason, waited: Duration::ZERO, process_id })
    }

    /// The call has its answer.
    pub(in crate::conn) fn answered(mut self) {
        let took = self.record_answer();
        self.measure(took, None);
    }

    /// The server has confirmed the work, but its answer is not complete: the connection was lost, or the time is up.
    /// So the call is abandoned, but it is no failure.
    pub(in crate::conn) fn answered_in_part(mut self) {
        let took = self.record_answer();
        self.is_answered = false;
        self.measure(took, None);
    }

    /// The call has its answer, which means `error`.
    pub(in crate::conn) fn answered_with(mut self, error: Error) -> Error {
        let took = self.record_answer();
        self.failed(took, error)
    }

    fn record_answer(&mut self) -> Duration {
        self.is_answered = true;
        let now = now();
        let took = now.saturating_duration_since(self.begun);
        self.link.record(|recorder, ticket| recorder.answered(now, ticket, took));
        took
    }

    /// The reader wants no more of the answer. That is no failure, but the statement has to be stopped.
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

    /// The call failed with `error`, which is returned.
    fn failed(&self, took: Duration, error: Error) -> Error {
        let fault = Fault::from(&error);
        self.measure(took, Some(fault));
        self.link.calls.on_failure(fault, error.is_unavailable());
        self.span.with(error)
    }

    /// The driver has returned an error. Waits for the reason if the connection was lost.
    pub(in crate::conn) async fn explain(self, error: tokio_postgres::Error) -> Error {
        let phase = self.phase();
        self.explain_in(phase, error).await
    }

    /// As [`explain`](Self::explain), for a COMMIT.
    pub(in crate::conn) async fn explain_commit(self, error: tokio_postgres::Error) -> Error {
        self.explain_in(StatementPhase::Commit, error).await
    }

    /// As [`explain`](Self::explain), but does not wait. Why a connection was lost may not be known yet.
    pub(in crate::conn) fn explain_now(self, error: tokio_postgres::Error) -> Error {
        let lost = if error.is_closed() { self.link.monitor.close_reason().cause() } else { None };
        let phase = self.phase();
        self.conclude(phase, error, lost)
    }

    async fn explain_in(self, phase: StatementPhase, error: tokio_postgres::Error) -> Error {
        let lost = if error.is_closed() { self.link.monitor.close_reason().last_cause().await } else { None };
        self.conclude(phase, error, lost)
    }

    pub(super) fn phase(&self) -> StatementPhase {
        if self.link.wire.is_committing() {
            StatementPhase::Commit
        } else if self.awaits_commit() {
            StatementPhase::Transaction
        } else if self.is_uncommitted || self.has_changed_nothing() {
            StatementPhase::Preparing
        } else {
            StatementPhase::Autocommit
        }
    }

    /// Returns whether nothing of the call is applied before the pool's own COMMIT. A transaction that was begun by
    /// hand may be committed by hand at any time.
    fn awaits_commit(&self) -> bool {
        self.before.was_open && self.options.is_transaction
    }

    pub(super) fn conclude(
        mut self,
        phase: StatementPhase,
        error: tokio_postgres::Error,
        lost: Option<Arc<Lost>>,
    ) -> Error {
        let link = &self.link;
        // After one row too many, only the driver gives up. The server continues.
        let is_an_end = error.as_db_error().is_some() || error.is_closed();
        self.is_answered = is_an_end || link.wire.unanswered() == 0;
        let was_written = link.wire.attempts() != self.before.attempts;
        let was_ended_by_us = link.wire.is_sealed();
        let mut phase = phase;
        let mut failure = driver::failure(&error, was_written, phase, lost.as_deref());
        if failure.is_read_only() && link.monitor.is_read_only() == Some(false) {
            // The server accepts writes. The caller began a read-only transaction.
            phase = StatementPhase::ReadOnlyTransaction;
            failure = driver::failure(&error, was_written, phase, lost.as_deref());
        } else if failure.is_read_only() {
            link.notify_maintenance(ConnectionEvent::WrongHost { dialed_as: link.monitor.dialed_as() });
        }
        if failure.ends_session() {
            link.wire.seal();
        }
        if failure.reprepare().is_some() {
            link.calls.set_outdated(true);
        }
        let now = now();
        let after = now.saturating_duration_since(self.begun);
        // The server reports its timeout and an administrator's cancel with the same code. Only the messages differ,
        // and they may be in any language.
        let is_our_timeout = failure.is_cancel() && link.statement_timeout.is_reached(after);
        let counts_as = if is_our_timeout { CountsAs::Failure } else { failure.counts_as() };
        let counts_as = (counts_as, failure.is_unreachable());
        let error = if is_our_timeout {
            let (process_id, effect) = (link.process_id(), failure.effect());
            Error::QueryTimeout { operation: self.options.operation, after, process_id, effect }
        } else {
            Error::of_statement(error, was_written, phase, lost)
        };
        // Another call on this connection may have committed. Then the effect of this call is reported as unknown, too.
        let error = if link.wire.commits() == self.before.commits { error } else { error.after_a_commit() };
        if !was_ended_by_us {
            link.record(|recorder, ticket| recorder.failed(now, ticket, counts_as, &error, after));
        }
        link.calls.set_retry(error.retry());
        self.failed(after, error)
    }

    /// As [`timed_out`](Self::timed_out), for a COMMIT.
    pub(in crate::conn) fn commit_timed_out(self) -> Error {
        let (now, error) = (now(), Error::CommitUnknown { source: None, lost: None });
        let took = now.saturating_duration_since(self.begun);
        self.link.record(|recorder, ticket| recorder.timed_out(now, ticket, &self.options, &error, took));
        self.failed(took, error)
    }

    /// The call is abandoned because the server did not answer in time. If the connection has a stream whose reader has
    /// stopped, the server could not answer.
    pub(in crate::conn) fn timed_out(self) -> Error {
        if self.link.watcher.has_unread() {
            return self.caller_timed_out();
        }
        let (now, error) = (now(), self.timeout_error());
        let took = now.saturating_duration_since(self.begun);
        self.link.record(|recorder, ticket| recorder.timed_out(now, ticket, &self.options, &error, took));
        self.abandon(error)
    }

    /// The call is abandoned at its deadline, because its caller did not read what the server sent, or did not send
    /// what the server waits for. That says nothing about the server.
    pub(in crate::conn) fn caller_timed_out(self) -> Error {
        let error = self.timeout_error();
        self.abandon(error)
    }

    /// The call is abandoned because its reader has not polled for `idle`.
    pub(in crate::conn) fn reader_was_idle(self, idle: Duration) -> Error {
        let (operation, process_id) = (self.options.operation, self.link.process_id());
        let error = Error::StreamIdle { operation, idle, process_id, effect: self.effect_if_abandoned() };
        self.abandon(error)
    }

    fn timeout_error(&self) -> Error {
        let (operation, process_id) = (self.options.operation, self.link.process_id());
        let after = now().saturating_duration_since(self.begun);
        Error::QueryTimeout { operation, after, process_id, effect: self.effect_if_abandoned() }
    }

    fn effect_if_abandoned(&self) -> Effect {
        // The pool will send no COMMIT.
        if self.is_uncommitted || self.awaits_commit() { Effect::NotApplied } else { Effect::Unknown }
    }

    fn abandon(self, error: Error) -> Error {
        self.link.calls.on_timeout(error.retry());
        let took = now().saturating_duration_since(self.begun);
        self.failed(took, error)
    }
}
