//! The path of one call. Only this file knows the order of its steps.
//!
//! The pool fixes a deadline and asks the circuit breaker. The call takes an idle connection, waits in the queue, or is
//! refused. Then the pool asks the breaker again, for a ticket. The query runs within the time that is left. The
//! connection returns to the pool, which settles it first if needed. A failed call that may run again takes the whole
//! path again (`attempts`).

mod attempts;
mod fallback;
mod queries;
mod transactions;

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;

pub use self::fallback::Fallback;
use crate::clock::now;
use crate::conn::{CallOptions, Client, Dialer, OutcomeRecorder, TransactionOptions};
use crate::error::{ConnectError, Error};
use crate::event::EventKind;
use crate::maintenance::{Maintenance, PACE};
use crate::policy::{Deadline, Denied, ShedReason, Shedding, Ticket, WaitPolicy};
use crate::retry::Retries;
use crate::slots::{Lease, Refusal, Slots};
use crate::status::Status;
use crate::telemetry::{Fault, Meter, Tracer};

/// The place in the caller's code where a connection was taken.
type Taken = &'static Location<'static>;

/// The wait of a caller that got its answer at once.
fn no_wait() -> Duration {
    Duration::ZERO
}

/// The state that all handles of one pool share. Dropping the last handle closes the pool.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) acquire_timeout: Duration,
    pub(crate) query_timeout: Duration,
    pub(crate) shedding: Shedding,
    pub(crate) slots: Arc<Slots<Dialer>>,
    pub(crate) recorder: Arc<OutcomeRecorder>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) retries: Retries,
    pub(crate) tracer: Tracer,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.slots.close();
        self.maintenance.on_end();
    }
}

impl Shared {
    /// Takes an idle connection, or waits for the first that becomes free for the caller.
    ///
    /// It calls `options` and `wait_policy` only when it needs them, so that a waiter does not hold what they return.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice, and a waiter is to be small")]
    pub(crate) fn acquire(
        &self,
        options: impl Fn(&Self) -> CallOptions + Send,
        wait_policy: impl Fn(&Self, Instant) -> WaitPolicy + Send,
    ) -> impl Future<Output = Result<Client, Error>> + Send {
        async move {
            let ticket = self.ask_breaker(&options)?;
            if let Some(lease) = self.slots.try_acquire() {
                let ticket = ticket.map_or_else(|| self.admit(&options(self), no_wait), Ok)?;
                return Ok(Client::new(lease, options(self), ticket));
            }
            let asked = now();
            let wait_policy = wait_policy(self, asked);
            let (answer, waiting, span) = self.tracer.wait(self.slots.acquire(asked, wait_policy)).await;
            self.answer(answer, options(self), asked, waiting.deadline()).map_err(|error| span.with(error))
        }
    }

    /// Like [`acquire`](Self::acquire), for a caller that does not wait.
    pub(crate) fn try_acquire(&self, taken: Taken) -> Result<Client, Error> {
        let options = |shared: &Self| shared.options(taken);
        let ticket = self.ask_breaker(options)?;
        if let Some(lease) = self.slots.try_acquire() {
            let ticket = ticket.map_or_else(|| self.admit(&options(self), no_wait), Ok)?;
            return Ok(Client::new(lease, options(self), ticket));
        }
        if !self.slots.counts().is_open {
            return Err(Error::Closed);
        }
        self.maintenance.reports.refusals.on_shed(ShedReason::NoneIdle);
        self.slots.dial_ahead();
        Err(Error::Shed { reason: ShedReason::NoneIdle, retry_after: None })
    }

    /// Asks the breaker before anything else, because nobody waits while the circuit is open. Returns a ticket if every
    /// call gets one; otherwise a caller that has its connection asks for one.
    #[inline]
    fn ask_breaker(&self, options: impl Fn(&Self) -> CallOptions) -> Result<Option<Ticket>, Error> {
        let breaker = self.recorder.breaker();
        if let Some(ticket) = breaker.free_pass() {
            return Ok(Some(ticket));
        }
        match breaker.check(now) {
            Ok(()) => Ok(None),
            Err(denied) => Err(self.in_vain(&options(self), no_wait, self.turned_away(denied))),
        }
    }

    /// Ends a wait of a caller that asked at `asked`.
    fn answer(
        &self,
        answer: Result<Lease<Dialer>, Refusal<ConnectError>>,
        options: CallOptions,
        asked: Instant,
        deadline: Deadline,
    ) -> Result<Client, Error> {
        let waited = || now().saturating_duration_since(asked);
        match answer {
            Ok(lease) => {
                self.meter().waited(waited);
                let ticket = self.admit(&options, waited)?;
                Ok(Client::new(lease, options, ticket))
            }
            Err(refusal) => Err(self.in_vain(&options, waited, self.explain(refusal, asked, deadline))),
        }
    }

    /// Records that an operation failed, because it got no connection. Returns the error.
    fn in_vain(&self, options: &CallOptions, took: impl FnOnce() -> Duration, error: Error) -> Error {
        if !options.is_part && self.meter().is_recorded() {
            self.meter().operated(options.operation, took(), Some(Fault::from(&error)));
        }
        error
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.maintenance.reports.meter
    }

    /// Asks the breaker for a ticket on behalf of a caller that has its connection: a waiter holds no probe. If the
    /// answer is no, the connection goes to the next waiter.
    fn admit(&self, options: &CallOptions, waited: impl FnOnce() -> Duration) -> Result<Ticket, Error> {
        let admitted = self.recorder.breaker().admit(now, |now| options.limit(now));
        admitted.map_err(|denied| self.in_vain(options, waited, self.turned_away(denied)))
    }

    fn turned_away(&self, denied: Denied) -> Error {
        if !self.slots.counts().is_open {
            return Error::Closed;
        }
        self.circuit_open(Some(denied))
    }

    /// `None`: the circuit has just closed again, so the caller may come back at once.
    fn circuit_open(&self, denied: Option<Denied>) -> Error {
        self.maintenance.reports.refusals.on_rejected();
        let retry_after = denied.map_or(Duration::ZERO, |denied| {
            // The next check of the server may end the open state.
            if denied.may_end_early { denied.retry_after.min(PACE) } else { denied.retry_after }
        });
        Error::CircuitOpen { retry_after, last_connect_error: self.slots.last_error() }
    }

    /// Returns the wait policy of a caller without settings of its own.
    pub(crate) fn wait_policy(&self, asked: Instant, timeout: Duration) -> WaitPolicy {
        let deadline = Deadline::after(asked, timeout);
        WaitPolicy { deadline, includes_work: false, shedding: self.shedding }
    }

    /// Returns the options of a caller without settings of its own.
    pub(crate) fn options(&self, taken: Taken) -> CallOptions {
        CallOptions {
            deadline: None,
            timeout: Some(self.query_timeout),
            operation: None,
            taken,
            is_cached: true,
            is_transaction: false,
            is_part: false,
        }
    }

    /// Makes the error of a caller that asked at `asked` and was willing to wait until `deadline`.
    fn explain(&self, refusal: Refusal<ConnectError>, asked: Instant, deadline: Deadline) -> Error {
        let counts = &self.maintenance.reports.refusals;
        match refusal {
            Refusal::Closed => Error::Closed,
            Refusal::HeldBack => self.circuit_open(self.recorder.breaker().check(now).err()),
            Refusal::Shed(reason, retry_after) => {
                counts.on_shed(reason);
                Error::Shed { reason, retry_after: Some(retry_after) }
            }
            Refusal::Unreachable(source, retry_after) => Error::Connect { source, retry_after },
            Refusal::TimedOut => {
                counts.on_timed_out();
                let (status, last_connect_error) = (Box::new(self.status()), self.slots.last_error());
                Error::AcquireTimeout { timeout: deadline.left(asked), status, last_connect_error }
            }
        }
    }

    pub(crate) async fn warm_up(&self, connections: usize, within: Duration) -> Result<(), Error> {
        let deadline = Deadline::after(now(), within);
        self.slots.try_at_once();
        if self.slots.warm_up(connections, deadline).await {
            return Ok(());
        }
        match self.slots.last_error() {
            _ if !self.slots.counts().is_open => Err(Error::Closed),
            Some(source) => Err(Error::Connect { source, retry_after: self.slots.next_dial_in() }),
            None => Err(Error::AcquireTimeout {
                timeout: within,
                status: Box::new(self.status()),
                last_connect_error: None,
            }),
        }
    }

    pub(crate) async fn drain(&self, within: Duration) -> usize {
        let begun = now();
        let left = self.slots.drain(Deadline::after(begun, within)).await;
        self.tell(EventKind::Drained { left, took: now().saturating_duration_since(begun) });
        left
    }

    pub(crate) fn tell(&self, event: EventKind) {
        self.maintenance.reports.telemetry.emit(event);
    }

    pub(crate) fn status(&self) -> Status {
        self.maintenance.reports.status(now(), &self.slots, &self.recorder)
    }
}

/// One call, with settings of its own. Made by [`Pool::call`](crate::Pool::call).
#[derive(Debug, Clone, Copy)]
#[must_use = "a call does nothing until one of its methods is awaited"]
pub struct Call<'a> {
    shared: &'a Shared,
    deadline: Option<Deadline>,
    timeout: Option<Duration>,
    shedding: Shedding,
    operation: Option<&'static str>,
    taken: Taken,
    is_cached: bool,
    is_idempotent: bool,
    /// It is one attempt of a call, and the metrics count the whole call.
    is_part: bool,
    /// It returns a stream, and the operation ends when the stream ends.
    is_stream: bool,
    options: TransactionOptions,
}

/// When a call has to end: a [`Duration`] from now, or an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(Deadline);

impl From<Duration> for Until {
    fn from(budget: Duration) -> Self {
        Self(Deadline::after(now(), budget))
    }
}

impl From<Instant> for Until {
    fn from(instant: Instant) -> Self {
        Self(Deadline::at(instant))
    }
}

impl From<time::Instant> for Until {
    fn from(instant: time::Instant) -> Self {
        Self(Deadline::at(instant.into_std()))
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(shared: &'a Shared, taken: Taken) -> Self {
        let (shedding, options) = (shared.shedding, TransactionOptions::new());
        Self {
            shared,
            deadline: None,
            timeout: None,
            shedding,
            operation: None,
            taken,
            is_cached: true,
            is_idempotent: false,
            is_part: false,
            is_stream: false,
            options,
        }
    }

    /// Sets when the whole call has to end, with wait and work: a [`Duration`] from now, or an instant. The pool
    /// refuses a call that can no longer finish by then, so it spends no connection on an answer that nobody waits for.
    ///
    /// Default: no deadline. Then [`acquire_timeout`](crate::PoolBuilder::acquire_timeout) limits the wait, and
    /// [`query_timeout`](crate::PoolBuilder::query_timeout) each statement. With a deadline these two do not apply; set
    /// [`timeout`](Self::timeout) to limit single statements.
    pub fn deadline(mut self, until: impl Into<Until>) -> Self {
        self.deadline = Some(until.into().0);
        self
    }

    /// Sets how long each statement of this call may take. Default: the time until the [`deadline`](Self::deadline), or
    /// without one the pool's [`query_timeout`](crate::PoolBuilder::query_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Names the operation, for example `load_dashboard`. Errors, events and metrics have the name. It is a constant,
    /// so that the number of names is limited. Default: none.
    pub fn name(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Keeps no prepared statement: each statement goes to the server in one message group. Use it for statements that
    /// differ each time, and for poolers that give each group to another server. Default: the pool prepares statements
    /// and keeps them, up to [`statement_cache`](crate::PoolBuilder::statement_cache).
    pub fn uncached(mut self) -> Self {
        self.is_cached = false;
        self
    }

    /// Declares that the call may be applied twice. Then it also runs again after a failure that leaves open whether it
    /// was applied: when the connection is lost, or when it runs out of its [`timeout`](Self::timeout) before its
    /// deadline. Default: only a call that was certainly not applied runs again.
    ///
    /// `UPDATE ... SET a = 1` is idempotent; `SET a = a + 1` is not. An `INSERT` with a key of your own and
    /// `ON CONFLICT DO NOTHING` is idempotent, and so is a `SELECT` that calls no function that writes.
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Sets the options with which [`transaction`](Self::transaction) begins. Default: those of the server.
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets which calls the pool refuses at once. Default: the pool's setting.
    pub fn shedding(mut self, shedding: Shedding) -> Self {
        self.shedding = shedding;
        self
    }

    fn call_options(&self) -> CallOptions {
        let pools = self.shared.options(self.taken);
        let timeout = self.timeout.or(if self.deadline.is_some() { None } else { pools.timeout });
        let (operation, is_cached, is_part) = (self.operation, self.is_cached, self.is_part);
        CallOptions { deadline: self.deadline, timeout, operation, is_cached, is_part, ..pools }
    }

    fn wait_policy(&self, asked: Instant) -> WaitPolicy {
        let deadline = self.deadline.unwrap_or_else(|| Deadline::after(asked, self.shared.acquire_timeout));
        WaitPolicy { deadline, includes_work: self.deadline.is_some(), shedding: self.shedding }
    }

    /// Returns a connection. Its [`time_left`](Client::time_left) is that of the call.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`](crate::Pool::get).
    pub async fn get(self) -> Result<Client, Error> {
        self.shared.acquire(|_| self.call_options(), |_, asked| self.wait_policy(asked)).await
    }
}
