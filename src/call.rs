//! One call's way through, and the only place that knows the order of its steps.
//!
//! A deadline is fixed; the circuit breaker is asked; an idle connection is taken, or else the caller waits in order, or is refused; the breaker is
//! asked again, for a ticket; the query runs under what is left; the connection goes back, or is settled first. What failed and may run
//! again goes the whole way again (`attempts`).

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

/// What every handle of one pool shares. When the last is gone, the pool is closed.
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
    /// Takes a connection, whoever asks: an idle one, or else the first that becomes free for the caller.
    ///
    /// `options` and `wait_policy` are only called when they are needed, so that a waiter need not keep what they return.
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

    /// As [`acquire`](Self::acquire), for a caller that does not wait.
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

    /// `None`: it has closed again in this very instant, and now is the time to come back.
    fn circuit_open(&self, denied: Option<Denied>) -> Error {
        self.maintenance.reports.refusals.on_rejected();
        let retry_after = denied.map_or(Duration::ZERO, |denied| {
            // The next look at the server may end it.
            if denied.may_end_early { denied.retry_after.min(PACE) } else { denied.retry_after }
        });
        Error::CircuitOpen { retry_after, last_connect_error: self.slots.last_error() }
    }

    /// How long a caller who has said nothing else waits.
    pub(crate) fn wait_policy(&self, asked: Instant, timeout: Duration) -> WaitPolicy {
        let deadline = Deadline::after(asked, timeout);
        WaitPolicy { deadline, includes_work: false, shedding: self.shedding }
    }

    /// Of a caller who has said nothing else.
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
    /// It is an attempt of a call that is measured as a whole.
    is_part: bool,
    /// What it returns is a stream, whose end is the end of the operation.
    is_stream: bool,
    options: TransactionOptions,
}

/// When a call has to be over: a [`Duration`] from now, or an instant.
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

    /// When the whole call has to be over, waiting and work together: a [`Duration`] from now, or an instant. Who could no longer
    /// finish is refused, and no connection is spent on an answer that nobody waits for.
    ///
    /// Default: [`acquire_timeout`](crate::PoolBuilder::acquire_timeout) for the wait, and
    /// [`query_timeout`](crate::PoolBuilder::query_timeout) for each statement. With a deadline, that does not count unless
    /// [`timeout`](Self::timeout) is set.
    pub fn deadline(mut self, until: impl Into<Until>) -> Self {
        self.deadline = Some(until.into().0);
        self
    }

    /// How long each statement of this call may take. Default: what is left until the [`deadline`](Self::deadline), or without one the
    /// pool's [`query_timeout`](crate::PoolBuilder::query_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What this call is, for people: `load_dashboard`. Errors and events name it. A constant, so that there are only so many names.
    pub fn name(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Prepares nothing that stays: each statement goes to the server in one message group. For statements that differ each time, and for
    /// poolers that give each group to another server. Default: statements are prepared and kept, as
    /// [`statement_cache`](crate::PoolBuilder::statement_cache) says.
    pub fn uncached(mut self) -> Self {
        self.is_cached = false;
        self
    }

    /// This call may be applied twice, so it may run again although it may have been applied: when the connection is lost under way, and
    /// when it runs out of its [`timeout`](Self::timeout) before its deadline. Default: only what was certainly not applied runs again.
    ///
    /// `UPDATE ... SET a = 1` is idempotent, `SET a = a + 1` is not; an `INSERT` with a key of your own and `ON CONFLICT DO NOTHING` is. So is a
    /// `SELECT`, unless it calls functions that write.
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// What [`transaction`](Self::transaction) begins with. Default: the server's.
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = options;
        self
    }

    /// Whether this call may be refused at once. Default: as the pool.
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

    /// A connection. Its [`time_left`](Client::time_left) is the call's.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`](crate::Pool::get).
    pub async fn get(self) -> Result<Client, Error> {
        self.shared.acquire(|_| self.call_options(), |_, asked| self.wait_policy(asked)).await
    }
}
