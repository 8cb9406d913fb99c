//! What the connections of a pool tell its circuit breaker: how statements and dials went, as far as it is the database's doing. And what they tell the
//! pool's maintenance, of themselves.
//!
//! Our own refusals say nothing, nor does a caller that went away. A statement that ran out of time counts if it had the time that it
//! was given for itself, or far more than the like of it take: a caller with a tight deadline says nothing of the server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::call_options::CallOptions;
use super::connection_event::{ConnectionEvent, Tell};
use super::lease_registry::LeaseRegistry;
use crate::breaker::PoolBreaker;
use crate::clock::now;
use crate::error::{ConnectError, Error};
use crate::policy::{Outcome, Ticket, Verdict};

/// A statement that was given up after so many times as long as usual is a failure, whatever its deadline.
const FAR_MORE: u32 = 10;
/// One process told to stop is an administrator's doing; two within this time are a server that shuts down.
const SEVERAL_WITHIN: Duration = Duration::from_secs(10);

/// What the user has to say of an error; `None` is nothing.
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
    maintenance: Tell,
    last_shutdown: Mutex<Option<Instant>>,
    has_answered: AtomicBool,
    /// About the median of how long statements take, in nanoseconds; 0 before the first.
    typical: AtomicU64,
}

impl OutcomeRecorder {
    pub(crate) fn new(breaker: PoolBreaker, is_failure: Option<IsFailure>, maintenance: Tell) -> Self {
        Self {
            breaker,
            is_failure,
            maintenance,
            last_shutdown: Mutex::new(None),
            has_answered: AtomicBool::new(false),
            typical: AtomicU64::new(0),
        }
    }

    pub(crate) fn breaker(&self) -> &PoolBreaker {
        &self.breaker
    }

    /// Tells the maintenance.
    pub(super) fn tell(&self, news: ConnectionEvent) {
        (self.maintenance)(news);
    }

    /// How long a statement usually takes: about the median.
    pub(crate) fn typical(&self) -> Duration {
        Duration::from_nanos(self.typical.load(Relaxed))
    }

    /// A dial begins. While the circuit is closed, its end counts.
    pub(super) fn dials(&self) -> Option<Ticket> {
        self.tell(ConnectionEvent::Dials);
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
        // Not let in is not reached: the next connection shows whether that is over. But a server that is full serves those who are in.
        let verdict = match result {
            Ok(()) => Verdict::Success,
            Err(error) if error.is_full() && registry.has_any() => Verdict::Nothing,
            Err(error) => error.verdict(),
        };
        // One dialed in the place of another is no success: that other may have been lost by the failure that counts.
        let counts = verdict != Verdict::Success || registry.has_grown();
        if let Some(ticket) = ticket.filter(|_| counts) {
            let (outcome, took) = self.outcome(now, verdict, true, took);
            self.breaker.record_dial(now, ticket, outcome, took);
        }
        match verdict {
            Verdict::Success => {
                self.has_answered();
                self.breaker.on_server_answer(now);
            }
            Verdict::Failure if ticket.is_none() => self.breaker.on_server_silent(now),
            _ => {}
        }
    }

    /// The server answers a look at it.
    pub(crate) fn server_answers(&self) {
        self.has_answered();
        self.breaker.on_server_answer(now());
    }

    /// The server takes much longer than usual for a dial, or for a look at it: no failure, as long as it has time.
    pub(crate) fn server_is_late(&self) {
        self.breaker.on_server_late(now());
    }

    /// The server does not answer a look at it, a dial, or what cleans up after a lease.
    pub(crate) fn server_is_silent(&self) {
        self.breaker.on_server_silent(now());
    }

    /// Whether the database has answered anything since this was asked last.
    pub(crate) fn was_answered(&self) -> bool {
        self.has_answered.swap(false, Relaxed)
    }

    fn has_answered(&self) {
        // A store would take the cache line along.
        if !self.has_answered.load(Relaxed) {
            self.has_answered.store(true, Relaxed);
        }
    }

    /// A statement was answered.
    pub(super) fn answered(&self, now: Instant, ticket: Ticket, took: Duration) {
        self.has_answered();
        // A step towards it, up or down: about the median in the long run. Steps lost between threads do no harm.
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
        self.breaker.record(now, ticket, Outcome::Success, took);
    }

    /// A statement failed: the table's verdict, and whether the server was not reached.
    pub(super) fn failed(
        &self,
        now: Instant,
        ticket: Ticket,
        (verdict, is_unreachable): (Verdict, bool),
        error: &Error,
        took: Duration,
    ) {
        if verdict == Verdict::Success {
            self.has_answered();
        }
        let (outcome, took) = self.outcome(now, verdict, is_unreachable, took);
        self.breaker.record(now, ticket, self.overruled(error, outcome), took);
    }

    /// A statement was given up when its time was over.
    pub(super) fn timed_out(&self, now: Instant, ticket: Ticket, options: &CallOptions, error: &Error, took: Duration) {
        let typical = self.typical();
        let had_its_time = options.timeout.is_some_and(|timeout| took >= timeout);
        let counts = had_its_time || (!typical.is_zero() && took >= typical.saturating_mul(FAR_MORE));
        let outcome = if counts { Outcome::Failure } else { Outcome::Ignored };
        self.breaker.record(now, ticket, self.overruled(error, outcome), took);
    }

    /// A lease was used through the deref, and this is all that is known of it.
    pub(super) fn untracked(&self, now: Instant, ticket: Ticket, was_lost: bool) {
        let outcome = if was_lost { Outcome::Unreachable } else { Outcome::Success };
        self.breaker.record(now, ticket, outcome, Duration::ZERO);
    }

    /// The user may know better.
    fn overruled(&self, error: &Error, outcome: Outcome) -> Outcome {
        match self.is_failure.as_ref().and_then(|is_failure| (is_failure.0)(error)) {
            None => outcome,
            Some(false) => Outcome::Success,
            Some(true) if outcome == Outcome::Unreachable => outcome,
            Some(true) => Outcome::Failure,
        }
    }

    fn outcome(&self, now: Instant, verdict: Verdict, is_unreachable: bool, took: Duration) -> (Outcome, Duration) {
        let failure = if is_unreachable { Outcome::Unreachable } else { Outcome::Failure };
        let outcome = match verdict {
            Verdict::Failure => failure,
            Verdict::Success => Outcome::Success,
            // Whatever counts as slow: the server gave it up.
            Verdict::Slow => return (Outcome::Success, Duration::MAX),
            Verdict::FailureIfSeveral if self.is_another_shutdown(now) => failure,
            Verdict::FailureIfSeveral | Verdict::WrongHost | Verdict::Config | Verdict::Nothing => Outcome::Ignored,
        };
        (outcome, took)
    }

    fn is_another_shutdown(&self, now: Instant) -> bool {
        let last = self.last_shutdown.lock().replace(now);
        last.is_some_and(|last| now.saturating_duration_since(last) <= SEVERAL_WITHIN)
    }
}

impl fmt::Debug for OutcomeRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeRecorder").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
