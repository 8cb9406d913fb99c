//! A transaction over one lease. The pool sends BEGIN and COMMIT itself, so that it reports a commit only after the
//! server has committed.
//!
//! PostgreSQL answers the COMMIT of a failed transaction with success, and the driver passes that on. So the pool sends
//! no COMMIT after an error of the server. The wire counts such errors, even if the caller's code ignores them. The
//! answer to a COMMIT is its command tag: the server sends it after it has committed, so a connection that is lost
//! later does not matter. Without an answer, the error is [`Error::CommitUnknown`]. The pool never repeats or cancels a
//! COMMIT.

use std::fmt::{self, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time;
use tokio_postgres::IsolationLevel;

use super::Client;
use super::calls::in_flight::InFlightCall;
use super::wire::{Tag, TransactionStatus};
use crate::clock::now;
use crate::error::{AbortReason, Error};
use crate::policy::{Deadline, Effect, Objection};
use crate::telemetry::Fault;

/// The options of a transaction. Default: the server's settings, usually READ COMMITTED and read-write.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransactionOptions {
    isolation: Option<IsolationLevel>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
}

impl TransactionOptions {
    /// Returns options that leave everything to the server's settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the isolation level. Default: the server's setting. With [`IsolationLevel::RepeatableRead`] and
    /// [`IsolationLevel::Serializable`], transactions may fail with a conflict (40001).
    #[must_use]
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = Some(level);
        self
    }

    /// Sets whether the server refuses writes in the transaction. Default: the server's setting.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = Some(read_only);
        self
    }

    /// Sets whether a serializable, read-only transaction waits at its begin until it cannot conflict. Default: the
    /// server's setting.
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

/// An open transaction. [`Client::transaction`] begins one. [`Pool::transaction`](crate::Pool::transaction) begins one
/// and ends it.
///
/// It derefs to [`Client`], whose methods then run in the transaction. Code written for deadpool-postgres takes
/// `&**tx`. Clones are handles of the same transaction. It can be committed when only one handle is left. Dropping the
/// last handle rolls back, in the background.
///
/// After an error of the server the transaction cannot be committed, even if your code handles the error, unless a
/// [`savepoint`](Self::savepoint) that was rolled back contained it.
///
/// Do not end the transaction by hand. The pool sees a statement `COMMIT`, but it sees a `COMMIT` within a batch (`...;
/// COMMIT`) only in the answer. If the connection is lost before that answer, [`Error::effect`] says that nothing was
/// applied, which may be wrong.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// // On a connection of one's own. Nothing is run again.
/// let tx = pool.get().await?.transaction().await?;
/// tx.execute("INSERT INTO orders (item) VALUES (1)", &[]).await?;
/// // This may fail alone:
/// let noted = tx.savepoint(async |tx| tx.execute("INSERT INTO journal (n) VALUES (1)", &[]).await).await;
/// tx.commit().await?;
/// println!("in the journal, too: {}", noted.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction {
    core: Arc<OpenTransaction>,
}

struct OpenTransaction {
    client: Client,
    /// Failures on the connection that do not count: those before BEGIN, and those that a savepoint has undone.
    undone: AtomicU64,
    /// Savepoints that were neither released nor rolled back. After a dropped future, one stays open for ever.
    open_savepoints: AtomicU64,
    /// All savepoints, which are numbered.
    savepoints: AtomicU64,
    /// Commits that the wire had seen before BEGIN.
    commits: u64,
    /// Where the position of the commit is to be written, if anybody asks for it.
    #[cfg(feature = "cluster")]
    committed_at: std::sync::OnceLock<super::committed_at::CommittedAt>,
}

impl Client {
    /// Begins a transaction on this connection, with the server's settings. [`Transaction::commit`] or
    /// [`Transaction::rollback`] ends it. If the future is dropped, the pool rolls back in the background.
    ///
    /// [`Pool::transaction`](crate::Pool::transaction) also commits, and runs the transaction again after a conflict.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query). Nothing was applied.
    pub async fn transaction(self) -> Result<Transaction, Error> {
        self.transaction_with(TransactionOptions::new()).await
    }

    /// [`transaction`](Self::transaction) with options, such as an isolation level.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub async fn transaction_with(mut self, options: TransactionOptions) -> Result<Transaction, Error> {
        self.batch("BEGIN", &options.begin()).await.map_err(Error::before_commit)?;
        self.set_transaction();
        self.conn().link.forget_failures();
        self.conn().link.calls.clear_fault();
        let undone = AtomicU64::new(self.conn().link.failures());
        let commits = self.conn().link.wire.commits();
        let (open_savepoints, savepoints) = (AtomicU64::new(0), AtomicU64::new(0));
        let core = OpenTransaction {
            client: self,
            undone,
            open_savepoints,
            savepoints,
            commits,
            #[cfg(feature = "cluster")]
            committed_at: std::sync::OnceLock::new(),
        };
        Ok(Transaction { core: Arc::new(core) })
    }

    /// Sends COMMIT as the end of this call.
    pub(super) async fn send_commit(&self, call: InFlightCall, limit: Deadline) -> Result<(), Error> {
        #[cfg(feature = "testing")]
        let call = Box::pin(self.pretended_commit(call)).await?;
        let wire = &self.conn().link.wire;
        let completed = wire.completed();
        let answer = time::timeout_at(limit.instant().into(), self.driver().batch_execute("COMMIT")).await;
        let tag = Some(wire.last_tag()).filter(|_| wire.completed() != completed);
        match (tag, answer) {
            (Some(Tag::Commit), Ok(Ok(()))) => {
                call.answered();
                Ok(())
            }
            (Some(Tag::Commit), _) => {
                call.answered_in_part();
                Ok(())
            }
            (_, Ok(Ok(()))) | (Some(Tag::Rollback), _) => Err(call.answered_with(aborted(AbortReason::RolledBack))),
            (_, Ok(Err(error))) => Err(call.explain_commit(error).await),
            (_, Err(_)) => Err(call.commit_timed_out()),
        }
    }
}

impl Transaction {
    /// Commits. If the future is dropped before COMMIT was sent, the pool rolls back. After that, the transaction may
    /// or may not be committed: the pool does not cancel a COMMIT.
    ///
    /// # Errors
    ///
    /// - [`Error::TransactionAborted`] if the server has reported an error since BEGIN, or another handle exists. The
    ///   transaction is rolled back.
    /// - [`Error::Postgres`] if the server refuses the COMMIT, for example because of a deferred constraint. The
    ///   transaction is rolled back.
    /// - [`Error::CommitUnknown`] if no answer came in time, or the connection was lost. The transaction may or may not
    ///   have been committed.
    pub async fn commit(self) -> Result<(), Error> {
        self.commit_or_not().await.0
    }

    /// Commits. Also returns whether the whole transaction may run again, because it failed without effect and another
    /// transaction was in the way.
    pub(crate) async fn commit_or_not(self) -> (Result<(), Error>, bool) {
        let (link, commits) = (Arc::clone(&self.core.client.conn().link), self.core.commits);
        let core = self.into_core();
        let committed = match &core {
            Some(core) => core.commit().await,
            None => Err(aborted(AbortReason::InUse)),
        };
        let may_run_again = committed.as_ref().is_err_and(|error| error.effect() == Effect::NotApplied);
        let may_run_again = may_run_again && link.may_run_again(commits);
        // Now the connection may serve another caller, whose failures say nothing about this transaction.
        drop(core);
        (committed, may_run_again)
    }

    /// Returns how metrics name the last failure. Without a failure, the fault is the caller's own.
    pub(crate) fn fault(&self) -> Fault {
        self.core.client.conn().link.calls.fault()
    }

    /// Returns whether the whole transaction may run again, because another transaction was in the way, or a statement
    /// was outdated.
    pub(crate) fn may_run_again(&self) -> bool {
        self.core.client.conn().link.may_run_again(self.core.commits)
    }

    /// Returns whether the whole transaction may run again, because a lock was not free (55P03).
    pub(crate) fn met_a_lock(&self) -> bool {
        let wire = &self.core.client.conn().link.wire;
        let is_whole = wire.commits() == self.core.commits;
        is_whole && wire.last_error().is_some_and(|state| Objection::of(state.code()) == Some(Objection::LockTaken))
    }

    /// Ends the transaction because of others, after its work was dropped. Returns whether nothing of it was committed
    /// by hand.
    ///
    /// The pool stops a statement of a tracked call at once. It stops one of the driver's own client, which the handle
    /// derefs to, only after the lease.
    pub(crate) async fn give_way(self) -> bool {
        let (link, commits) = (Arc::clone(&self.core.client.conn().link), self.core.commits);
        if link.is_untracked() {
            drop(self);
            let _ = time::timeout(link.trips.settling(), link.monitor.quiet()).await;
        } else {
            self.rollback().await;
        }
        !link.wire.is_committing() && link.wire.commits() == commits
    }

    /// The position of the commit is to be written there.
    #[cfg(feature = "cluster")]
    pub(crate) fn write_position_to(&self, committed_at: super::committed_at::CommittedAt) {
        let _ = self.core.committed_at.set(committed_at);
    }

    /// Rolls back. If that fails or the call's time is up, the pool does it in the background. So it does if the future
    /// is dropped.
    pub async fn rollback(self) {
        let Some(core) = self.into_core() else { return };
        if core.client.conn().link.wire.status() != TransactionStatus::Idle {
            let _ = core.client.batch("ROLLBACK", "ROLLBACK").await;
        }
    }

    /// Runs `work` in a savepoint. If `work` fails, the server undoes what it did, and the transaction continues.
    /// Savepoints nest.
    ///
    /// Do not use the transaction for anything else meanwhile (`tokio::join!`, a spawned task). To the server that
    /// would be part of `work`, and be undone with it.
    ///
    /// If the future is dropped, or the server can neither release nor roll back the savepoint, the whole transaction
    /// cannot be committed.
    ///
    /// # Errors
    ///
    /// - What `work` returns.
    /// - [`Error::TransactionAborted`] if the server reported an error to `work`, and `work` returned `Ok`
    ///   nevertheless.
    /// - As [`query`](Client::query), for the statements that begin and release the savepoint.
    pub async fn savepoint<T, E, F, Fut>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let core = &self.core;
        let failures = core.failures();
        let name = format!("failfast_{}", core.savepoints.fetch_add(1, Relaxed));
        core.open_savepoints.fetch_add(1, Relaxed);
        core.client.batch("SAVEPOINT", &format!("SAVEPOINT {name}")).await?;
        let result = work(self.clone()).await;
        let has_failed = core.failures() != failures;
        let result = match result {
            Ok(_) if has_failed => Err(E::from(aborted(core.failed()))),
            result => result,
        };
        if result.is_ok() {
            core.client.batch("RELEASE", &format!("RELEASE SAVEPOINT {name}")).await?;
        } else {
            let undo = format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}");
            if core.client.batch("ROLLBACK TO", &undo).await.is_err() {
                return result; // the first error is the cause
            }
            core.undo_all_but(failures);
        }
        core.open_savepoints.fetch_sub(1, Relaxed);
        result
    }

    /// Ends the handle. If another handle exists, or a call is under way, the connection is sealed: every call on it
    /// fails, and the server rolls back.
    fn into_core(self) -> Option<OpenTransaction> {
        match Arc::try_unwrap(self.core) {
            Ok(core) if !core.client.conn().link.calls.is_running() => Some(core),
            Ok(core) => {
                core.client.conn().link.seal();
                None
            }
            Err(core) => {
                core.client.conn().link.seal();
                None
            }
        }
    }
}

impl OpenTransaction {
    async fn commit(&self) -> Result<(), Error> {
        let client = &self.client;
        let limit = client.options().limit(now());
        let call = client.begin(limit, client.span("COMMIT")).await?;
        if let Some(reason) = self.abort_reason() {
            return Err(call.answered_with(aborted(reason)));
        }
        #[cfg(feature = "cluster")]
        if let Some(committed_at) = self.committed_at.get() {
            return client.send_commit_and_ask(call, limit, committed_at).await;
        }
        client.send_commit(call, limit).await
    }

    /// Why the transaction must not be committed.
    fn abort_reason(&self) -> Option<AbortReason> {
        let link = &self.client.conn().link;
        if self.open_savepoints.load(Relaxed) > 0 || self.failures() > 0 {
            return Some(self.failed());
        }
        match link.wire.status() {
            TransactionStatus::Open => None,
            TransactionStatus::Failed => Some(self.failed()),
            TransactionStatus::Idle => Some(AbortReason::EndedByHand),
        }
    }

    /// Failures since BEGIN that no savepoint has undone.
    fn failures(&self) -> u64 {
        self.client.conn().link.failures() - self.undone.load(Relaxed)
    }

    /// A savepoint was rolled back. It has undone all failures but the `earlier` ones.
    fn undo_all_but(&self, earlier: u64) {
        self.undone.fetch_add(self.failures() - earlier, Relaxed);
        if earlier == 0 {
            self.client.conn().link.forget_failures();
        }
    }

    fn failed(&self) -> AbortReason {
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
