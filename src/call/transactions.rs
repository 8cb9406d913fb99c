//! Transactions: BEGIN, the caller's closure, COMMIT; and again as a whole if another transaction was in the way.
//!
//! The bounds are `Fn(Transaction) -> Fut`, which async closures satisfy as well if they borrow what they use. With a
//! bound `AsyncFn`, the compiler (1.85 to 1.95) cannot infer the parameter of `|tx| async move { ... }`, and refuses to
//! spawn a future whose closure borrows: "implementation of `Send` is not general enough".

#[cfg(feature = "axum")]
mod measured;

use std::future::Future;

#[cfg(feature = "axum")]
pub(crate) use self::measured::MeasuredTransaction;
use super::Call;
use super::attempts::{Attempted, located, no_fallback};
use crate::conn::{Client, Transaction};
use crate::error::Error;
use crate::telemetry::{Fault, Span};

impl Call<'_> {
    /// Runs `work` in a transaction. **It may run several times**, by default at most three (see
    /// [`RetryConfig`](crate::RetryConfig)). It runs again as a whole, with a new handle, if another transaction was in
    /// the way (40001, 40P01), if a prepared statement was outdated, or if the transaction could not begin. Between
    /// attempts the call holds no connection. [`transaction_once`](Self::transaction_once) runs `work` only once.
    ///
    /// `work` is an async closure that borrows what it uses: `async |tx| { ... }`, without `move`, because each attempt
    /// needs the values. A closure that returns a future, `|tx| async move { ... }`, will do as well.
    ///
    /// If `work` returns `Ok`, the pool commits; after `Err` it rolls back. If the future is dropped, the pool rolls
    /// back in the background.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool, from: i64, to: i64, note: String) -> Result<(), failfast::Error> {
    /// pool.call()
    ///     .transaction(async |tx| {
    ///         tx.execute("UPDATE accounts SET cents = cents - 100 WHERE id = $1", &[&from]).await?;
    ///         tx.execute("UPDATE accounts SET cents = cents + 100 WHERE id = $1", &[&to]).await?;
    ///         tx.execute("INSERT INTO journal (note) VALUES ($1)", &[&note]).await?;
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of `work`, of [`get`](Self::get) and of [`Transaction::commit`]. After [`Error::CommitUnknown`] the
    /// transaction never runs again.
    pub fn transaction<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.transaction_or(work, no_fallback)
    }

    /// [`transaction`](Self::transaction) with a fallback.
    pub(super) async fn transaction_or<T, E, F, Fut>(
        self,
        work: F,
        instead: impl FnOnce(&E) -> Option<T>,
    ) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let work = &work;
        self.run_attempts(self.span("transaction"), |call, span| call.attempt(span, work), instead).await
    }

    /// Like [`transaction`](Self::transaction), but runs `work` only once. So `work` may move and change what it uses:
    /// `async move |tx| { ... }`.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub fn transaction_once<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.transaction_once_or(work, no_fallback)
    }

    /// [`transaction_once`](Self::transaction_once) with a fallback.
    pub(super) async fn transaction_once_or<T, E, F, Fut>(
        self,
        work: F,
        instead: impl FnOnce(&E) -> Option<T>,
    ) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let (span, meter) = (self.span("transaction"), self.shared.meter());
        let begun = meter.start();
        let whole = Self { is_part: true, ..self };
        match span.scope(whole.attempt(span.clone(), work)).await {
            Ok(value) => {
                meter.operated_since(begun, self.operation, None);
                Ok(value)
            }
            Err((error, seen)) => self.conclude(begun, &span, error, seen, instead),
        }
    }

    /// Makes one attempt. An error comes with what the handle knows about another attempt.
    pub(super) async fn attempt<T, E, F, Fut>(self, span: Span, work: F) -> Result<T, (E, Attempted)>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let client = located(self.get().await.map_err(Attempted::in_error)?, &span);
        Box::pin(self.attempt_on(client, work)).await
    }

    async fn attempt_on<T, E, F, Fut>(self, client: Client, work: F) -> Result<T, (E, Attempted)>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let trail = client.trail();
        let transaction = client.transaction_with(self.options).await.map_err(Attempted::in_error)?;
        let (error, (fault, is_unavailable), may_run_again) = match work(transaction.clone()).await {
            Ok(value) => match transaction.commit_or_not().await {
                (Ok(()), _) => return Ok(value),
                (Err(error), may_run_again) => {
                    let seen = (Fault::from(&error), error.is_unavailable());
                    (error.into(), seen, may_run_again)
                }
            },
            Err(error) => {
                let seen = (transaction.fault(), trail.is_unavailable());
                let may_run_again = transaction.may_run_again();
                transaction.rollback().await;
                (error, seen, may_run_again)
            }
        };
        let seen = if may_run_again { Attempted::conflict() } else { Attempted::default() };
        Err((error, Attempted { fault, is_unavailable, ..seen.after(trail.statements()) }))
    }
}
