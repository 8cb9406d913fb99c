//! The statements that one connection has prepared, and how lost or outdated ones are prepared again. If there are too
//! many, the connection forgets the least recently used.
//!
//! A prepared statement can be lost (by `DEALLOCATE ALL`, or a pooler before the server) or outdated (by a migration
//! that changed its columns). The server reports that before it runs anything. So the statement is prepared again and
//! run once more, unless a transaction was open. The transaction has then failed, and may be run again as a whole.
//!
//! Without a cache, nothing stays on the server: each statement is sent in one message group, with the types of its
//! parameters. The connection learns these once ([how](Statements::types)).
//!
//! `DEALLOCATE ALL` and `DISCARD ALL` drop the statements of both caches, the pool's and deadpool's. The wire sees
//! them, and both caches forget everything. They also drop the statements with which the driver looks up unknown types.
//! The driver keeps using those, so the pool closes such a connection after the lease.
//!
//! What a connection has learned belongs to one *epoch* of the schema. When any connection of the pool sees an ALTER
//! TYPE or ALTER TABLE, the next epoch begins, and all connections forget what they have learned. Changes by others
//! show in errors, or in a value whose shape has changed.

mod shapes;

use std::error::Error as _;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use deadpool_postgres::StatementCache;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio_postgres::types::{Type, WrongType};
use tokio_postgres::{Client, Error, Row, Statement};

use super::activity::Exclusion;
use crate::conn::link::Link;
use crate::conn::wire::TransactionStatus;
use crate::error::driver::failure;
use crate::policy::{Reprepare, StatementPhase};

/// The statement of a [`Client`](crate::Client)'s method: SQL, which each connection prepares once and keeps, or a
/// [`Statement`] that was prepared on this very connection.
pub trait AsStatement: sealed::Sealed {
    #[doc(hidden)]
    fn source(&self) -> Source<'_>;
}

#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    Sql(&'a str),
    Prepared(&'a Statement),
}

impl AsStatement for str {
    fn source(&self) -> Source<'_> {
        Source::Sql(self)
    }
}

impl AsStatement for String {
    fn source(&self) -> Source<'_> {
        Source::Sql(self)
    }
}

impl AsStatement for Statement {
    fn source(&self) -> Source<'_> {
        Source::Prepared(self)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for str {}
    impl Sealed for String {}
    impl Sealed for tokio_postgres::Statement {}
}

/// How a statement is sent to the server.
pub(crate) enum Form<'a> {
    Prepared(Statement),
    /// The pool sends it in one message group, with the types of its parameters.
    Typed(&'a str, Arc<[Type]>),
}

/// The prepared statements of one connection.
pub(in crate::conn) struct Statements {
    kept: Mutex<Learned>,
    is_caching: bool,
    /// deadpool's own cache, for callers that use the deref.
    others: Arc<StatementCache>,
    /// The pool's epoch, which counts changes of the schema.
    epoch: Arc<AtomicU64>,
    /// The epoch in which everything in `kept` was learned, or [`OUTDATED`].
    learned_in: AtomicU64,
    /// How many changes of the schema the wire had seen at the last look.
    schema_changes: AtomicU64,
    /// How many commands that drop all statements the wire had seen at the last look.
    deallocations: AtomicU64,
    /// How many errors about a lost statement the wire had seen at the end of the last lease with a use of the deref.
    losses: AtomicU64,
}

/// Something in `kept` is known to be wrong.
const OUTDATED: u64 = u64::MAX;

struct Learned {
    prepared: LruCache<Box<str>, Prepared>,
    types: LruCache<Box<str>, Arc<[Type]>>,
}

struct Prepared {
    statement: Statement,
    /// Whether it is known to have run.
    has_run: bool,
}

impl Learned {
    fn new(capacity: NonZeroUsize) -> Self {
        Self { prepared: LruCache::new(capacity), types: LruCache::new(TYPES) }
    }
}

/// Does `work` before the statement itself is sent. If the connection is lost meanwhile, nothing was applied.
pub(super) async fn preparing<T>(link: &Link, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    link.calls.mark_preparing();
    let done = work.await.inspect_err(|error| on_failed(link, error))?;
    link.calls.mark_executing(link.wire.attempts());
    Ok(done)
}

/// The driver could not prepare a statement.
fn on_failed(link: &Link, error: &Error) {
    link.calls.set_suspects_statements(true);
    // To prepare a statement, the server needs no other. So the driver has lost those of its own.
    if failure(error, true, StatementPhase::Preparing, None).is_statement_missing() {
        link.wire.mark_look_up_lost();
    }
}

/// A longer text is not kept, in bytes. Programs make such texts, and each differs from the others. A few of them would
/// take more memory, here and on the server, than all other statements.
const LONGEST_KEPT: usize = 16 * 1_024;

/// The number of statements whose parameter types are kept, if the statements themselves are not.
const TYPES: NonZeroUsize = NonZeroUsize::new(256).expect("more than none");

impl Statements {
    pub(crate) fn new(capacity: usize, epoch: Arc<AtomicU64>, others: Arc<StatementCache>) -> Self {
        Self {
            kept: Mutex::new(Learned::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN))),
            is_caching: capacity > 0,
            others,
            learned_in: AtomicU64::new(epoch.load(Relaxed)),
            epoch,
            schema_changes: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        }
    }

    /// Begins the next epoch if the wire has seen a change of the schema. Forgets all statements if the server has
    /// dropped them.
    pub(crate) fn look_for_changes(&self, link: &Link) {
        let changes = link.wire.schema_changes();
        if self.schema_changes.load(Relaxed) != changes && self.schema_changes.swap(changes, Relaxed) != changes {
            self.epoch.fetch_add(1, Relaxed);
        }
        let dropped = link.wire.deallocations();
        if self.deallocations.load(Relaxed) != dropped && self.deallocations.swap(dropped, Relaxed) != dropped {
            self.forget_all();
            link.calls.set_suspects_statements(true);
        }
    }

    /// Forgets all statements if the server has reported that one was lost or outdated. A caller of the deref prepares
    /// none of them again.
    pub(crate) fn look_for_losses(&self, link: &Link) {
        let losses = link.wire.lost_statements();
        if self.losses.load(Relaxed) != losses && self.losses.swap(losses, Relaxed) != losses {
            self.forget_all();
        }
    }

    /// Forgets the prepared statements of both caches, but not the types, which are still right.
    fn forget_all(&self) {
        let mut kept = self.lock();
        let empty = LruCache::new(kept.prepared.cap());
        let forgotten = std::mem::replace(&mut kept.prepared, empty);
        drop(kept);
        drop(forgotten);
        self.others.clear();
    }

    /// Forgets the statements that may never have run.
    pub(crate) fn forget_unused(&self) {
        let mut kept = self.lock();
        let unused: Vec<_> =
            kept.prepared.iter().filter(|(_, known)| !known.has_run).map(|(sql, _)| sql.clone()).collect();
        let forgotten: Vec<_> = unused.iter().filter_map(|sql| kept.prepared.pop(sql)).collect();
        drop(kept);
        drop(forgotten);
        self.others.clear();
    }

    /// Forgets everything, if it was learned in an earlier epoch.
    pub(crate) fn renew(&self, client: &Client) {
        let epoch = self.epoch.load(Relaxed);
        if self.learned_in.load(Relaxed) == epoch || self.learned_in.swap(epoch, Relaxed) == epoch {
            return;
        }
        let mut kept = self.lock();
        let empty = Learned::new(kept.prepared.cap());
        let outdated = std::mem::replace(&mut *kept, empty);
        drop(kept);
        drop(outdated);
        self.others.clear();
        client.clear_type_cache();
    }

    /// Looks at the first row of an answer. If it shows that a type has changed since this connection learned it,
    /// everything is forgotten before the next statement.
    pub(crate) fn on_row(&self, row: &Row) {
        if shapes::have_changed(row) {
            self.learned_in.store(OUTDATED, Relaxed);
        }
    }

    /// Runs a statement, prepared or with the types of its parameters. Runs it once more if the prepared statement was
    /// lost or outdated, unless a part of it stays in an open transaction.
    pub(crate) async fn run<'a, T, F>(
        &self,
        client: &Client,
        link: &Link,
        source: Source<'a>,
        is_cached: bool,
        run: impl Fn(Form<'a>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let sql = match source {
            Source::Prepared(statement) => return run(Form::Prepared(statement.clone())).await,
            Source::Sql(sql) => sql,
        };
        let is_cached = is_cached && self.is_caching;
        let was_idle = link.wire.status() == TransactionStatus::Idle;
        let (form, was_kept) = self.form(client, link, sql, is_cached).await?;
        let attempts = link.wire.attempts();
        match run(form).await {
            Err(error) if self.forget_if_outdated(client, sql, &error, was_kept) => {
                if !was_idle && error.as_db_error().is_some() {
                    // The transaction has failed, and may be run again as a whole.
                    link.calls.set_outdated(true);
                    return Err(error);
                }
                // The driver refused a row. The server has got the rows before it, in the caller's transaction.
                if !was_idle && link.wire.attempts() != attempts {
                    return Err(error);
                }
                self.renew(client);
                let (form, _) = self.form(client, link, sql, is_cached).await?;
                run(form).await.inspect(|_| self.on_first_run(sql))
            }
            Ok(value) if !was_kept => {
                self.on_first_run(sql);
                Ok(value)
            }
            result => result,
        }
    }

    fn on_first_run(&self, sql: &str) {
        if let Some(known) = self.lock().prepared.peek_mut(sql) {
            known.has_run = true;
        }
    }

    /// Returns the statement as it is to be sent, and whether it, or the types of its parameters, were kept from an
    /// earlier use. If they were not, asks the server.
    async fn form<'a>(
        &self,
        client: &Client,
        link: &Link,
        sql: &'a str,
        is_cached: bool,
    ) -> Result<(Form<'a>, bool), Error> {
        if is_cached {
            return match self.find(sql) {
                Some(statement) => Ok((Form::Prepared(statement), true)),
                None => {
                    let statement = preparing(link, self.prepare_anew(client, sql)).await?;
                    Ok((Form::Prepared(statement), false))
                }
            };
        }
        let known = self.lock().types.get(sql).map(Arc::clone);
        match known {
            Some(types) => Ok((Form::Typed(sql, types), true)),
            None => {
                let types = preparing(link, self.types(client, link, sql)).await?;
                Ok((Form::Typed(sql, types), false))
            }
        }
    }

    /// Returns the statement from the cache, or prepares it.
    pub(crate) async fn prepare(&self, client: &Client, sql: &str) -> Result<Statement, Error> {
        match self.find(sql) {
            Some(statement) => Ok(statement),
            None => self.prepare_anew(client, sql).await,
        }
    }

    async fn prepare_anew(&self, client: &Client, sql: &str) -> Result<Statement, Error> {
        let statement = client.prepare(sql).await?;
        if self.is_caching && sql.len() <= LONGEST_KEPT {
            let known = Prepared { statement: statement.clone(), has_run: false };
            let forgotten = self.lock().prepared.push(sql.into(), known);
            drop(forgotten);
        }
        Ok(statement)
    }

    fn find(&self, sql: &str) -> Option<Statement> {
        self.lock().prepared.get(sql).map(|known| known.statement.clone())
    }

    /// Forgets the statement if the error means that it is lost or may be outdated. Returns whether to prepare it
    /// again.
    fn forget_if_outdated(&self, client: &Client, sql: &str, error: &Error, was_kept: bool) -> bool {
        let failure = failure(error, true, StatementPhase::Autocommit, None);
        match failure.reprepare() {
            // Other connections and other statements are likely to be outdated, too.
            Some(Reprepare::StatementEverywhere) => _ = self.epoch.fetch_add(1, Relaxed),
            Some(Reprepare::Statement) if was_kept && failure.is_statement_missing() => self.forget_all(),
            Some(Reprepare::Statement) => self.forget(sql),
            // A statement that was new cannot be outdated.
            None if was_kept && (failure.may_be_outdated() || self.may_have_wrong_types(sql, error)) => {
                self.forget(sql);
                client.clear_type_cache();
            }
            None => return false,
        }
        true
    }

    /// Returns whether the driver refused to send a parameter because of a type that it has learned, and that may have
    /// changed since.
    fn may_have_wrong_types(&self, sql: &str, error: &Error) -> bool {
        if !error.source().is_some_and(|source| source.is::<WrongType>()) {
            return false;
        }
        let is_learned = |types: &[Type]| types.iter().any(|known| Type::from_oid(known.oid()).is_none());
        let kept = self.lock();
        kept.prepared.peek(sql).is_some_and(|known| is_learned(known.statement.params()))
            || kept.types.peek(sql).is_some_and(|types| is_learned(types))
    }

    fn forget(&self, sql: &str) {
        let mut kept = self.lock();
        let forgotten = (kept.prepared.pop(sql), kept.types.pop(sql));
        drop(kept);
        drop(forgotten);
    }

    /// Asks the server for the types of the parameters.
    ///
    /// That takes a transaction of its own, so that a pooler in transaction mode sends all of it to one server. If
    /// other calls are, or may be, under way on the connection, there is no transaction, because its end would undo
    /// their work.
    async fn types(&self, client: &Client, link: &Link, sql: &str) -> Result<Arc<[Type]>, Error> {
        let exclusion = link.calls.exclude_others();
        let is_alone = exclusion != Exclusion::NotAlone;
        let types: Arc<[Type]> = if is_alone && !link.is_untracked() && link.wire.status() == TransactionStatus::Idle {
            client.batch_execute("BEGIN").await?;
            let prepared = client.prepare(sql).await;
            // The statement is dropped before the end of the transaction, so that the same server forgets it.
            let types = prepared.map(|statement| statement.params().into());
            client.batch_execute("ROLLBACK").await?;
            types?
        } else {
            client.prepare(sql).await?.params().into()
        };
        if exclusion == Exclusion::New {
            link.calls.admit_others();
        }
        if sql.len() <= LONGEST_KEPT {
            self.lock().types.push(sql.into(), Arc::clone(&types));
        }
        Ok(types)
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.kept.lock()
    }
}
