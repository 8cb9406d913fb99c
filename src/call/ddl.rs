//! A change of the schema: a transaction that gives way to those that queue behind it, and runs again.
//!
//! Each attempt has a lease, and a second connection beside the pool's limit on which it watches its own queue
//! (`watch`). A lease would not do: a pool of one has none left, and a full pool has none when it matters. The second
//! connection lives as long as the attempt, so there are never more of them than leases.
//!
//! The rules are in `policy/giving_way`. The watch ends before COMMIT is sent: a COMMIT is never cancelled.

mod watch;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use self::watch::{OwnTransaction, QueueWatch};
use super::Call;
use super::attempts::{Attempted, located, no_fallback};
use crate::clock::now;
use crate::conn::Transaction;
use crate::error::{AbortReason, Error, GiveWayReason};
use crate::event::EventKind;
use crate::policy::Tries;
use crate::telemetry::{Fault, Span};

/// The server's own limit is that much longer than the pool's, so that the pool's error says what happened. The server
/// keeps its limit even if this process freezes.
const MARGIN: Duration = Duration::from_secs(1);
/// The longest timeout that the server takes: 2,147,483,647 ms.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// A change of the schema that does not block others for long. [`Pool::ddl`](crate::Pool::ddl) and [`Call::ddl`] make
/// it.
///
/// A statement that waits for a lock on a table holds up everybody who comes after it, even for a `SELECT`. Behind a
/// report of an hour, that is an outage of an hour. So each attempt is a transaction with limits:
///
/// - [`lock_timeout`](Self::lock_timeout), 1 s: how long it waits for each lock.
/// - [`Call::timeout`], 5 s if it is not set: how long each of its statements may take, waiting included.
/// - [`give_way_after`](Self::give_way_after), 0.5 s: how long other sessions may queue behind it, while it waits *or*
///   works. Then it rolls back, whatever it is doing.
///
/// After that, and after a deadlock, it runs again as a whole: [`attempts`](Self::attempts), with pauses
/// ([`backoff`](Self::backoff)). It never runs without its limits. Between attempts it holds no connection.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// pool.ddl().batch_execute("ALTER TABLE orders ADD COLUMN note text").await?;
/// # Ok(())
/// # }
/// ```
///
/// **Who counts.** Sessions that wait for a lock that this transaction holds, or has asked for before them; not those
/// that wait for an advisory lock, which migrations use to wait for one another. Another change of the schema counts.
///
/// Each attempt that will be followed by another is an event, `SchemaChangePostponed`, with the reason.
///
/// **What it does not do.** `CREATE INDEX CONCURRENTLY`, `DROP INDEX CONCURRENTLY`, `REINDEX CONCURRENTLY` and `VACUUM`
/// cannot run in a transaction (25001), and need none of this: they take no lock that others queue behind. Run them
/// with [`Pool::batch_execute`](crate::Pool::batch_execute) and a long [`Call::timeout`], without a `lock_timeout`.
///
/// **A connection more.** While an attempt runs, the pool has one connection beyond `max_size`, on which it looks at
/// the locks: at most once in 250 ms while nobody waits. No rights are needed for that.
#[derive(Debug, Clone, Copy)]
#[must_use = "a change of the schema does nothing until one of its methods is awaited"]
pub struct Ddl<'a> {
    call: Call<'a>,
    lock_timeout: Duration,
    give_way_after: Duration,
    tries: Tries,
}

impl<'a> Call<'a> {
    /// Makes a change of the schema of this call, with its name, lane, deadline and [`options`](Self::options).
    /// [`timeout`](Self::timeout) limits each statement; the default is 5 s here.
    pub fn ddl(self) -> Ddl<'a> {
        Ddl {
            call: self,
            lock_timeout: Duration::from_secs(1),
            give_way_after: Duration::from_millis(500),
            tries: Tries { attempts: 10, first_pause: Duration::from_secs(2), longest_pause: Duration::from_secs(20) },
        }
    }
}

/// How an attempt ended that did not commit.
struct Ended<E> {
    error: E,
    seen: Attempted,
    /// Why it may run again.
    again: Option<Again>,
}

/// Why a change that was rolled back may run again.
#[derive(Debug, Clone)]
enum Again {
    Stale,
    Conflict,
    Lock,
    GaveWay(GiveWayReason),
}

impl Again {
    /// As metrics name it.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Conflict => "conflict",
            Self::Lock => "lock",
            Self::GaveWay(_) => "gave_way",
        }
    }
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale => f.write_str("its connection had ended before"),
            Self::Conflict => f.write_str("another transaction was in the way"),
            Self::Lock => f.write_str("a lock was not free within lock_timeout"),
            Self::GaveWay(reason) => reason.fmt(f),
        }
    }
}

impl<E: From<Error>> Ended<E> {
    fn of_error(error: Error) -> Self {
        // The connection had been dead before anything was written.
        let again = error.was_stale().then_some(Again::Stale);
        let (error, seen) = Attempted::in_error(error);
        Self { error, seen, again }
    }
}

impl<'a> Ddl<'a> {
    /// Sets how long the server waits for each lock. A shorter time than 1 ms counts as 1 ms. Default: 1 s.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets how long other sessions may wait behind this change before it gives way. Default: 500 ms.
    ///
    /// They wait a little longer than this: a round trip until the pool sees it, and one until the server has cancelled
    /// the statement.
    pub fn give_way_after(mut self, limit: Duration) -> Self {
        self.give_way_after = limit;
        self
    }

    /// Sets how often the change is tried, the first time included. 0 counts as 1. Default: 10.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.tries.attempts = attempts;
        self
    }

    /// Sets the pauses between attempts. Each is twice as long as the one before, and jitter takes at most half of it
    /// away. Default: 2 s, up to 20 s. With ten attempts, that outlasts whatever holds the lock for a minute.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.tries.first_pause, self.tries.longest_pause) = (first, longest);
        self
    }

    /// Runs statements without parameters in one transaction.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error> {
        self.transaction(|tx| async move { tx.batch_execute(sql).await }).await
    }

    /// Runs `work` in a transaction. **It may run several times**, and its future may be dropped at any await, when the
    /// change gives way. So it changes nothing outside the database.
    ///
    /// Run everything on the given handle, in this task. Work on another connection would wait for the locks of this
    /// one, and the change would give way to itself. If a clone of the handle outlives `work`, the server may need
    /// until the end of its statement to notice that the transaction is over.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let ddl = pool.call().name("migration 41").timeout(Duration::from_secs(20)).ddl();
    /// ddl.transaction(async |tx| {
    ///     tx.batch_execute("ALTER TABLE orders ADD COLUMN total numeric").await?;
    ///     tx.execute("INSERT INTO migrations (number) VALUES ($1)", &[&41_i32]).await
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - The errors of `work`. After the last attempt, also those with which an attempt ran again: a lock that was not
    ///   free ([`Error::is_lock_not_available`]), a deadlock.
    /// - [`Error::GaveWay`] if it gave way in the last attempt. Nothing was applied.
    /// - Those of [`get`](Call::get) and of [`Transaction::commit`]. After [`Error::CommitUnknown`] it never runs
    ///   again. It is not cancelled while COMMIT is under way, whoever waits.
    /// - [`Error::Connect`] if it has no connection to watch its queue. It does not run unwatched.
    pub async fn transaction<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let (span, meter) = (self.call.span("ddl"), self.call.shared.meter());
        let begun = meter.start();
        let mut made = 0;
        let ended = loop {
            made += 1;
            let ended = match span.scope(Box::pin(self.attempt(made, span.clone(), &work))).await {
                Ok(value) => {
                    meter.operated_since(begun, self.call.operation, None);
                    span.set_attempts(made);
                    return Ok(value);
                }
                Err(ended) => ended,
            };
            let Some(why) = &ended.again else { break ended };
            let Some(pause) = self.tries.pause(made, fastrand::f64(), now(), self.call.deadline) else {
                meter.gave_up();
                break ended;
            };
            meter.retried(why.as_str());
            let (operation, reason) = (self.call.operation, why.to_string().into());
            self.call.shared.emit(EventKind::SchemaChangePostponed {
                operation,
                attempts: made,
                reason,
                retry_in: pause,
            });
            time::sleep(pause).await;
        };
        span.set_attempts(made);
        self.call.conclude(begun, &span, ended.error, ended.seen, no_fallback)
    }

    /// Makes the attempt with this number.
    async fn attempt<T, E, F, Fut>(&self, number: u32, span: Span, work: &F) -> Result<T, Ended<E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let timeout = self.call.timeout.unwrap_or(Duration::from_secs(5));
        let call = Call { is_part: true, timeout: Some(timeout), ..self.call };
        let client = located(call.get().await.map_err(Ended::of_error)?, &span);
        let dialer = self.call.shared.slots.dialer();
        let mut watch = QueueWatch::begin(dialer, self.give_way_after, self.call.deadline)
            .await
            .map_err(|source| Ended::of_error(Error::Connect { source, retry_after: Duration::ZERO }))?;
        let trail = client.trail();
        let transaction = client.transaction_with(call.options).await.map_err(Ended::of_error)?;
        let own = match self.limit(&transaction, timeout).await {
            Ok(own) => own,
            Err(error) => {
                transaction.rollback().await;
                return Err(Ended::of_error(error));
            }
        };
        let ended = {
            let (work, watched) = (pin!(work(transaction.clone())), pin!(watch.give_way(&own)));
            match select(work, watched).await {
                Either::Left((result, _)) => Ok(result),
                Either::Right((reason, _)) => Err(reason),
            }
        };
        match ended {
            Ok(Ok(value)) => match transaction.commit_or_not().await {
                (Ok(()), _) => Ok(value),
                (Err(error), may_run_again) => {
                    let (error, seen) = Attempted::in_error(error);
                    Err(Ended { error, seen, again: may_run_again.then_some(Again::Conflict) })
                }
            },
            Ok(Err(error)) => {
                let (fault, is_unavailable) = (transaction.fault(), trail.is_unavailable());
                let again = if transaction.met_a_lock() {
                    Some(Again::Lock)
                } else {
                    transaction.may_run_again().then_some(Again::Conflict)
                };
                transaction.rollback().await;
                Err(Ended { error, seen: Attempted { fault, is_unavailable, ..Attempted::default() }, again })
            }
            Err(reason) => {
                let (error, again) = if transaction.give_way().await {
                    (Error::GaveWay { attempts: number, reason: reason.clone() }, Some(Again::GaveWay(reason)))
                } else {
                    (Error::TransactionAborted { reason: AbortReason::EndedByHand }, None)
                };
                let seen = Attempted { fault: Fault::from(&error), ..Attempted::default() };
                Err(Ended { error: error.into(), seen, again })
            }
        }
    }

    /// Gives the transaction its limits, which end with it. Each attempt needs them anew.
    async fn limit(&self, transaction: &Transaction, timeout: Duration) -> Result<OwnTransaction, Error> {
        let (lock, statement) = (millis(self.lock_timeout), millis(timeout.saturating_add(MARGIN)));
        let sql = format!(
            "SET LOCAL lock_timeout = {lock}; SET LOCAL statement_timeout = {statement}; {}",
            OwnTransaction::QUESTION
        );
        let answer = transaction.simple_query(&sql).await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(row.map(OwnTransaction::read).unwrap_or_default())
    }
}

/// A timeout as the server takes it. 0 would be none at all.
fn millis(timeout: Duration) -> u128 {
    timeout.clamp(Duration::from_millis(1), LONGEST).as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeout_is_so_short_that_the_server_takes_it_for_none() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(1_900)), 1);
        assert_eq!(millis(Duration::from_secs(5)), 5_000);
        assert_eq!(millis(Duration::MAX), 2_147_483_647);
    }
}
