//! The fallback of a call: another answer when the database gives none.

use std::fmt;
use std::future::Future;

use super::Call;
use crate::conn::Client;
use crate::error::Error;

/// A call with a fallback, from [`Call::fallback`].
#[must_use = "a call does nothing until one of its methods is awaited"]
pub struct Fallback<'a, G> {
    call: Call<'a>,
    instead: G,
}

impl<'a> Call<'a> {
    /// Sets a fallback. When the database gives no answer, the caller gets what `instead` returns: a value from a
    /// cache, a default, an older value. If `instead` returns `None`, the caller gets the error.
    ///
    /// The pool calls `instead` once, after the last attempt, if [`Error::is_unavailable`]: the call was refused, the
    /// circuit is open, there was no connection in time, the statement was too slow, or its connection was lost. An
    /// error that the server returned is an answer, so a fallback never hides a violated constraint. Use it for reads:
    /// a write that was too slow may have been applied.
    ///
    /// ```no_run
    /// # use std::sync::{Arc, Mutex};
    /// # async fn example(pool: failfast::Pool, cache: Arc<Mutex<Option<f64>>>) -> Result<(), failfast::Error> {
    /// let rate = pool
    ///     .call()
    ///     .name("exchange_rate")
    ///     .fallback(|error| {
    ///         eprintln!("the rate is from the cache: {error}");
    ///         *cache.lock().unwrap()
    ///     })
    ///     .run(async |client| Ok(client.query_one("SELECT rate FROM rates", &[]).await?.get::<_, f64>(0)))
    ///     .await?;
    /// *cache.lock().unwrap() = Some(rate);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fallback<T, G>(self, instead: G) -> Fallback<'a, G>
    where
        G: FnOnce(&Error) -> Option<T>,
    {
        Fallback { call: self, instead }
    }
}

impl<G> Fallback<'_, G> {
    /// Like [`Call::run`], with the fallback.
    ///
    /// # Errors
    ///
    /// As [`Call::run`], unless the fallback returns a value.
    pub async fn run<T, F, Fut>(self, work: F) -> Result<T, Error>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
        G: FnOnce(&Error) -> Option<T>,
    {
        match self.call.run(work).await {
            Err(error) if error.is_unavailable() => (self.instead)(&error).ok_or(error),
            result => result,
        }
    }
}

impl<G> fmt::Debug for Fallback<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("call", &self.call).finish_non_exhaustive()
    }
}
