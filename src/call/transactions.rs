//! Transactions: BEGIN, the caller's closure, COMMIT; and again as a whole if another transaction was in the way.

use std::future::Future;

use super::Call;
use super::attempts::{Attempted, located};
use crate::conn::{Client, Transaction};
use crate::error::Error;
use crate::telemetry::{Fault, Span};

impl Call<'_> {
    /// Runs `work` in a transaction. **It may run several times**, by default at most three (see
    /// [`RetryConfig`](crate::RetryConfig)). It runs again as a whole, with a new handle, if another transaction was in
    /// the way (40001, 40P01), if a prepared statement was outdated, or if the transaction could not begin. Between
    /// attempts the call holds no connection. [`transaction_once`](Self::transaction_once) runs `work` only once.
    ///
    /// If `work` returns `Ok`, the pool commits; after `Err` it rolls back. If the future is dropped, the pool rolls
    /// back in the background.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool, from: i64, to: i64, note: String) -> Result<(), failfast::Error> {
    /// pool.call()
    ///     .transaction(|tx| {
    ///         let note = note.clone(); // for each attempt its own
    ///         async move {
    ///             tx.execute("UPDATE accounts SET cents = cents - 100 WHERE id = $1", &[&from]).await?;
    ///             tx.execute("UPDATE accounts SET cents = cents + 100 WHERE id = $1", &[&to]).await?;
    ///             tx.execute("INSERT INTO journal (note) VALUES ($1)", &[&note]).await?;
    ///             Ok(())
    ///         }
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of `work`, of [`get`](Self::get) and of [`Transaction::commit`]. After [`Error::CommitUnknown`] the
    /// transaction never runs again.
    pub async fn transaction<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let work = &work;
        self.again(self.span("transaction"), |call, span| call.attempt(span, work)).await
    }

    /// Like [`transaction`](Self::transaction), but runs `work` only once.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub async fn transaction_once<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let (span, meter) = (self.span("transaction"), self.shared.meter());
        let begun = meter.start();
        let whole = Self { is_part: true, ..self };
        let result = span.scope(whole.attempt(span.clone(), work)).await;
        meter.operated_since(begun, self.operation, result.as_ref().err().map(|(_, seen)| seen.fault));
        result.map_err(|(error, seen)| {
            span.failed(seen.fault);
            error
        })
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
        let (error, fault, may_run_again) = match work(transaction.clone()).await {
            Ok(value) => match transaction.commit_or_not().await {
                (Ok(()), _) => return Ok(value),
                (Err(error), may_run_again) => {
                    let fault = Fault::from(&error);
                    (error.into(), fault, may_run_again)
                }
            },
            Err(error) => {
                let (fault, may_run_again) = (transaction.fault(), transaction.may_run_again());
                transaction.rollback().await;
                (error, fault, may_run_again)
            }
        };
        let seen = if may_run_again { Attempted::conflict() } else { Attempted::default() };
        Err((error, Attempted { fault, ..seen.after(trail.statements()) }))
    }
}
