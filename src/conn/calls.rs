//! The calls on one connection: how many are under way, and whether one was given up.
//!
//! A call that ends without its answer (a timeout, a dropped future, a stream read by half) leaves a statement behind that may still be
//! running. From then on no call begins on this connection until it is known to be quiet; and it is stopped on the server as soon as no
//! other call could be hit by that.

pub(super) mod copy;
pub(super) mod queries;
mod reading;
pub(super) mod rows;
pub(super) mod statements;
mod timer;
pub(super) mod unhurried;
pub(super) mod watcher;

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time;

use self::queries::{Terms, now};
use self::timer::Spare;
use super::link::Link;
use super::news::News;
use super::wire::TransactionStatus;
use crate::error::{Error, Lost, driver};
use crate::policy::{Deadline, Effect, Fate, Phase, Retry, Verdict};
use crate::telemetry::{Fault, Span};

#[derive(Default)]
pub(super) struct Calls {
    state: Mutex<State>,
    stopped: Notify,
    timer: Spare,
}

#[derive(Default)]
struct State {
    under_way: usize,
    /// Since when any is.
    since: Option<Instant>,
    /// A call was given up since the connection was last known to be quiet.
    given_up: bool,
    /// The statements given up are being stopped, in the background.
    is_stopping: bool,
    /// A call has the connection to itself.
    is_exclusive: bool,
    /// A cancel was sent, and no statement has passed since: it might yet hit the next.
    may_hit: bool,
    /// A call given up may have begun a transaction.
    may_be_open: bool,
    timeouts: u64,
    begun: u64,
    /// A statement was found to be outdated or lost.
    was_outdated: bool,
    /// What the last failure said of another try of the whole call.
    retry: Retry,
    /// What it is called.
    fault: Fault,
}

impl State {
    fn may_begin(&self) -> bool {
        !self.is_stopping && !self.is_exclusive
    }
}

impl Calls {
    /// Whether no call is under way, and none was given up.
    pub(super) fn are_over(&self) -> bool {
        let state = self.lock();
        state.under_way == 0 && !state.given_up
    }

    /// Whether one was given up, since the connection was last known to be quiet.
    pub(super) fn were_given_up(&self) -> bool {
        self.lock().given_up
    }

    pub(super) fn are_under_way(&self) -> bool {
        self.lock().under_way > 0
    }

    /// Since when any call is under way.
    pub(super) fn running_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.since.filter(|_| state.under_way > 0)
    }

    /// Calls that timed out, since start-up.
    pub(super) fn timeouts(&self) -> u64 {
        self.lock().timeouts
    }

    /// Calls that were begun, since start-up.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    pub(super) fn were_outdated(&self) -> bool {
        self.lock().was_outdated
    }

    pub(super) fn set_outdated(&self, was_outdated: bool) {
        self.lock().was_outdated = was_outdated;
    }

    /// What the last failure since [`forget_failure`](Self::forget_failure) said of another try of the whole call.
    pub(super) fn retry(&self) -> Retry {
        self.lock().retry
    }

    /// What that failure is called; without one, as the caller's own.
    pub(super) fn fault(&self) -> Fault {
        self.lock().fault
    }

    pub(super) fn forget_failure(&self) {
        let mut state = self.lock();
        (state.retry, state.fault) = (Retry::Never, Fault::default());
    }

    pub(super) fn forget_fault(&self) {
        self.lock().fault = Fault::default();
    }

    /// The connection is quiet: nothing of the calls given up is left.
    pub(super) fn are_gone(&self) {
        self.lock().given_up = false;
    }

    /// A cancel is about to be sent.
    pub(super) fn may_hit(&self) {
        self.lock().may_hit = true;
    }

    /// Whether a cancel might hit the next statement.
    pub(super) fn may_be_hit(&self) -> bool {
        self.lock().may_hit
    }

    /// Whether a call given up may have begun a transaction.
    pub(super) fn may_be_open(&self) -> bool {
        self.lock().may_be_open
    }

    /// Nothing is left of the calls given up: no cancel that could hit another, no transaction.
    pub(super) fn have_passed(&self) {
        let mut state = self.lock();
        (state.may_hit, state.may_be_open) = (false, false);
    }

    /// Waits while calls given up are being stopped in the background, or one has the connection to itself.
    pub(super) async fn stopped(&self) {
        loop {
            let stopped = self.stopped.notified();
            if self.lock().may_begin() {
                return;
            }
            stopped.await;
        }
    }

    /// For the only call under way: no other begins until it [admits](Self::admit_others) them or is over. If it is given up, what it leaves is known
    /// by then. Tells whether it is the only one.
    pub(super) fn exclude_others(&self) -> bool {
        let mut state = self.lock();
        state.is_exclusive = state.under_way == 1;
        state.is_exclusive
    }

    pub(super) fn admit_others(&self) {
        self.lock().is_exclusive = false;
        self.stopped.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. Dropped without its answer, it is given up.
pub(crate) struct Flight {
    link: Arc<Link>,
    /// Writes attempted before it began.
    attempts: u64,
    /// Commits heard before it began.
    commits: u64,
    /// Rows and pieces of COPY data read before it began.
    items: u64,
    /// Which call of the connection it is; `None` if others were under way when it began.
    number: Option<u64>,
    begun: Instant,
    terms: Terms,
    /// Whether it began within a transaction.
    was_open: bool,
    is_answered: bool,
    /// Ends with it.
    span: Span,
}

impl Flight {
    /// Begins a call, unless something of the calls given up before may be left.
    pub(super) fn begin_at_once(link: &Arc<Link>, terms: Terms) -> Option<Self> {
        let mut state = link.calls.lock();
        if state.may_hit || state.may_be_open { None } else { Self::begin_in(&mut state, link, terms) }
    }

    fn begin_in(state: &mut State, link: &Arc<Link>, terms: Terms) -> Option<Self> {
        if state.given_up || !state.may_begin() {
            return None;
        }
        let begun = now();
        if state.under_way == 0 {
            state.since = Some(begun);
        }
        state.under_way += 1;
        state.begun += 1;
        let number = Some(state.begun).filter(|_| state.under_way == 1);
        link.set_used(true);
        let was_open = link.wire.status() != TransactionStatus::Idle;
        let wire = &link.wire;
        let (attempts, commits, items) = (wire.attempts(), wire.commits(), wire.items());
        let (link, span) = (Arc::clone(link), Span::default());
        Some(Self { link, attempts, commits, items, number, begun, terms, was_open, is_answered: false, span })
    }

    /// Begins a call once nothing of the calls given up before is under way. Not bounded. Something may be left: see
    /// [`clear_up`](super::settle::clear_up).
    pub(super) async fn begin(link: &Arc<Link>, terms: Terms) -> Self {
        loop {
            let begun = Self::begin_in(&mut link.calls.lock(), link, terms);
            if let Some(flight) = begun {
                return flight;
            }
            link.calls.stopped().await;
            // A connection that has ended is quiet, too: its driver says so to the call.
            link.pulse.quiet().await;
            link.calls.are_gone();
        }
    }

    /// It begins only now.
    pub(super) fn anew(mut self) -> Self {
        self.was_open = self.link.wire.status() != TransactionStatus::Idle;
        self.attempts = self.link.wire.attempts();
        self.commits = self.link.wire.commits();
        self.items = self.link.wire.items();
        self
    }

    /// What becomes of it is told to this span.
    pub(super) fn under(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// What `step` comes to, or `None` at the deadline.
    pub(super) async fn within<T>(&self, limit: Deadline, step: impl Future<Output = T>) -> Option<T> {
        self.link.calls.timer.within(limit.instant().into(), step).await
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether no other call has been under way on the connection since it began.
    pub(super) fn is_alone(&self) -> bool {
        self.number == Some(self.link.calls.begun())
    }

    /// The call's time was up before anything was sent.
    pub(super) fn not_begun(mut self) -> Error {
        self.is_answered = true;
        let (operation, process_id) = (self.terms.operation, self.link.process_id());
        let after = Duration::ZERO;
        self.failed(after, Error::QueryTimeout { operation, after, process_id, effect: Effect::NotApplied })
    }

    /// The call has its answer.
    pub(super) fn answered(mut self) {
        let took = self.took_its_answer();
        self.measure(took, None);
    }

    /// The call has its answer, which means this error.
    pub(super) fn answered_with(mut self, error: Error) -> Error {
        let took = self.took_its_answer();
        self.failed(took, error)
    }

    fn took_its_answer(&mut self) -> Duration {
        self.is_answered = true;
        let now = now();
        let took = now.saturating_duration_since(self.begun);
        self.link.tell(|witness, ticket| witness.answered(now, ticket, took));
        took
    }

    fn measure(&self, took: Duration, fault: Option<Fault>) {
        if !self.terms.is_part {
            self.link.meter.operated(self.terms.operation, took, fault);
        }
    }

    /// It failed with this error, which is passed on.
    fn failed(&self, took: Duration, error: Error) -> Error {
        let fault = Fault::from(&error);
        self.measure(took, Some(fault));
        self.link.calls.lock().fault = fault;
        self.span.with(error)
    }

    /// The call has its answer, and that is an error.
    pub(super) async fn explain(self, error: tokio_postgres::Error) -> Error {
        let phase = self.phase();
        self.explain_in(phase, error).await
    }

    /// As [`explain`](Self::explain), for a COMMIT.
    pub(super) async fn explain_commit(self, error: tokio_postgres::Error) -> Error {
        self.explain_in(Phase::Commit, error).await
    }

    /// As [`explain`](Self::explain), where one cannot wait: why a connection was lost may not be known yet.
    pub(super) fn explain_now(self, error: tokio_postgres::Error) -> Error {
        let lost = if error.is_closed() { self.link.pulse.epitaph().cause() } else { None };
        let phase = self.phase();
        self.conclude(phase, error, lost)
    }

    async fn explain_in(self, phase: Phase, error: tokio_postgres::Error) -> Error {
        let lost = if error.is_closed() { self.link.pulse.epitaph().last_cause().await } else { None };
        self.conclude(phase, error, lost)
    }

    fn phase(&self) -> Phase {
        if self.link.wire.is_committing() {
            Phase::Commit
        } else if self.is_contained() {
            Phase::Transaction
        } else {
            Phase::Autocommit
        }
    }

    /// Whether nothing of it is applied until a COMMIT that is ours. One begun by hand may be committed by hand, come what may.
    fn is_contained(&self) -> bool {
        self.was_open && self.terms.is_transaction
    }

    fn conclude(mut self, phase: Phase, error: tokio_postgres::Error, lost: Option<Arc<Lost>>) -> Error {
        let link = &self.link;
        // At one row too many the driver itself gives up, and the server goes on.
        let is_an_end = error.as_db_error().is_some() || error.is_closed();
        self.is_answered = is_an_end || link.wire.unanswered() == 0;
        let was_written = link.wire.attempts() != self.attempts;
        let was_ended_by_us = link.wire.is_sealed();
        let mut phase = phase;
        let mut failure = driver::failure(&error, was_written, phase, lost.as_deref());
        if failure.is_read_only() && link.pulse.is_read_only() == Some(false) {
            // The server takes writes: it was the caller who wanted a transaction without any.
            phase = Phase::ReadOnlyTransaction;
            failure = driver::failure(&error, was_written, phase, lost.as_deref());
        } else if failure.is_read_only() {
            link.tell_keeper(News::WrongHost { dialed_as: link.pulse.dialed_as() });
        }
        if failure.fate() == Fate::Discard {
            link.wire.seal();
        }
        if failure.heal().is_some() {
            link.calls.set_outdated(true);
        }
        let now = now();
        let after = now.saturating_duration_since(self.begun);
        // A timeout and an administrator's cancel read alike in all but the message, which may be in any language.
        let is_our_timeout = failure.is_cancel() && link.statement_timeout.is_some_and(|timeout| after >= timeout);
        let verdict = if is_our_timeout { Verdict::Failure } else { failure.verdict() };
        let verdict = (verdict, failure.is_unreachable());
        let error = if is_our_timeout {
            let (process_id, effect) = (link.process_id(), failure.effect());
            Error::QueryTimeout { operation: self.terms.operation, after, process_id, effect }
        } else {
            Error::of_statement(error, was_written, phase, lost)
        };
        // Another call on this connection may have done it: then this one is on the safe side.
        let error = if link.wire.commits() == self.commits { error } else { error.after_a_commit() };
        if !was_ended_by_us {
            link.tell(|witness, ticket| witness.failed(now, ticket, verdict, &error, after));
        }
        link.calls.lock().retry = error.retry();
        self.failed(after, error)
    }

    /// As [`timed_out`](Self::timed_out), for a COMMIT.
    pub(super) fn commit_timed_out(self) -> Error {
        let (now, error) = (now(), Error::CommitUnknown { source: None, lost: None });
        let took = now.saturating_duration_since(self.begun);
        self.link.tell(|witness, ticket| witness.timed_out(now, ticket, &self.terms, &error, took));
        self.failed(took, error)
    }

    /// The call is given up, because the server did not answer in time; or could not, because the reader of a stream on the connection has stopped.
    pub(super) fn timed_out(self) -> Error {
        if self.link.watcher.has_unread() {
            return self.not_in_time();
        }
        let (now, error) = (now(), self.late());
        let took = now.saturating_duration_since(self.begun);
        self.link.tell(|witness, ticket| witness.timed_out(now, ticket, &self.terms, &error, took));
        self.given_up(error)
    }

    /// The call is given up at its deadline, because its caller did not read what the server sent, or did not send what the server waits for. That says
    /// nothing of the server.
    pub(super) fn not_in_time(self) -> Error {
        let error = self.late();
        self.given_up(error)
    }

    /// The call is given up because its reader has not come for so long.
    pub(super) fn not_read_for(self, idle: Duration) -> Error {
        let (operation, process_id) = (self.terms.operation, self.link.process_id());
        let error = Error::StreamIdle { operation, idle, process_id, effect: self.effect_if_given_up() };
        self.given_up(error)
    }

    fn late(&self) -> Error {
        let (operation, process_id) = (self.terms.operation, self.link.process_id());
        let after = now().saturating_duration_since(self.begun);
        Error::QueryTimeout { operation, after, process_id, effect: self.effect_if_given_up() }
    }

    fn effect_if_given_up(&self) -> Effect {
        // In a transaction of the pool's there will be no COMMIT.
        if self.is_contained() { Effect::NotApplied } else { Effect::Unknown }
    }

    fn given_up(self, error: Error) -> Error {
        let mut state = self.link.calls.lock();
        state.timeouts += 1;
        state.retry = error.retry();
        drop(state);
        let took = now().saturating_duration_since(self.begun);
        self.failed(took, error)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.link.watcher.on_end();
        let mut state = self.link.calls.lock();
        state.under_way -= 1;
        state.given_up |= !self.is_answered;
        state.may_be_open |= !self.is_answered && !self.was_open;
        let was_exclusive = mem::take(&mut state.is_exclusive);
        // Calls that are not tracked could be hit: then only the clean-up after the lease may cancel.
        let is_to_stop = state.under_way == 0 && state.given_up && !state.is_stopping && !self.link.is_untracked();
        let runtime = if is_to_stop { Handle::try_current().ok() } else { None };
        state.is_stopping |= runtime.is_some();
        drop(state);
        match runtime {
            Some(runtime) => _ = runtime.spawn(Stopping(Arc::clone(&self.link)).run()),
            None if was_exclusive => self.link.calls.stopped.notify_waiters(),
            None => {}
        }
    }
}

/// The statements given up are being stopped.
struct Stopping(Arc<Link>);

impl Stopping {
    async fn run(self) {
        if time::timeout(self.0.trips.settling(), self.0.stop()).await == Ok(true) {
            self.0.calls.are_gone();
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.calls.lock().is_stopping = false;
        self.0.calls.stopped.notify_waiters();
    }
}
