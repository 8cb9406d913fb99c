//! One call through a circuit breaker, of any fallible future.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::verdict::Verdict;
use super::{CircuitBreaker, Rejected};
use crate::policy::{Prefix, State};

/// Why a call through a circuit breaker gave no value. `name` is the breaker's [name](super::BreakerConfig::name), if it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The circuit is open, or half-open with enough probes under way. The call was not begun.
    #[error("{}the circuit is open; come back in {retry_after:?}", Prefix(name.as_deref()))]
    #[non_exhaustive]
    Open {
        /// Of the breaker.
        name: Option<Arc<str>>,
        /// Earlier, it would be rejected again. More than 0.
        retry_after: Duration,
    },
    /// The call was given up: it took longer than [`with_timeout`](CircuitBreaker::with_timeout) allows. A failure of the dependency.
    #[error("{}the call took longer than {after:?}", Prefix(name.as_deref()))]
    #[non_exhaustive]
    Timeout {
        /// Of the breaker.
        name: Option<Arc<str>>,
        /// The timeout.
        after: Duration,
    },
    /// As many calls were under way as [`with_capacity`](CircuitBreaker::with_capacity) allows. The call was not begun.
    #[error("{}as many calls are under way as there may be", Prefix(name.as_deref()))]
    #[non_exhaustive]
    Busy {
        /// Of the breaker.
        name: Option<Arc<str>>,
    },
    /// The breaker was [shut down](CircuitBreaker::shutdown). The call was not begun.
    #[error("{}the circuit breaker was shut down", Prefix(name.as_deref()))]
    #[non_exhaustive]
    ShutDown {
        /// Of the breaker.
        name: Option<Arc<str>>,
    },
    /// The call failed.
    #[error(transparent)]
    Failed(E),
}

impl<E> From<Rejected> for CallError<E> {
    fn from(Rejected { name, state, retry_after }: Rejected) -> Self {
        if state == State::ShutDown { Self::ShutDown { name } } else { Self::Open { name, retry_after } }
    }
}

impl CircuitBreaker {
    /// Awaits `future`, unless the circuit is open; then it is dropped without a poll. Every error of it is a failure of the dependency.
    ///
    /// **Cancel safety.** Dropped, the call records nothing; if it was a probe, another one is let out.
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

    /// [`call`](Self::call), where `is_failure` decides which errors are failures of the dependency. The others count as successes (it did answer) and
    /// the caller still gets them. As opossum's `errorFilter`, the other way round. A timeout is a failure.
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

    /// [`call`](Self::call), where `judge` decides what the call says of the dependency. It sees the result that the caller will get: the value,
    /// [`CallError::Failed`] or [`CallError::Timeout`]. It is not asked about calls that were not begun.
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
    /// As [`call`](Self::call); and if `judge` does, which counts as [`Verdict::Ignore`].
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

    /// [`call`](Self::call), or what `fallback` makes of the error, whatever it is: a value from a cache, a default, another service. As opossum's
    /// `fallback`. Another call through this or another breaker may be made in it.
    ///
    /// After [`call_with`](Self::call_with) and [`call_judged`](Self::call_judged), `match` on the result instead, or use [`Result::or_else`].
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
    /// What `fallback` returns.
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
