//! What the workload drives: pools that write and read, each in its own way.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use deadpool_postgres::PoolError;
use failfast::{Effect, Event, EventKind, Observer, Pool};
use tokio_postgres::{Config, Row};

use crate::cases::deadpool::bare;

/// How many connections each subject may have.
pub(super) const CONNECTIONS: usize = 20;

/// The server adds where it writes: its timeline, the position, its address and its start.
pub(crate) const WRITE: &str = "INSERT INTO failfast_ledger
    SELECT $1, $2, ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int, lsn, inet_server_addr(), pg_postmaster_start_time()
    FROM pg_current_wal_insert_lsn() lsn
    RETURNING timeline, (lsn - '0/0')::bigint";

pub(super) const READ: &str = "SELECT id FROM failfast_ledger LIMIT 1";

/// Something that runs writes and reads at the primary of a cluster.
pub(super) trait Subject: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Inserts a row with this id, and the subject's name.
    fn write(&self, id: i64) -> impl Future<Output = Result<Receipt, Failure>> + Send;

    fn read(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns how many changes of the primary it has reported, if it reports them.
    fn primary_changes(&self) -> Option<u64> {
        None
    }
}

/// Where a write was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) timeline: u32,
    /// A position before the record of the commit, and after those of earlier commits.
    pub(crate) lsn: u64,
}

/// What is known about a failed call.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) effect: Effect,
    pub(super) why: String,
}

impl Receipt {
    pub(crate) fn of(row: &Row) -> Receipt {
        let (timeline, lsn): (i32, i64) = (row.get(0), row.get(1));
        Receipt { timeline: timeline.try_into().expect("positive"), lsn: lsn.try_into().expect("positive") }
    }
}

/// failfast's pool.
pub(super) struct Failfast {
    name: &'static str,
    pool: Pool,
    changes: Arc<AtomicU64>,
}

impl Failfast {
    pub(super) fn new(name: &'static str, config: Config) -> Failfast {
        let (changes, observer) = count_primary_changes();
        let pool = Pool::builder(config).name(name).max_size(CONNECTIONS).observer(observer);
        Failfast { name, pool: pool.build().expect("a pool"), changes }
    }
}

impl Subject for Failfast {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn write(&self, id: i64) -> Result<Receipt, Failure> {
        let written = self.pool.query_one(WRITE, &[&self.name, &id]).await;
        written.as_ref().map(Receipt::of).map_err(Failure::of_failfast)
    }

    async fn read(&self) -> Result<(), Failure> {
        self.pool.query_opt(READ, &[]).await.map(drop).map_err(|error| Failure::of_failfast(&error))
    }

    fn primary_changes(&self) -> Option<u64> {
        Some(self.changes.load(Relaxed))
    }
}

/// Returns a counter, and the observer that counts.
pub(super) fn count_primary_changes() -> (Arc<AtomicU64>, impl Observer) {
    let changes = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&changes);
    let observer = move |event: &Event| {
        if matches!(event.kind, EventKind::PrimaryChanged { .. }) {
            counted.fetch_add(1, Relaxed);
        }
    };
    (changes, observer)
}

impl Failure {
    pub(super) fn of_failfast(error: &failfast::Error) -> Failure {
        Failure { effect: error.effect(), why: error.kind().as_str().to_owned() }
    }

    fn of_get(error: &PoolError) -> Failure {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure { effect: Effect::NotApplied, why: format!("{error}{cause}") }
    }

    /// Of a single statement outside a transaction.
    fn of_driver(error: &tokio_postgres::Error) -> Failure {
        // A session may be ended after the commit and before the answer.
        let is_refused = error.as_db_error().is_some_and(|error| error.severity() == "ERROR");
        let effect = if is_refused { Effect::NotApplied } else { Effect::Unknown };
        Failure { effect, why: error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()) }
    }
}

/// deadpool-postgres with its defaults.
pub(super) struct Deadpool {
    name: &'static str,
    pool: deadpool_postgres::Pool,
}

impl Deadpool {
    pub(super) fn new(name: &'static str, config: Config) -> Deadpool {
        Deadpool { name, pool: bare(config, name, CONNECTIONS) }
    }
}

impl Subject for Deadpool {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn write(&self, id: i64) -> Result<Receipt, Failure> {
        let client = self.pool.get().await.map_err(|error| Failure::of_get(&error))?;
        // A statement that cannot be prepared is not executed.
        let prepared = client.prepare_cached(WRITE).await;
        let statement =
            prepared.map_err(|error| Failure { effect: Effect::NotApplied, ..Failure::of_driver(&error) })?;
        let written = client.query_one(&statement, &[&self.name, &id]).await;
        written.as_ref().map(Receipt::of).map_err(Failure::of_driver)
    }

    async fn read(&self) -> Result<(), Failure> {
        let client = self.pool.get().await.map_err(|error| Failure::of_get(&error))?;
        client.query_opt(READ, &[]).await.map(drop).map_err(|error| Failure::of_driver(&error))
    }
}
