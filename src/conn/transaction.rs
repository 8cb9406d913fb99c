//! A transaction over one lease: our own BEGIN and COMMIT, so that "committed" is said only when it is so.
//!
//! PostgreSQL answers the COMMIT of a failed transaction with success, and the driver passes that on. Here nothing is committed once an
//! error was seen, by whatever way it came: the wire counts them. A COMMIT without an answer is [`Error::CommitUnknown`], never repeated and
//! never cancelled. The answer is the command tag: the server sends it after it has committed, so what is lost after that does not matter.

use std::fmt::{self, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time;
use tokio_postgres::IsolationLevel;

use super::Client;
use super::wire::{Tag, TransactionStatus};
use crate::clock::now;
use crate::error::{AbortReason, Error};
use crate::policy::Effect;
use crate::telemetry::Fault;

/// What a transaction begins with. Default: what the server has set, usually READ COMMITTED and read-write.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransactionOptions {
    isolation: Option<IsolationLevel>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
}

impl TransactionOptions {
    /// The server's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The isolation level. With [`IsolationLevel::RepeatableRead`] or [`IsolationLevel::Serializable`], be ready for conflicts (40001).
    #[must_use]
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = Some(level);
        self
    }

    /// Whether writes are refused.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = Some(read_only);
        self
    }

    /// Whether a serializable, read-only transaction waits at its begin until it cannot conflict.
    #[must_use]
    pub fn deferrable(mut self, deferrable: bool) -> Self {
        self.deferrable = Some(deferrable);
        self
    }

    fn begin(self) -> String {
        let mut sql = String::from("BEGIN");
        if let Some(level) = self.isolation {
            let level = match level {
                IsolationLevel::ReadUncommitted => "READ UNCOMMITTED",
                IsolationLevel::ReadCommitted => "READ COMMITTED",
                IsolationLevel::RepeatableRead => "REPEATABLE READ",
                _ => "SERIALIZABLE",
            };
            let _ = write!(sql, " ISOLATION LEVEL {level}");
        }
        for (setting, on, off) in
            [(self.read_only, " READ ONLY", " READ WRITE"), (self.deferrable, " DEFERRABLE", " NOT DEFERRABLE")]
        {
            sql += setting.map_or("", |is_on| if is_on { on } else { off });
        }
        sql
    }
}

/// A transaction that is open: begun by [`Pool::transaction`](crate::Pool::transaction), which also ends it, or by
/// [`Client::transaction`].
///
/// It derefs to [`Client`], so its methods run in the transaction, and `&**tx` is what code written for deadpool-postgres takes. Clones
/// are the same transaction; it can be committed when only one is left. Dropped, it is rolled back, in the background.
///
/// It is not to be ended by hand. A `COMMIT` as a statement is noticed; one within a batch (`...; COMMIT`) is not, until it is answered: if the connection is lost
/// before, [`Error::effect`] says that nothing was applied.
///
/// An error of the server poisons it: whatever became of that error, it cannot be committed any more, unless the error was in a
/// [`savepoint`](Self::savepoint) that was rolled back.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// // By hand, on a connection at hand. Nothing is run again.
/// let tx = pool.get().await?.transaction().await?;
/// tx.execute("INSERT INTO orders (item) VALUES (1)", &[]).await?;
/// // What may fail without the rest:
/// let noted = tx.savepoint(|tx| async move { tx.execute("INSERT INTO journal (n) VALUES (1)", &[]).await }).await;
/// tx.commit().await?;
/// println!("in the journal, too: {}", noted.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction {
    core: Arc<Core>,
}

struct Core {
    client: Client,
    /// Errors of the server up to here do not count.
    forgiven: AtomicU64,
    /// Savepoints neither kept nor undone. One that is left behind, by a dropped future, is a transaction in pieces.
    open_savepoints: AtomicU64,
    /// Numbers them.
    savepoints: AtomicU64,
    /// Commits heard before it began.
    commits: u64,
}

impl Client {
    /// Begins a transaction on this connection. It ends with [`Transaction::commit`] or [`Transaction::rollback`].
    ///
    /// [`Pool::transaction`](crate::Pool::transaction) does that by itself, and runs conflicts again.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn transaction(self) -> Result<Transaction, Error> {
        self.transaction_with(TransactionOptions::new()).await
    }

    /// [`transaction`](Self::transaction), with an isolation level and the like.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn transaction_with(mut self, options: TransactionOptions) -> Result<Transaction, Error> {
        self.batch("BEGIN", &options.begin()).await.map_err(Error::of_begin)?;
        self.set_transaction();
        self.conn().link.forget_failures();
        self.conn().link.calls.clear_fault();
        let forgiven = AtomicU64::new(self.conn().link.failures());
        let commits = self.conn().link.wire.commits();
        let (open_savepoints, savepoints) = (AtomicU64::new(0), AtomicU64::new(0));
        let core = Core { client: self, forgiven, open_savepoints, savepoints, commits };
        Ok(Transaction { core: Arc::new(core) })
    }
}

impl Transaction {
    /// Commits.
    ///
    /// # Errors
    ///
    /// - [`Error::TransactionAborted`] if an error was seen since it began, or a clone of the handle lives: it is rolled back.
    /// - [`Error::Postgres`] if the server refuses it, for a deferred constraint for example: it is rolled back.
    /// - [`Error::CommitUnknown`] if no answer came in time: it may have been committed or not.
    pub async fn commit(self) -> Result<(), Error> {
        self.commit_or_not().await.0
    }

    /// Also tells whether another transaction was in the way.
    pub(crate) async fn commit_or_not(self) -> (Result<(), Error>, bool) {
        let (link, commits) = (Arc::clone(&self.core.client.conn().link), self.core.commits);
        let committed = self.try_commit().await;
        let may_run_again = committed.as_ref().is_err_and(|error| error.effect() == Effect::NotApplied);
        (committed, may_run_again && link.may_run_again(commits))
    }

    /// What the last statement that failed is called; without one, as the caller's own.
    pub(crate) fn fault(&self) -> Fault {
        self.core.client.conn().link.calls.fault()
    }

    /// Whether another transaction was in the way, or a statement was outdated, by the last error of the server.
    pub(crate) fn may_run_again(&self) -> bool {
        self.core.client.conn().link.may_run_again(self.core.commits)
    }

    async fn try_commit(self) -> Result<(), Error> {
        let core = self.into_core().ok_or_else(|| aborted(AbortReason::InUse))?;
        let client = &core.client;
        let limit = client.options().limit(now());
        let flight = client.begin(limit, client.span("COMMIT")).await?;
        if let Some(reason) = core.why_not() {
            return Err(flight.answered_with(aborted(reason)));
        }
        let wire = &client.conn().link.wire;
        let completed = wire.completed();
        let answer = time::timeout_at(limit.instant().into(), client.driver().batch_execute("COMMIT")).await;
        let tag = Some(wire.last_tag()).filter(|_| wire.completed() != completed);
        match (tag, answer) {
            (Some(Tag::Commit), Ok(Ok(()))) => {
                flight.answered();
                Ok(())
            }
            (Some(Tag::Commit), _) => {
                flight.answered_in_part();
                Ok(())
            }
            (_, Ok(Ok(()))) | (Some(Tag::Rollback), _) => Err(flight.answered_with(aborted(AbortReason::RolledBack))),
            (_, Ok(Err(error))) => Err(flight.explain_commit(error).await),
            (_, Err(_)) => Err(flight.commit_timed_out()),
        }
    }

    /// Rolls back. What cannot be done in time is done in the background.
    pub async fn rollback(self) {
        let Some(core) = self.into_core() else { return };
        if core.client.conn().link.wire.status() != TransactionStatus::Idle {
            let _ = core.client.batch("ROLLBACK", "ROLLBACK").await;
        }
    }

    /// Runs `work` in a savepoint: if it fails, what it did is undone, and the transaction goes on. Savepoints nest.
    ///
    /// Nothing else should use the transaction meanwhile (`tokio::join!`, a spawned task): to the server it would be part of `work`, and be undone with it.
    ///
    /// If the future is dropped, or the savepoint can be neither kept nor undone, the whole transaction cannot be committed any more.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::TransactionAborted`] if it swallowed an error of the server; as every call.
    pub async fn savepoint<T, E, F, Fut>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let core = &self.core;
        let unforgiven = core.unforgiven();
        let name = format!("failfast_{}", core.savepoints.fetch_add(1, Relaxed));
        core.open_savepoints.fetch_add(1, Relaxed);
        core.client.batch("SAVEPOINT", &format!("SAVEPOINT {name}")).await?;
        let result = work(self.clone()).await;
        let has_failed = core.unforgiven() != unforgiven;
        let result = match result {
            Ok(_) if has_failed => Err(E::from(aborted(core.swallowed()))),
            result => result,
        };
        if result.is_ok() {
            core.client.batch("RELEASE", &format!("RELEASE SAVEPOINT {name}")).await?;
        } else {
            let undo = format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}");
            if core.client.batch("ROLLBACK TO", &undo).await.is_err() {
                return result; // the first error says why
            }
            core.forgive(unforgiven);
        }
        core.open_savepoints.fetch_sub(1, Relaxed);
        result
    }

    /// Ends the handle. If a clone lives, the connection is sealed: whatever is tried with it fails, and the server rolls back.
    fn into_core(self) -> Option<Core> {
        match Arc::try_unwrap(self.core) {
            Ok(core) if !core.client.conn().link.calls.is_running() => Some(core),
            Ok(core) => {
                core.client.conn().link.end();
                None
            }
            Err(core) => {
                core.client.conn().link.end();
                None
            }
        }
    }
}

impl Core {
    /// Why it must not be committed.
    fn why_not(&self) -> Option<AbortReason> {
        let link = &self.client.conn().link;
        if self.open_savepoints.load(Relaxed) > 0 || self.unforgiven() > 0 {
            return Some(self.swallowed());
        }
        match link.wire.status() {
            TransactionStatus::Open => None,
            TransactionStatus::Failed => Some(self.swallowed()),
            TransactionStatus::Idle => Some(AbortReason::EndedByHand),
        }
    }

    /// Errors that have not been undone.
    fn unforgiven(&self) -> u64 {
        self.client.conn().link.failures() - self.forgiven.load(Relaxed)
    }

    /// Undone are all errors but those before the savepoint.
    fn forgive(&self, all_but: u64) {
        self.forgiven.fetch_add(self.unforgiven() - all_but, Relaxed);
        if all_but == 0 {
            self.client.conn().link.forget_failures();
        }
    }

    fn swallowed(&self) -> AbortReason {
        AbortReason::Failed { sqlstate: self.client.conn().link.wire.last_error() }
    }
}

fn aborted(reason: AbortReason) -> Error {
    Error::TransactionAborted { reason }
}

impl Deref for Transaction {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.core.client
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
