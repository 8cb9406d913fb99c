//! One call through a circuit breaker, of any fallible future.

use std::future::Future;
use std::time::Duration;

use super::CircuitBreaker;

/// Why a call through a circuit breaker gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The circuit is open, or half-open with enough probes under way. The call was not begun.
    #[error("the circuit is open; come back in {retry_after:?}")]
    #[non_exhaustive]
    Open {
        /// Earlier, it would be rejected again. More than 0.
        retry_after: Duration,
    },
    /// The call was given up: it took longer than [`with_timeout`](CircuitBreaker::with_timeout) allows. A failure of the dependency.
    #[error("the call took longer than {after:?}")]
    #[non_exhaustive]
    Timeout {
        /// The timeout.
        after: Duration,
    },
    /// As many calls were under way as [`with_capacity`](CircuitBreaker::with_capacity) allows. The call was not begun.
    #[error("as many calls are under way as there may be")]
    Busy,
    /// The breaker was [shut down](CircuitBreaker::shutdown). The call was not begun.
    #[error("the circuit breaker was shut down")]
    ShutDown,
    /// The call failed.
    #[error(transparent)]
    Failed(E),
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

    /// [`call`](Self::call), where `is_failure` tells which errors are failures of the dependency. The others count as successes (it did answer) and
    /// the caller still gets them. As opossum's `errorFilter`, the other way round.
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
        let permit = self.try_acquire()?;
        let place = self.places.as_ref().map(|places| places.try_acquire());
        if let Some(Err(_)) = place {
            permit.busy();
            return Err(CallError::Busy);
        }
        if let Some(timeout) = self.timeout {
            permit.ends_after(timeout);
        }
        match self.in_time(future).await {
            Ok(Ok(value)) => {
                permit.success();
                Ok(value)
            }
            Ok(Err(error)) if is_failure(&error) => {
                permit.failure();
                Err(CallError::Failed(error))
            }
            Ok(Err(error)) => {
                permit.success();
                Err(CallError::Failed(error))
            }
            Err(after) => {
                permit.failure();
                Err(CallError::Timeout { after })
            }
        }
    }

    async fn in_time<F: Future>(&self, future: F) -> Result<F::Output, Duration> {
        match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, future).await.map_err(|_| timeout),
            None => Ok(future.await),
        }
    }
}
