//! The fallback of a call: another answer when the database gives none.

use std::fmt;
use std::future::Future;

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::Call;
use crate::conn::{Client, Transaction};
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
    /// circuit is open, there was no connection in time, the statement was too slow, its connection was lost, or the
    /// server is shutting down or out of resources. Any other error of the server is an answer, so a fallback never
    /// hides a violated constraint. Use it for reads: a write that was too slow may have been applied.
    ///
    /// An answer of the fallback is counted as such (`failfast.fallbacks`), and not as a failed operation. The circuit
    /// breaker still sees the failure.
    ///
    /// ```no_run
    /// # use std::sync::{Arc, Mutex};
    /// # use failfast::tokio_postgres::Row;
    /// # async fn example(pool: failfast::Pool, cache: Arc<Mutex<Option<Row>>>) -> Result<(), failfast::Error> {
    /// let call = pool.call().name("exchange_rate").fallback(|error| {
    ///     eprintln!("the rate is from the cache: {error}");
    ///     cache.lock().unwrap().clone()
    /// });
    /// let rate = call.query_one("SELECT rate FROM rates", &[]).await?;
    /// *cache.lock().unwrap() = Some(rate);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors of your own
    ///
    /// [`run`](Fallback::run) and the transactions take a closure with any error type, and `instead` gets that error.
    /// The pool does not look into it. The last statement on the connection decides: the fallback may answer if the
    /// database gave no answer to that statement, or if there was no connection at all. An error of the closure after a
    /// statement that the database has answered is the closure's own, and the pool does not ask the fallback.
    ///
    /// If `instead` calls methods of the error, the compiler needs its type: `|error: &failfast::Error| ...`.
    pub fn fallback<T, E, G>(self, instead: G) -> Fallback<'a, G>
    where
        G: FnOnce(&E) -> Option<T>,
    {
        Fallback { call: self, instead }
    }
}

/// The query methods, with the fallback. There is none for a stream, which only a server can make: collect its rows in
/// [`run`](Self::run). There is none for a COPY.
///
/// # Errors
///
/// As the method of the same name of [`Call`], unless the fallback returns a value.
impl<'a, G> Fallback<'a, G> {
    /// [`Call::query`] with the fallback.
    pub async fn query(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error>
    where
        G: FnOnce(&Error) -> Option<Vec<Row>>,
    {
        self.attempts("query", |client| async move { client.query(sql, params).await }).await
    }

    /// [`Call::query_one`] with the fallback.
    pub async fn query_one(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error>
    where
        G: FnOnce(&Error) -> Option<Row>,
    {
        self.attempts("query_one", |client| async move { client.query_one(sql, params).await }).await
    }

    /// [`Call::query_opt`] with the fallback. The fallback's `Some(None)` stands for no row.
    pub async fn query_opt(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error>
    where
        G: FnOnce(&Error) -> Option<Option<Row>>,
    {
        self.attempts("query_opt", |client| async move { client.query_opt(sql, params).await }).await
    }

    /// [`Call::execute`] with the fallback.
    pub async fn execute(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error>
    where
        G: FnOnce(&Error) -> Option<u64>,
    {
        self.attempts("execute", |client| async move { client.execute(sql, params).await }).await
    }

    /// [`Call::query_typed`] with the fallback.
    pub async fn query_typed(self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error>
    where
        G: FnOnce(&Error) -> Option<Vec<Row>>,
    {
        self.attempts("query_typed", |client| async move { client.query_typed(sql, params).await }).await
    }

    /// [`Call::batch_execute`] with the fallback.
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error>
    where
        G: FnOnce(&Error) -> Option<()>,
    {
        self.attempts("batch_execute", |client| async move { client.batch_execute(sql).await }).await
    }

    /// [`Call::simple_query`] with the fallback.
    pub async fn simple_query(self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error>
    where
        G: FnOnce(&Error) -> Option<Vec<SimpleQueryMessage>>,
    {
        self.attempts("simple_query", |client| async move { client.simple_query(sql).await }).await
    }

    /// [`Call::execute_many`] with the fallback.
    pub async fn execute_many<I, R, P>(self, sql: &str, rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
        G: FnOnce(&Error) -> Option<u64>,
    {
        self.call.execute_many_or(sql, rows, self.instead).await
    }

    /// [`Call::run`] with the fallback.
    pub fn run<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        self.call.run_or(work, self.instead)
    }

    /// [`Call::transaction`] with the fallback.
    pub fn transaction<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        self.call.transaction_or(work, self.instead)
    }

    /// [`Call::transaction_once`] with the fallback.
    pub fn transaction_once<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        self.call.transaction_once_or(work, self.instead)
    }

    fn attempts<T, Fut>(
        self,
        does: &'static str,
        work: impl Fn(Client) -> Fut,
    ) -> impl Future<Output = Result<T, Error>>
    where
        Fut: Future<Output = Result<T, Error>>,
        G: FnOnce(&Error) -> Option<T>,
    {
        self.call.attempts_or(self.call.span(does), work, self.instead)
    }
}

impl<G> fmt::Debug for Fallback<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("call", &self.call).finish_non_exhaustive()
    }
}
