//! Transactions as a whole: begun, run, committed; and run again when another one was in the way.

use std::future::Future;
use std::time::Duration;

use tokio::time;

use super::{Call, now};
use crate::conn::Transaction;
use crate::error::Error;
use crate::policy::Deadline;

/// A transaction runs this often at most.
const MOST_ATTEMPTS: u32 = 3;
/// The longest pause before the second attempt. It doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

impl Call<'_> {
    /// Runs `work` in a transaction. **It may run up to three times**: again as a whole, on a fresh handle, when the server says that
    /// another transaction was in the way (40001, 40P01), or when a prepared statement was outdated. Between attempts no connection is
    /// held. [`transaction_once`](Self::transaction_once) never runs again.
    ///
    /// `Ok` commits, `Err` rolls back; so does dropping the future, in the background.
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
    /// What `work` returns; as [`get`](Self::get); and as [`Transaction::commit`]. After [`Error::CommitUnknown`] it is never run again.
    pub async fn transaction<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        for attempt in 1.. {
            let (result, was_in_the_way) = self.attempt(&work).await;
            let pause = FIRST_PAUSE.mul_f64(f64::from(1 << attempt) * fastrand::f64());
            let has_time = self.deadline.is_none_or(|deadline: Deadline| deadline.left(now()) > pause);
            if !was_in_the_way || attempt == MOST_ATTEMPTS || !has_time {
                return result;
            }
            drop(result);
            time::sleep(pause).await;
        }
        unreachable!("the last attempt returns")
    }

    /// [`transaction`](Self::transaction) that runs `work` once, whatever happens.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn transaction_once<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.attempt(work).await.0
    }

    /// The result, and whether another transaction was in the way: read from what the handle saw, never from `E`.
    async fn attempt<T, E, F, Fut>(&self, work: F) -> (Result<T, E>, bool)
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let begun = async { self.get().await?.transaction_with(self.options).await };
        let transaction = match begun.await {
            Ok(transaction) => transaction,
            Err(error) => return (Err(error.into()), false),
        };
        match work(transaction.clone()).await {
            Ok(value) => {
                let (committed, may_run_again) = transaction.commit_or_not().await;
                (committed.map(|()| value).map_err(E::from), may_run_again)
            }
            Err(error) => {
                let may_run_again = transaction.may_run_again();
                transaction.rollback().await;
                (Err(error), may_run_again)
            }
        }
    }
}
