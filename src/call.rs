//! The path of one call. Only this file knows the order of the steps.
//!
//! 1. The call asks the circuit breaker.
//! 2. It is charged to the rates of its lane and its operation, or refused by them.
//! 3. It takes an idle connection, waits for one in order of arrival, or is refused.
//! 4. It asks the breaker again, for a ticket.
//! 5. The statement runs with the time that is left, and the connection goes back to the pool.
//!
//! A call that failed and may run again takes the whole path again (`attempts`).

mod attempts;
mod bulk;
#[cfg(feature = "cluster")]
mod clustered;
pub(crate) mod ddl;
mod fallback;
#[cfg(feature = "cluster")]
mod gate;
#[cfg(feature = "testing")]
mod pretended;
mod queries;
pub(crate) mod transactions;
mod until;

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::fallback::Fallback;
#[cfg(feature = "cluster")]
pub(crate) use self::gate::{Gate, Prover};
pub use self::until::Until;
use crate::clock::now;
use crate::conn::{CallOptions, Client, Dialer, OutcomeRecorder, TransactionOptions};
use crate::error::{ConnectError, Error};
use crate::event::EventKind;
use crate::holder::{Holder, LongestHeld};
use crate::lane_names::LaneNames;
use crate::maintenance::{Maintenance, PACE};
use crate::policy::{Deadline, Denied, Lane, ShedReason, Shedding, Ticket, WaitPolicy};
#[cfg(feature = "testing")]
use crate::pretend::Pretences;
use crate::rates::{Charge, Rates};
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

/// What all handles of one pool share. Dropping the last handle closes the pool.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) acquire_timeout: Duration,
    pub(crate) query_timeout: Duration,
    pub(crate) shedding: Shedding,
    pub(crate) health_check_after: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) slots: Arc<Slots<Dialer>>,
    pub(crate) recorder: Arc<OutcomeRecorder>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) retries: Retries,
    pub(crate) lane_names: LaneNames,
    /// `None` if no lane and no operation has a rate.
    pub(crate) rates: Option<Rates>,
    pub(crate) tracer: Tracer,
    /// What calls come to in a test.
    #[cfg(feature = "testing")]
    pub(crate) pretences: Arc<Pretences>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.slots.close();
        self.maintenance.on_end();
    }
}

impl Shared {
    /// Takes an idle connection, or waits for the first that becomes free for this caller.
    ///
    /// The method calls `options` and `wait_policy` only when it needs them, so that a waiter does not keep their
    /// results.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice, and a waiter is to be small")]
    pub(crate) fn acquire(
        &self,
        options: impl Fn(&Self) -> CallOptions + Send,
        wait_policy: impl Fn(&Self, Instant) -> WaitPolicy + Send,
    ) -> impl Future<Output = Result<Client, Error>> + Send {
        async move {
            #[cfg(feature = "testing")]
            self.pretended_refusal(&options(self), &wait_policy)?;
            let ticket = self.ask_breaker(&options)?;
            if let Some(rates) = self.rates.as_ref().filter(|rates| rates.has_any()) {
                return Box::pin(self.acquire_charged(rates, ticket, options, wait_policy)).await;
            }
            if let Some(lease) = self.slots.try_acquire(options(self).lane) {
                let ticket = ticket.map_or_else(|| self.admit(&options(self), no_wait), Ok)?;
                return Ok(Client::new(lease, options(self), ticket));
            }
            let asked = now();
            let wait_policy = wait_policy(self, asked);
            let (answer, waiting, span) = self.tracer.wait(self.slots.acquire(asked, wait_policy)).await;
            self.answer(answer, options(self), asked, waiting.deadline()).map_err(|error| span.with(error))
        }
    }

    /// As [`acquire`](Self::acquire), for a pool with rates. The steps are written twice, because a future that keeps a
    /// charge while it waits would cost callers without rates a tenth of `get`.
    async fn acquire_charged(
        &self,
        rates: &Rates,
        ticket: Option<Ticket>,
        options: impl Fn(&Self) -> CallOptions + Send,
        wait_policy: impl Fn(&Self, Instant) -> WaitPolicy + Send,
    ) -> Result<Client, Error> {
        let charge = self.charge_to(rates, &options(self))?;
        if let Some(lease) = self.slots.try_acquire(options(self).lane) {
            let ticket = ticket.map_or_else(|| self.admit(&options(self), no_wait), Ok)?;
            return Ok(Client::new(lease, options(self), ticket).charge(charge));
        }
        let asked = now();
        let wait_policy = wait_policy(self, asked);
        let (answer, waiting, span) = self.tracer.wait(self.slots.acquire(asked, wait_policy)).await;
        let client = self.answer(answer, options(self), asked, waiting.deadline());
        client.map(|client| client.charge(charge)).map_err(|error| span.with(error))
    }

    /// Like [`acquire`](Self::acquire), for a caller that does not wait.
    pub(crate) fn try_acquire(&self, taken: Taken) -> Result<Client, Error> {
        let options = |shared: &Self| shared.options(taken);
        #[cfg(feature = "testing")]
        self.pretended_refusal(&options(self), |shared, asked| shared.wait_policy(asked, Duration::ZERO))?;
        let ticket = self.ask_breaker(options)?;
        let charge = match &self.rates {
            Some(rates) => self.charge_to(rates, &options(self))?,
            None => None,
        };
        if let Some(lease) = self.slots.try_acquire(Lane::Normal) {
            let ticket = ticket.map_or_else(|| self.admit(&options(self), no_wait), Ok)?;
            return Ok(Client::new(lease, options(self), ticket).charge(charge));
        }
        if !self.slots.counts().is_open {
            return Err(Error::Closed);
        }
        self.maintenance.reports.refusals.on_shed(ShedReason::NoneIdle, Lane::Normal);
        self.slots.dial_ahead(Lane::Normal);
        let longest_held = self.longest_held(now());
        Err(Error::Shed { reason: ShedReason::NoneIdle, retry_after: None, longest_held })
    }

    /// Asks the breaker before anything else, because no caller waits while the circuit is open. Returns a ticket if
    /// every call gets one; otherwise a caller that has its connection asks for one.
    #[inline]
    fn ask_breaker(&self, options: impl Fn(&Self) -> CallOptions) -> Result<Option<Ticket>, Error> {
        let breaker = self.recorder.breaker();
        if let Some(ticket) = breaker.free_pass() {
            return Ok(Some(ticket));
        }
        match breaker.check(now) {
            Ok(()) => Ok(None),
            Err(denied) => Err(self.failed(&options(self), no_wait, self.turned_away(denied))),
        }
    }

    /// Charges a call to the rates of its lane and its operation. Dropping the charge gives it back.
    #[cold]
    fn charge_to(&self, rates: &Rates, options: &CallOptions) -> Result<Option<Box<Charge>>, Error> {
        rates.charge(options.lane, options.named()).map_err(|wait| {
            let error = if self.slots.counts().is_open {
                self.maintenance.reports.refusals.on_shed(ShedReason::RateLimited, options.lane);
                // Nobody who holds a connection is in the way.
                let longest_held = LongestHeld::NONE;
                Error::Shed { reason: ShedReason::RateLimited, retry_after: Some(wait), longest_held }
            } else {
                Error::Closed
            };
            self.failed(options, no_wait, error)
        })
    }

    /// Turns the result of a wait into the result of a caller that asked at `asked`.
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
            Err(refusal) => Err(self.failed(&options, waited, self.explain(refusal, options.lane, asked, deadline))),
        }
    }

    /// Records that an operation failed, because it got no connection. Returns the error.
    fn failed(&self, options: &CallOptions, took: impl FnOnce() -> Duration, error: Error) -> Error {
        if !options.is_part && self.meter().is_recorded() {
            self.meter().operated(options.operation, took(), Some(Fault::from(&error)));
        }
        error
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.maintenance.reports.meter
    }

    /// Asks the breaker for a ticket once the caller has its connection, so that a waiter holds no probe permit. If the
    /// breaker refuses, the connection goes to the next waiter.
    fn admit(&self, options: &CallOptions, waited: impl FnOnce() -> Duration) -> Result<Ticket, Error> {
        let admitted = self.recorder.breaker().admit(now, |now| options.limit(now));
        admitted.map_err(|denied| self.failed(options, waited, self.turned_away(denied)))
    }

    fn turned_away(&self, denied: Denied) -> Error {
        if !self.slots.counts().is_open {
            return Error::Closed;
        }
        self.circuit_open(Some(denied))
    }

    /// `denied` is `None` if the circuit has closed in this instant. Then the caller may come back at once.
    fn circuit_open(&self, denied: Option<Denied>) -> Error {
        self.maintenance.reports.refusals.on_rejected();
        let retry_after = denied.map_or(Duration::ZERO, |denied| {
            // The next check of the server may close the circuit.
            if denied.may_end_early { denied.retry_after.min(PACE) } else { denied.retry_after }
        });
        Error::CircuitOpen { retry_after, last_connect_error: self.slots.last_error() }
    }

    /// How long a caller without settings of its own waits.
    pub(crate) fn wait_policy(&self, asked: Instant, timeout: Duration) -> WaitPolicy {
        let deadline = Deadline::after(asked, timeout);
        WaitPolicy { deadline, includes_work: false, shedding: self.shedding, lane: Lane::Normal }
    }

    /// The options of a caller without settings of its own.
    pub(crate) fn options(&self, taken: Taken) -> CallOptions {
        CallOptions {
            deadline: None,
            timeout: Some(self.query_timeout),
            operation: None,
            lane: Lane::default(),
            taken,
            is_cached: true,
            is_transaction: false,
            is_part: false,
        }
    }

    /// Counts a refusal and turns it into an error. The caller asked at `asked` and was willing to wait
    /// until `deadline`.
    fn explain(&self, refusal: Refusal<ConnectError>, lane: Lane, asked: Instant, deadline: Deadline) -> Error {
        let counts = &self.maintenance.reports.refusals;
        match refusal {
            Refusal::Closed => Error::Closed,
            Refusal::CircuitOpen => self.circuit_open(self.recorder.breaker().check(now).err()),
            Refusal::Shed(reason, retry_after) => {
                counts.on_shed(reason, lane);
                // Only this reason is given after a wait. The others spare a look at the clock.
                let now = if reason == ShedReason::TooLate { now() } else { asked };
                Error::Shed { reason, retry_after: Some(retry_after), longest_held: self.longest_held(now) }
            }
            Refusal::Unreachable(source, retry_after) => Error::Connect { source, retry_after },
            Refusal::TimedOut => {
                counts.on_timed_out(lane);
                self.timed_out(deadline.left(asked))
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
            None => Err(self.timed_out(within)),
        }
    }

    fn timed_out(&self, timeout: Duration) -> Error {
        let (status, last_connect_error) = (Box::new(self.status()), self.slots.last_error());
        Error::AcquireTimeout { timeout, status, last_connect_error, longest_held: self.longest_held(now()) }
    }

    /// Who holds a connection in this instant.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        self.maintenance.reports.holders(now(), &self.slots)
    }

    fn longest_held(&self, now: Instant) -> LongestHeld {
        self.maintenance.reports.longest_held(now, &self.slots)
    }

    pub(crate) async fn drain(&self, within: Duration) -> usize {
        let begun = now();
        let left = self.slots.drain(Deadline::after(begun, within)).await;
        self.emit(EventKind::Drained { left, took: now().saturating_duration_since(begun) });
        left
    }

    pub(crate) fn emit(&self, event: EventKind) {
        self.maintenance.reports.telemetry.emit(event);
    }

    pub(crate) fn status(&self) -> Status {
        self.maintenance.reports.status(now(), &self.slots, &self.recorder)
    }
}

/// One call with settings of its own. [`Pool::call`](crate::Pool::call) makes it.
///
/// Set what differs from the pool's settings, then await one of the methods that run something.
///
/// # Cancel safety
///
/// The future of each method may be dropped at any await. A caller that waits leaves the queue. The pool cancels a
/// running statement on the server, unless it is a COMMIT, and cleans up the connection in the background. The
/// statement may have been applied.
#[derive(Debug, Clone, Copy)]
#[must_use = "a call does nothing until one of its methods is awaited"]
pub struct Call<'a> {
    shared: &'a Shared,
    deadline: Option<Deadline>,
    timeout: Option<Duration>,
    shedding: Shedding,
    operation: Option<&'static str>,
    lane: Lane,
    taken: Taken,
    is_cached: bool,
    is_idempotent: bool,
    /// Whether this is one attempt of a call that is measured as a whole.
    is_part: bool,
    /// Whether the call returns a stream or a copy. Then the operation ends with it.
    is_stream: bool,
    options: TransactionOptions,
    /// What the connection has to prove before anything is sent on it.
    #[cfg(feature = "cluster")]
    gate: Option<&'a Gate<'a>>,
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
            lane: Lane::default(),
            taken,
            is_cached: true,
            is_idempotent: false,
            is_part: false,
            is_stream: false,
            options,
            #[cfg(feature = "cluster")]
            gate: None,
        }
    }

    /// Sets when the whole call has to be over, with waiting, work and retries: a [`Duration`] from now, or an instant.
    ///
    /// The pool refuses a waiting caller that could no longer finish in time, so that no connection works for an answer
    /// that comes too late. With a deadline, the pool's timeouts do not apply to this call. Set
    /// [`timeout`](Self::timeout) to limit each statement as well. A call that is too late fails with
    /// [`Error::AcquireTimeout`] while it waits, and with [`Error::QueryTimeout`] while a statement runs.
    ///
    /// A later `deadline` of the same call replaces this one, also if it is longer.
    ///
    /// Default: no deadline. Then [`acquire_timeout`](crate::PoolBuilder::acquire_timeout) limits the wait, and
    /// [`query_timeout`](crate::PoolBuilder::query_timeout) each statement.
    pub fn deadline(mut self, until: impl Into<Until>) -> Self {
        self.deadline = Some(until.into().deadline());
        self
    }

    /// Sets how long each statement of this call may take. With zero, each is late at once. More than thirty years
    /// count as thirty.
    ///
    /// Default: the time left until the [`deadline`](Self::deadline), or, without a deadline, the pool's
    /// [`query_timeout`](crate::PoolBuilder::query_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Names the operation, such as `load_dashboard`, for errors, events, metrics and spans.
    ///
    /// The name is `'static`, so that the number of names, and of time series, is bounded.
    ///
    /// Default: no name. Events show the place in the code instead.
    pub fn name(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Sets how much this call matters, on each of its attempts: callers of a higher lane get connections first. Each
    /// lane has its own limits ([`PoolBuilder::lane_limits`](crate::PoolBuilder::lane_limits)), and may have a
    /// [rate](crate::PoolBuilder::rate). A lane that the owner has set for the operation's [name](Self::name) wins.
    /// Default: [`Lane::Normal`].
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Runs each statement without keeping a prepared statement: it goes to the server in one group of messages.
    ///
    /// Use it for statements that differ each time, and behind a pooler that may give each group to another server.
    ///
    /// Default: the pool keeps prepared statements, as set by
    /// [`statement_cache`](crate::PoolBuilder::statement_cache).
    pub fn uncached(mut self) -> Self {
        self.is_cached = false;
        self
    }

    /// Declares that this call may be applied twice without harm.
    ///
    /// Then the pool may run the call again although it may have been applied: after the connection was lost during the
    /// call, and after its [`timeout`](Self::timeout) has passed before its deadline.
    ///
    /// `UPDATE ... SET a = 1` is idempotent, `SET a = a + 1` is not. An `INSERT` with a key of your own and `ON
    /// CONFLICT DO NOTHING` is idempotent. So is a `SELECT` that calls no function that writes.
    ///
    /// A transaction whose COMMIT has no answer never runs again, whatever this says.
    ///
    /// Default: the pool runs a call again only if it was certainly not applied.
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Sets the options with which [`transaction`](Self::transaction) begins, such as the isolation level.
    ///
    /// Default: the server's defaults.
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets when the pool may refuse this call at once.
    ///
    /// Default: [`PoolBuilder::shedding`](crate::PoolBuilder::shedding).
    pub fn shedding(mut self, shedding: Shedding) -> Self {
        self.shedding = shedding;
        self
    }

    /// The call returns a stream or a copy.
    fn streaming(self) -> Self {
        Self { is_stream: true, ..self }
    }

    fn call_options(&self) -> CallOptions {
        let pools = self.shared.options(self.taken);
        let timeout = self.timeout.or(if self.deadline.is_some() { None } else { pools.timeout });
        let (operation, lane, is_cached, is_part) = (self.operation, self.lane, self.is_cached, self.is_part);
        CallOptions { deadline: self.deadline, timeout, operation, lane, is_cached, is_part, ..pools }
    }

    #[cfg(not(feature = "cluster"))]
    fn wait_deadline(&self, asked: Instant) -> Deadline {
        Deadline::after(asked, self.shared.acquire_timeout)
    }

    fn wait_policy(&self, asked: Instant) -> WaitPolicy {
        let deadline = self.deadline.unwrap_or_else(|| self.wait_deadline(asked));
        WaitPolicy { deadline, includes_work: self.deadline.is_some(), shedding: self.shedding, lane: self.lane }
    }

    /// Takes a connection for several statements. Its [`time_left`](Client::time_left) is the time left of this call.
    ///
    /// Callers are served in order of arrival. The pool does not repeat statements that you run on the connection.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`](crate::Pool::get).
    pub async fn get(mut self) -> Result<Client, Error> {
        // Once, because the owner may move the operation to another lane meanwhile.
        self.lane = self.shared.lane_names.lane_of(self.operation, self.lane);
        let taken = self.shared.acquire(|_| self.call_options(), |_, asked| self.wait_policy(asked)).await;
        #[cfg(feature = "cluster")]
        if let (Some(gate), Ok(_)) = (self.gate, &taken) {
            gate.check()?;
        }
        taken
    }
}
