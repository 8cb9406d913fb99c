//! Records the results of statements and dials in the pool's circuit breaker, and passes what connections notice to the
//! pool's maintenance.
//!
//! Only results that say something about the database count. Refusals of the pool do not, nor do cancelled calls. A
//! statement that ran out of time counts if it had its own timeout, or took far longer than statements usually take: a
//! caller with a tight deadline says nothing about the server. Neither does an operation that the pool has capped,
//! because it is slow and the others are not: it may only wait for a lock.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::call_options::CallOptions;
use super::connection_event::{ConnectionEvent, EventReceiver};
use super::lease_registry::LeaseRegistry;
use crate::breaker::PoolBreaker;
use crate::clock::now;
use crate::error::{ConnectError, Error};
use crate::operation::Operation;
use crate::policy::{CountsAs, ResultKind, Terminations, Ticket};
#[cfg(feature = "fleet")]
use crate::rates::OperationCaps;

/// A statement that was given up after this many times the usual duration is a failure, whatever its deadline.
const FAR_MORE: u32 = 10;

/// The user's closure that decides whether an error is a failure. `None`: the pool decides.
#[derive(Clone)]
pub(crate) struct IsFailure(Arc<Judge>);

type Judge = dyn Fn(&Error) -> Option<bool> + Send + Sync;

impl IsFailure {
    pub(crate) fn new(judge: impl Fn(&Error) -> Option<bool> + Send + Sync + 'static) -> Self {
        Self(Arc::new(judge))
    }
}

impl fmt::Debug for IsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsFailure(..)")
    }
}

pub(crate) struct OutcomeRecorder {
    breaker: PoolBreaker,
    is_failure: Option<IsFailure>,
    maintenance: EventReceiver,
    terminations: Mutex<Terminations>,
    has_answered: AtomicBool,
    /// About the median duration of statements, in nanoseconds. 0 before the first.
    typical: AtomicU64,
    /// How many dials the server has refused because it was full.
    #[cfg(feature = "fleet")]
    times_full: AtomicU64,
    #[cfg(feature = "fleet")]
    caps: Option<Arc<OperationCaps>>,
}

impl OutcomeRecorder {
    pub(crate) fn new(breaker: PoolBreaker, is_failure: Option<IsFailure>, maintenance: EventReceiver) -> Self {
        Self {
            breaker,
            is_failure,
            maintenance,
            terminations: Mutex::default(),
            has_answered: AtomicBool::new(false),
            typical: AtomicU64::new(0),
            #[cfg(feature = "fleet")]
            times_full: AtomicU64::new(0),
            #[cfg(feature = "fleet")]
            caps: None,
        }
    }

    /// Operations that the pool caps by itself.
    #[cfg(feature = "fleet")]
    pub(crate) fn with_caps(self, caps: Option<Arc<OperationCaps>>) -> Self {
        Self { caps, ..self }
    }

    #[cfg(feature = "fleet")]
    fn is_capped(&self, operation: Operation) -> bool {
        self.caps.as_ref().is_some_and(|caps| caps.is_capped(operation))
    }

    #[cfg(not(feature = "fleet"))]
    fn is_capped(&self, _: Operation) -> bool {
        false
    }

    pub(crate) fn breaker(&self) -> &PoolBreaker {
        &self.breaker
    }

    /// Passes an event to the maintenance.
    pub(super) fn pass_on(&self, event: ConnectionEvent) {
        (self.maintenance)(event);
    }

    /// Returns about the median duration of statements. 0 before the first.
    pub(crate) fn typical(&self) -> Duration {
        Duration::from_nanos(self.typical.load(Relaxed))
    }

    /// How many dials the server has refused because it was full.
    #[cfg(feature = "fleet")]
    pub(super) fn times_full(&self) -> u64 {
        self.times_full.load(Relaxed)
    }

    /// A dial begins. Returns a ticket while the circuit is closed; then the end of the dial counts.
    pub(super) fn dials(&self) -> Option<Ticket> {
        self.pass_on(ConnectionEvent::Dials);
        self.breaker.ticket_for_dial()
    }

    /// A dial has ended.
    pub(super) fn dialed(
        &self,
        now: Instant,
        ticket: Option<Ticket>,
        result: Result<(), &ConnectError>,
        took: Duration,
        registry: &LeaseRegistry,
    ) {
        #[cfg(feature = "fleet")]
        if result.is_err_and(ConnectError::is_full) {
            self.times_full.fetch_add(1, Relaxed);
        }
        // A server that is full still serves the connections that it has. Without any, the next dial shows more.
        let counts_as = match result {
            Ok(()) => CountsAs::Success,
            Err(error) if error.is_full() && registry.has_any() => CountsAs::Nothing,
            Err(error) => error.counts_as(),
        };
        // A connection in the place of another is no success: that other may have been lost by the failure that counts.
        let counts = counts_as != CountsAs::Success || registry.has_grown();
        if let Some(ticket) = ticket.filter(|_| counts) {
            let (outcome, took) = self.outcome(now, counts_as, true, took);
            self.breaker.record_dial(now, ticket, outcome, took);
        }
        match counts_as {
            CountsAs::Success => {
                self.on_answer();
                self.breaker.on_server_answer(now);
            }
            CountsAs::Failure if ticket.is_none() => self.breaker.on_server_silent(now),
            _ => {}
        }
    }

    /// The server has answered a check.
    pub(crate) fn on_server_answer(&self) {
        self.on_answer();
        self.breaker.on_server_answer(now());
    }

    /// The server takes much longer than usual for a dial or a check. That is no failure before its timeout.
    pub(crate) fn on_server_late(&self) {
        self.breaker.on_server_late(now());
    }

    /// The server did not answer a dial, a check, or the clean-up after a lease.
    pub(crate) fn on_server_silent(&self) {
        self.breaker.on_server_silent(now());
    }

    /// Returns whether the database has answered since the last call of this method.
    pub(crate) fn take_answered(&self) -> bool {
        self.has_answered.swap(false, Relaxed)
    }

    fn on_answer(&self) {
        // A store would take the cache line away from other threads.
        if !self.has_answered.load(Relaxed) {
            self.has_answered.store(true, Relaxed);
        }
    }

    /// A statement was answered.
    pub(super) fn answered(&self, now: Instant, ticket: Ticket, took: Duration) {
        self.on_answer();
        // Each answer moves the value by a step up or down, so in the long run it is about the median. A step that is
        // lost between threads does no harm.
        let (typical, seen) = (self.typical.load(Relaxed), u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let step = typical / 16 + 1;
        let next = if typical == 0 {
            seen
        } else if seen > typical {
            typical.saturating_add(step)
        } else {
            typical - step.min(typical - 1)
        };
        self.typical.store(next, Relaxed);
        self.breaker.record(now, ticket, ResultKind::Success, took);
    }

    /// A statement failed. The pair is how the table counts it, and whether the server was not reached.
    pub(super) fn failed(
        &self,
        now: Instant,
        ticket: Ticket,
        (counts_as, is_unreachable): (CountsAs, bool),
        error: &Error,
        took: Duration,
    ) {
        if counts_as == CountsAs::Success {
            self.on_answer();
        }
        let (outcome, took) = self.outcome(now, counts_as, is_unreachable, took);
        self.breaker.record(now, ticket, self.overruled(error, outcome), took);
    }

    /// The caller gave a statement up when its time was over.
    pub(super) fn timed_out(&self, now: Instant, ticket: Ticket, options: &CallOptions, error: &Error, took: Duration) {
        let typical = self.typical();
        let had_its_time = options.timeout.is_some_and(|timeout| took >= timeout);
        let counts = had_its_time || (!typical.is_zero() && took >= typical.saturating_mul(FAR_MORE));
        let counts = counts && !self.is_capped(options.named());
        let outcome = if counts { ResultKind::Failure } else { ResultKind::Ignored };
        self.breaker.record(now, ticket, self.overruled(error, outcome), took);
    }

    /// A lease was used through the deref. The pool knows only whether its connection was lost.
    pub(super) fn untracked(&self, now: Instant, ticket: Ticket, was_lost: bool) {
        let outcome = if was_lost { ResultKind::Unreachable } else { ResultKind::Success };
        self.breaker.record(now, ticket, outcome, Duration::ZERO);
    }

    /// Applies the owner's closure, which has the last word. If it panics, it has none: the call has to end.
    fn overruled(&self, error: &Error, outcome: ResultKind) -> ResultKind {
        let verdict = |is_failure: &IsFailure| catch_unwind(AssertUnwindSafe(|| (is_failure.0)(error))).ok().flatten();
        match self.is_failure.as_ref().and_then(verdict) {
            None => outcome,
            Some(false) => ResultKind::Success,
            Some(true) if outcome == ResultKind::Unreachable => outcome,
            Some(true) => ResultKind::Failure,
        }
    }

    fn outcome(
        &self,
        now: Instant,
        counts_as: CountsAs,
        is_unreachable: bool,
        took: Duration,
    ) -> (ResultKind, Duration) {
        let failure = if is_unreachable { ResultKind::Unreachable } else { ResultKind::Failure };
        let outcome = match counts_as {
            CountsAs::Failure => failure,
            CountsAs::Success => ResultKind::Success,
            // The server gave the statement up, so it is slow by any threshold.
            CountsAs::Slow => return (ResultKind::Success, Duration::MAX),
            CountsAs::FailureIfShutdown if self.terminations.lock().on_terminated(now) => failure,
            CountsAs::FailureIfShutdown | CountsAs::WrongHost | CountsAs::Config | CountsAs::Nothing => {
                ResultKind::Ignored
            }
        };
        (outcome, took)
    }
}

impl fmt::Debug for OutcomeRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeRecorder").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
