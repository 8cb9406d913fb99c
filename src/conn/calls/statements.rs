//! The statements that one connection has prepared, the least recently used forgotten first; and their healing.
//!
//! A prepared statement can be lost (a pooler between us and the server, `DEALLOCATE ALL`) or outdated (a migration changed the columns of
//! its result). The server says so before it runs anything, so it is prepared anew and run once more, unless a transaction was open: that
//! is lost then, and has to be run again as a whole.
//!
//! Without a cache nothing is left behind on the server: each statement goes there in one message group, with the types of its parameters.
//! Those are learned once, in a transaction of its own, so that a pooler in transaction mode sees a whole; unless other calls are, or may be, under
//! way on the connection, which that would undo.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

use crate::conn::link::Link;
use crate::conn::wire::TransactionStatus;
use crate::error::driver::failure;
use crate::policy::{Heal, Phase};

/// What a tracked method takes as its statement: SQL, prepared once for each connection and kept, or a [`Statement`] that was prepared on
/// this very connection.
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
    /// In one message group, with the types of its parameters.
    Typed(&'a str, Arc<[Type]>),
}

pub(crate) struct Statements {
    /// As many types are remembered as statements would be.
    kept: Mutex<Kept>,
    is_caching: bool,
    /// Of the pool: counts migrations noticed. Older statements are not used again.
    epoch: Arc<AtomicU64>,
}

struct Kept {
    prepared: LruCache<Box<str>, Statement>,
    types: LruCache<Box<str>, Arc<[Type]>>,
    epoch: u64,
}

/// A longer text is not kept, in bytes: a few of them would take more memory, here and on the server, than all others together. They are mostly made
/// by programs, and each is another.
const LONGEST_KEPT: usize = 16 * 1_024;

/// How many statements' types are remembered where statements are not.
const TYPES: NonZeroUsize = NonZeroUsize::new(256).expect("more than none");

impl Statements {
    pub(crate) fn new(capacity: usize, epoch: Arc<AtomicU64>) -> Self {
        let kept = Kept {
            prepared: LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN)),
            types: LruCache::new(TYPES),
            epoch: epoch.load(Relaxed),
        };
        Self { kept: Mutex::new(kept), is_caching: capacity > 0, epoch }
    }

    /// Runs a statement in the form that suits, and once more if the server has lost it.
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
        match run(form).await {
            Err(error) if self.forgets(client, sql, &error, was_kept) => {
                if !was_idle {
                    // The transaction has failed with it, and may be run again as a whole.
                    link.calls.set_outdated(true);
                    return Err(error);
                }
                let (form, _) = self.form(client, link, sql, is_cached).await?;
                run(form).await
            }
            result => result,
        }
    }

    /// Also returns whether the statement, or the types of its parameters, are known from an earlier use.
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
                None => Ok((Form::Prepared(self.prepare_anew(client, sql).await?), false)),
            };
        }
        let known = self.lock().types.get(sql).map(Arc::clone);
        match known {
            Some(types) => Ok((Form::Typed(sql, types), true)),
            None => Ok((Form::Typed(sql, self.types(client, link, sql).await?), false)),
        }
    }

    /// From the cache, or new.
    pub(crate) async fn prepare(&self, client: &Client, sql: &str) -> Result<Statement, Error> {
        match self.find(sql) {
            Some(statement) => Ok(statement),
            None => self.prepare_anew(client, sql).await,
        }
    }

    async fn prepare_anew(&self, client: &Client, sql: &str) -> Result<Statement, Error> {
        let statement = client.prepare(sql).await?;
        if self.is_caching && sql.len() <= LONGEST_KEPT {
            let forgotten = self.lock().prepared.push(sql.into(), statement.clone());
            drop(forgotten);
        }
        Ok(statement)
    }

    fn find(&self, sql: &str) -> Option<Statement> {
        let epoch = self.epoch.load(Relaxed);
        let mut kept = self.lock();
        if kept.epoch == epoch {
            return kept.prepared.get(sql).cloned();
        }
        kept.epoch = epoch;
        let empty = LruCache::new(kept.prepared.cap());
        let outdated = std::mem::replace(&mut kept.prepared, empty);
        drop(kept);
        drop(outdated);
        None
    }

    /// Forgets the statement if the error means that it is lost or may be outdated. Returns whether it is to be prepared anew.
    fn forgets(&self, client: &Client, sql: &str, error: &Error, was_kept: bool) -> bool {
        let failure = failure(error, true, Phase::Autocommit, None);
        match failure.heal() {
            // Other connections, and other statements, are likely to have the same trouble.
            Some(Heal::StatementEverywhere) => _ = self.epoch.fetch_add(1, Relaxed),
            Some(Heal::Statement) => self.forget(sql),
            // A statement that was new is wrong by itself.
            None if was_kept && failure.may_be_outdated() => {
                self.forget(sql);
                client.clear_type_cache();
            }
            None => return false,
        }
        true
    }

    fn forget(&self, sql: &str) {
        let mut kept = self.lock();
        let forgotten = (kept.prepared.pop(sql), kept.types.pop(sql));
        drop(kept);
        drop(forgotten);
    }

    async fn types(&self, client: &Client, link: &Link, sql: &str) -> Result<Arc<[Type]>, Error> {
        // What others did in it would be undone with it.
        let is_alone = link.calls.exclude_others();
        let types: Arc<[Type]> = if is_alone && !link.is_untracked() && link.wire.status() == TransactionStatus::Idle {
            client.batch_execute("BEGIN").await?;
            let prepared = client.prepare(sql).await;
            // Dropped before the end, so that the same server forgets it.
            let types = prepared.map(|statement| statement.params().into());
            client.batch_execute("ROLLBACK").await?;
            types?
        } else {
            client.prepare(sql).await?.params().into()
        };
        if is_alone {
            link.calls.admit_others();
        }
        if sql.len() <= LONGEST_KEPT {
            self.lock().types.push(sql.into(), Arc::clone(&types));
        }
        Ok(types)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
