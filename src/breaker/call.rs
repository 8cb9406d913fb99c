//! One call through a circuit breaker: a [`Permit`] to make it, a [`Verdict`] on its result, or any future as a whole.
//!
//! Taking and recording a permit is inlined into the caller's crate. That saves 5 ns of 40.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::CircuitBreaker;
use super::hooks::CallOutcome;
use super::shared::Shared;
use crate::clock::now;
use crate::policy::{Deadline, Denied, Prefix, ResultKind, State, Ticket};

/// What a call says about the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The dependency is well, whatever the call returned.
    Success,
    /// The dependency failed, whatever the call returned.
    Failure,
    /// The call says nothing about the dependency. It does not count, and if it was a probe, another call may probe.
    Ignore,
}

impl From<Verdict> for ResultKind {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Failure => Self::Failure,
            Verdict::Ignore => Self::Ignored,
        }
    }
}

impl From<Verdict> for CallOutcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Failure => Self::Failure,
            Verdict::Ignore => Self::Ignored,
        }
    }
}

/// A circuit breaker did not admit a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}the circuit is {state}; come back in {retry_after:?}", Prefix(name.as_deref()))]
#[non_exhaustive]
pub struct Rejected {
    /// The breaker's [name](super::BreakerConfig::name), if it has one.
    pub name: Option<Arc<str>>,
    /// The state of the breaker.
    pub state: State,
    /// How long to wait before the next try; an earlier one would be rejected again. While a probe is under way, this
    /// is an estimate. More than 0.
    pub retry_after: Duration,
}

/// Why a call through a circuit breaker returned no value. `name` is the breaker's [name](super::BreakerConfig::name),
/// if it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The circuit is open, or half-open with enough probes under way. The call was not begun.
    #[error("{}the circuit is open; come back in {retry_after:?}", Prefix(name.as_deref()))]
    #[non_exhaustive]
    Open {
        /// The name of the breaker.
        name: Option<Arc<str>>,
        /// How long to wait before the next try; an earlier one would be rejected again. More than 0.
        retry_after: Duration,
    },
    /// The breaker gave the call up, because it took longer than [`with_timeout`](CircuitBreaker::with_timeout) allows.
    /// This is a failure of the dependency.
    #[error("{}the call took longer than {after:?}", Prefix(name.as_deref()))]
    #[non_exhaustive]
    Timeout {
        /// The name of the breaker.
        name: Option<Arc<str>>,
        /// The timeout.
        after: Duration,
    },
    /// As many calls were under way as [`with_capacity`](CircuitBreaker::with_capacity) allows. The call was not begun.
    #[error("{}as many calls are under way as there may be", Prefix(name.as_deref()))]
    #[non_exhaustive]
    Busy {
        /// The name of the breaker.
        name: Option<Arc<str>>,
    },
    /// The breaker was [shut down](CircuitBreaker::shutdown). The call was not begun.
    #[error("{}the circuit breaker was shut down", Prefix(name.as_deref()))]
    #[non_exhaustive]
    ShutDown {
        /// The name of the breaker.
        name: Option<Arc<str>>,
    },
    /// The call failed with this error.
    #[error(transparent)]
    Failed(E),
}

impl<E> From<Rejected> for CallError<E> {
    fn from(Rejected { name, state, retry_after }: Rejected) -> Self {
        if state == State::ShutDown { Self::ShutDown { name } } else { Self::Open { name, retry_after } }
    }
}

/// The right to make one call, from [`CircuitBreaker::try_acquire`]. The caller records how the call ended.
///
/// A permit that is dropped counts as [`ignore`](Self::ignore).
#[derive(Debug)]
#[must_use = "dropping a permit records nothing"]
pub struct Permit<'a> {
    shared: &'a Shared,
    /// `None` once the result is recorded.
    ticket: Option<Ticket>,
    /// When the call began. `None` if its duration does not matter.
    begun: Option<Instant>,
}

impl<'a> Permit<'a> {
    #[inline]
    fn new(shared: &'a Shared, ticket: Ticket) -> Self {
        Self { shared, ticket: Some(ticket), begun: shared.needs_durations().then(now) }
    }

    /// Returns whether the breaker was disabled when the call began.
    fn is_uncounted(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_uncounted)
    }

    /// Records a success.
    #[inline]
    pub fn success(self) {
        self.record(Verdict::Success);
    }

    /// Records a failure of the dependency.
    pub fn failure(self) {
        self.record(Verdict::Failure);
    }

    /// Records nothing. Use it for a call that says nothing about the dependency, because the caller gave it up or
    /// something else refused it. If the call was a probe, another call may probe.
    pub fn ignore(self) {
        drop(self);
    }

    /// Records what the call says about the dependency.
    #[inline]
    pub fn record(mut self, verdict: Verdict) {
        self.end(verdict.into(), verdict.into());
    }

    /// Records that the call ran out of time.
    fn timed_out(mut self, verdict: Verdict) {
        self.end(verdict.into(), CallOutcome::Timeout);
    }

    /// Records that the call was not begun, because the capacity was in use.
    fn busy(mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = now();
            self.shared.with(|breaker| breaker.record_busy(now, ticket, fastrand::f64));
            self.shared.notify_of_call(CallOutcome::Busy, Duration::ZERO);
        }
    }

    #[inline]
    fn end(&mut self, outcome: ResultKind, reported: CallOutcome) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = now();
        let took = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        if outcome == ResultKind::Ignored {
            self.shared.release(now, ticket);
        } else {
            self.shared.record(now, ticket, outcome, took);
        }
        if !ticket.is_uncounted() {
            self.shared.notify_of_call(reported, took);
        }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.end(ResultKind::Ignored, CallOutcome::Ignored);
    }
}

impl CircuitBreaker {
    /// Returns the permit for one call. In a closed circuit this is one atomic load. Recording the result reads the
    /// clock.
    ///
    /// # Errors
    ///
    /// [`Rejected`], if the circuit is open, or half-open with enough probes under way.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        let ticket = self.shared.pass().map_or_else(|| self.shared.admit(now()), Ok);
        let ticket = ticket.map_err(|denied| self.rejected(denied))?;
        if let Some(timeout) = self.timeout {
            self.shared.limit_call(ticket, || Deadline::after(now(), timeout));
        }
        Ok(Permit::new(&self.shared, ticket))
    }

    fn rejected(&self, Denied { state, retry_after, .. }: Denied) -> Rejected {
        self.shared.notify_of_call(CallOutcome::Rejected, Duration::ZERO);
        Rejected { name: self.shared.name().cloned(), state, retry_after }
    }

    /// Awaits `future`, unless the circuit is open; then the future is dropped without a poll. Every error of the
    /// future is a failure of the dependency.
    ///
    /// **Cancel safety.** A call that is dropped records nothing. If it was a probe, another call may probe.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// # Panics
    ///
    /// With a timeout, outside a Tokio runtime with its timer enabled.
    pub async fn call<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        self.call_with(|_| true, future).await
    }

    /// Like [`call`](Self::call), but `is_failure` decides which errors are failures of the dependency. Other errors
    /// count as successes, because the dependency did answer, and the caller still gets them. A timeout is a failure.
    /// This is opossum's `errorFilter` with the opposite meaning.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// # Panics
    ///
    /// As [`call`](Self::call).
    pub async fn call_with<T, E>(
        &self,
        is_failure: impl FnOnce(&E) -> bool,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let judge = |result: Result<&T, &CallError<E>>| match result {
            Ok(_) => Verdict::Success,
            Err(CallError::Failed(error)) if !is_failure(error) => Verdict::Success,
            Err(_) => Verdict::Failure,
        };
        self.call_judged(judge, future).await
    }

    /// Like [`call`](Self::call), but `judge` decides what the call says about the dependency. It gets the result that
    /// the caller will get: the value, [`CallError::Failed`] or [`CallError::Timeout`]. It is not called for calls that
    /// were not begun.
    ///
    /// ```
    /// # struct Response { status: u16 }
    /// # async fn fetch() -> Result<Response, std::io::Error> { Ok(Response { status: 503 }) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use failfast::breaker::{BreakerConfig, CallError, CircuitBreaker, Verdict};
    ///
    /// let breaker = CircuitBreaker::new(BreakerConfig::default())?;
    /// let response = breaker
    ///     .call_judged(
    ///         |result| match result {
    ///             Ok(response) if response.status >= 500 => Verdict::Failure,
    ///             Ok(_) => Verdict::Success,
    ///             Err(CallError::Failed(error)) if error.kind() == std::io::ErrorKind::Interrupted => Verdict::Ignore,
    ///             Err(_) => Verdict::Failure,
    ///         },
    ///         fetch(),
    ///     )
    ///     .await?;
    /// # assert_eq!(response.status, 503);
    /// assert_eq!(breaker.snapshot().counts.failures, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// # Panics
    ///
    /// As [`call`](Self::call); and if `judge` panics. Such a call counts as [`Verdict::Ignore`].
    pub async fn call_judged<T, E>(
        &self,
        judge: impl FnOnce(Result<&T, &CallError<E>>) -> Verdict,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let permit = self.try_acquire()?;
        if permit.is_uncounted() {
            return future.await.map_err(CallError::Failed);
        }
        let place = self.places.as_ref().map(|places| places.try_acquire());
        if let Some(Err(_)) = place {
            permit.busy();
            return Err(CallError::Busy { name: self.shared.name().cloned() });
        }
        let result = match self.in_time(future).await {
            Ok(result) => result.map_err(CallError::Failed),
            Err(after) => Err(CallError::Timeout { name: self.shared.name().cloned(), after }),
        };
        let verdict = judge(result.as_ref());
        if let Err(CallError::Timeout { .. }) = result {
            permit.timed_out(verdict)
        } else {
            permit.record(verdict)
        }
        result
    }

    /// Like [`call`](Self::call), but after any error the caller gets what `fallback` returns: a value from a cache, a
    /// default, the answer of another service. `fallback` may call through this breaker or another one. This is
    /// opossum's `fallback`.
    ///
    /// After [`call_with`](Self::call_with) and [`call_judged`](Self::call_judged), `match` on the result instead, or
    /// use [`Result::or_else`].
    ///
    /// ```
    /// # async fn fetch() -> Result<u32, std::io::Error> { Err(std::io::Error::other("broken")) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let breaker = failfast::CircuitBreaker::new(failfast::BreakerConfig::default())?;
    /// use failfast::breaker::CallError;
    ///
    /// let answer = breaker
    ///     .call_or_else(fetch(), async |error| match error {
    ///         CallError::Failed(error) if error.kind() == std::io::ErrorKind::InvalidInput => Err(error),
    ///         _ => Ok(0),
    ///     })
    ///     .await?;
    /// # assert_eq!(answer, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that `fallback` returns.
    ///
    /// # Panics
    ///
    /// As [`call`](Self::call).
    pub async fn call_or_else<T, E, R>(
        &self,
        future: impl Future<Output = Result<T, E>>,
        fallback: impl AsyncFnOnce(CallError<E>) -> Result<T, R>,
    ) -> Result<T, R> {
        match self.call(future).await {
            Ok(value) => Ok(value),
            Err(error) => fallback(error).await,
        }
    }

    async fn in_time<F: Future>(&self, future: F) -> Result<F::Output, Duration> {
        match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, future).await.map_err(|_| timeout),
            None => Ok(future.await),
        }
    }
}
