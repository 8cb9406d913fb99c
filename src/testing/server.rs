//! The server on which tests have their databases: an administrator's session, which holds the locks of one test.
//!
//! The locks are advisory ones of the server, so they end with the process that has them, however it ends. Each test
//! has one for its place among all tests on the server, and one that says that its database is in use.
//!
//! Advisory locks are per database. So the names of all databases that are made here have the oid of the database that
//! the session is connected to. A session drops only those with its own oid: it cannot see the locks of the others.
//!
//! Tests get their places in the order in which they came, as far as there are connections to wait on: the first one
//! holds the door, and looks for a free place. The others have a seat each, and the server queues them at the door. A
//! test that finds no seat comes back later. Each process lets one test in at a time, so that few of them need seats.
//!
//! The session runs on a thread of its own, with a clock that no test pauses, and so do the dials of the test's pool.
//! So the database of a test can be dropped although the runtime of the test stands still, in a `Drop`.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

use super::setup_error::SetupError;
use crate::error::ConnectError;

/// The first key of the advisory locks: places of tests, the door to them, seats of those that wait at the door,
/// templates that are being made, databases in use.
const PLACE: i32 = 0x6661_6901;
const DOOR: i32 = 0x6661_6902;
const SEAT: i32 = 0x6661_6903;
const TEMPLATE: i32 = 0x6661_6904;
const IN_USE: i32 = 0x6661_6905;

/// In the names of databases.
const TEST: &str = "test";
const TEMPLATES: &str = "template";

/// The share of the server's connections that tests with a place may use.
const SHARE: f64 = 0.75;
/// The share of those that wait. The rest is for templates, and for whatever else runs there.
const WAITING: f64 = 0.125;

/// How long the first in line pauses between two looks for a free place.
const LOOK: Duration = Duration::from_millis(20);
/// How long a test without a seat stays away: up to twice as long.
const AWAY: Duration = Duration::from_millis(300);

/// How many leftovers of killed processes one process drops at most.
const MOST_LEFTOVERS: usize = 20;

/// Where the sessions and the dials run.
static RUNTIME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for test databases: {error}"));
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new().name("failfast-test-databases".to_owned());
    let thread = thread.spawn(move || runtime.block_on(pending::<()>()));
    thread.unwrap_or_else(|error| panic!("no thread for test databases: {error}"));
    handle
});

/// Runs `work` on the thread of the sessions, with a clock that no test pauses.
pub(super) async fn aside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match RUNTIME.spawn(work).await {
        Ok(value) => value,
        Err(error) => panic!("the thread of the test databases: {error}"),
    }
}

/// The runtime of the sessions, for the dials of pools: the server does not drop a database while a dial to it stands
/// still in the middle.
pub(super) fn runtime() -> Handle {
    RUNTIME.clone()
}

/// Begins `work` on the thread of the sessions.
pub(super) fn begin_aside(work: impl Future<Output = ()> + Send + 'static) {
    RUNTIME.spawn(work);
}

/// An administrator's session, which has a place among all tests on the server.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    /// The oid of the database that it is connected to.
    oid: String,
    /// How long each step may take.
    within: Duration,
}

impl Session {
    /// Waits for a place, at most `within`. A test with a place uses `connections` and this session.
    pub(super) async fn begin(config: Config, connections: usize, within: Duration) -> Result<Arc<Self>, SetupError> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let begun = Instant::now();
        let mut seen = "other tests of this process were first".to_owned();
        let waiting = async {
            let _turn = TURN.lock().await;
            loop {
                if let Some(session) = Self::enter(&config, connections, within, &mut seen).await? {
                    return Ok(session);
                }
                sleep(AWAY.mul_f64(1.0 + fastrand::f64())).await;
            }
        };
        let found = timeout(within, waiting).await;
        let session: Self = found.unwrap_or_else(|_| Err(SetupError::no_place(begun.elapsed(), seen)))?;
        // The next test drops what is left after that.
        let _ = timeout(within, session.sweep_once()).await;
        Ok(Arc::new(session))
    }

    /// Waits at the door for a place. Returns `None` if there is no seat to wait on. `seen` becomes what it waits for.
    async fn enter(
        config: &Config,
        connections: usize,
        within: Duration,
        seen: &mut String,
    ) -> Result<Option<Self>, SetupError> {
        let (client, connection) = match config.connect(NoTls).await {
            Ok(connected) => connected,
            Err(error) => {
                let error = ConnectError::handshake("the server for test databases", error, false);
                *seen = error.to_string();
                return if error.is_full() { Ok(None) } else { Err(SetupError::connect(error)) };
            }
        };
        tokio::spawn(connection);
        let mut session = Self { client, oid: String::new(), within };
        let oid = "SELECT oid FROM pg_database WHERE datname = current_database()";
        session.oid = session.first(oid, "read the oid of the database").await?.unwrap_or_default();
        let usable = session.usable_connections().await? as f64;
        let share = |of: f64, each: usize| ((usable * of) as usize / each).max(1);
        let (places, seats) = (share(SHARE, connections + 1), share(WAITING, 1));
        if !session.take(DOOR, 1).await? {
            *seen = format!("all {places} places on the server are taken, and other tests were first");
            if !session.take(SEAT, seats).await? {
                return Ok(None);
            }
            session.wait_for(&format!("SELECT pg_advisory_lock({DOOR}, 1)"), "wait for a place").await?;
        }
        *seen = format!("all {places} places on the server are taken");
        while !session.take(PLACE, places).await? {
            sleep(LOOK).await;
        }
        session.run(&leave(SEAT, seats), "leave a seat").await?;
        session.run(&leave(DOOR, 1), "leave the door").await?;
        Ok(Some(session))
    }

    /// Takes one of so many locks, unless others have all of them.
    async fn take(&self, lock: i32, of: usize) -> Result<bool, SetupError> {
        let sql = format!("SELECT n FROM generate_series(1, {of}) AS n WHERE pg_try_advisory_lock({lock}, n) LIMIT 1");
        Ok(self.first(&sql, "take a place").await?.is_some())
    }

    /// How many connections the server accepts from roles without special rights.
    async fn usable_connections(&self) -> Result<u32, SetupError> {
        let sql =
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0)";
        let usable = self.first(sql, "read max_connections").await?;
        Ok(usable.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Drops databases whose tests are dead: their locks are free. Only the first session of a process does it.
    async fn sweep_once(&self) {
        static DONE: AtomicBool = AtomicBool::new(false);
        if DONE.swap(true, Relaxed) {
            return;
        }
        let ours = format!("^{}[0-9a-f]{{16}}$", self.prefix(TEST));
        let sql = format!(
            "WITH known AS MATERIALIZED (SELECT datname FROM pg_database WHERE datname ~ '{ours}')
            SELECT datname FROM known WHERE pg_try_advisory_lock({IN_USE}, hashtext(datname)) LIMIT {MOST_LEFTOVERS}"
        );
        for left in self.all(&sql, "look for leftovers").await.unwrap_or_default() {
            // Another role may own it.
            let _ = self.drop_database(&left).await;
            let unlock = format!("SELECT pg_advisory_unlock({IN_USE}, hashtext('{left}'))");
            let _ = self.run(&unlock, "unlock").await;
        }
    }

    /// Returns the database in which the caller has to make the template, or `None` if there is the template already.
    /// Then no other session makes it until this one calls [`finish_template`](Self::finish_template) or ends.
    pub(super) async fn begin_template(&self, template: &str, within: Duration) -> Result<Option<String>, SetupError> {
        if self.has_database(template).await? {
            return Ok(None);
        }
        let begun = Instant::now();
        let lock = format!("SELECT pg_advisory_lock({TEMPLATE}, hashtext('{template}'))");
        match timeout(within, self.wait_for(&lock, "wait for the template")).await {
            Ok(locked) => locked?,
            Err(_) => return Err(SetupError::no_template(begun.elapsed(), template)),
        }
        if self.has_database(template).await? {
            self.end_template(template).await?;
            return Ok(None);
        }
        let making = format!("{template}_making");
        self.drop_database(&making).await?;
        self.run(&format!("CREATE DATABASE {making}"), "create the template").await?;
        Ok(Some(making))
    }

    /// The migrations have run in `making`. Makes it the template.
    pub(super) async fn finish_template(&self, template: &str, making: &str) -> Result<(), SetupError> {
        self.drop_old_templates().await;
        let made = self.first("SELECT now()", "read the time").await?.unwrap_or_default();
        // A template that somebody is connected to cannot be copied.
        let step = "finish the template";
        self.run(&format!("ALTER DATABASE {making} ALLOW_CONNECTIONS false"), step).await?;
        // The role may not terminate the sessions of others. The server itself ends an autovacuum that is in the way,
        // and waits some seconds for everybody else.
        let terminate = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = '{making}' AND usename = current_user AND backend_type = 'client backend'"
        );
        let _ = self.run(&terminate, step).await;
        for sql in [
            format!("COMMENT ON DATABASE {making} IS '{made}'"),
            format!("ALTER DATABASE {making} RENAME TO {template}"),
        ] {
            self.run(&sql, step).await?;
        }
        self.end_template(template).await
    }

    async fn end_template(&self, template: &str) -> Result<(), SetupError> {
        self.run(&format!("SELECT pg_advisory_unlock({TEMPLATE}, hashtext('{template}'))"), "unlock").await
    }

    /// Drops templates that were made a month ago. If one is still needed, the next test makes it again.
    async fn drop_old_templates(&self) {
        let ours = format!("^{}[0-9a-f]{{16}}$", self.prefix(TEMPLATES));
        // CASE, because the comments of other databases may be of any text.
        let sql = format!(
            "SELECT datname FROM pg_database WHERE CASE WHEN datname ~ '{ours}'
            THEN shobj_description(oid, 'pg_database')::timestamptz < now() - interval '30 days' END"
        );
        for old in self.all(&sql, "look for old templates").await.unwrap_or_default() {
            let _ = self.drop_database(&old).await;
        }
    }

    /// Creates the database of a test, which stays in use until this session ends.
    pub(super) async fn create_database(&self, name: &str, template: &str) -> Result<(), SetupError> {
        self.run(&format!("SELECT pg_advisory_lock({IN_USE}, hashtext('{name}'))"), "lock the database").await?;
        self.run(&format!("CREATE DATABASE {name} TEMPLATE {template}"), "create the database").await
    }

    pub(super) async fn drop_database(&self, name: &str) -> Result<(), SetupError> {
        self.run(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), "drop a database").await
    }

    async fn has_database(&self, name: &str) -> Result<bool, SetupError> {
        let sql = format!("SELECT 1 FROM pg_database WHERE datname = '{name}'");
        Ok(self.first(&sql, "look for the template").await?.is_some())
    }

    /// The name of the template for this version of the migrations.
    pub(super) fn template(&self, version: u64) -> String {
        format!("{}{version:016x}", self.prefix(TEMPLATES))
    }

    /// A new name for the database of a test.
    pub(super) fn new_name(&self) -> String {
        format!("{}{:016x}", self.prefix(TEST), fastrand::u64(..))
    }

    fn prefix(&self, kind: &str) -> String {
        format!("failfast_{kind}_{}_", self.oid)
    }

    async fn run(&self, sql: &str, step: &'static str) -> Result<(), SetupError> {
        self.bounded(step, self.client.batch_execute(sql)).await
    }

    /// As [`run`](Self::run), for the turn of others. The caller bounds it.
    async fn wait_for(&self, sql: &str, step: &'static str) -> Result<(), SetupError> {
        self.client.batch_execute(sql).await.map_err(|error| SetupError::server(step, error))
    }

    async fn bounded<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SetupError> {
        match timeout(self.within, work).await {
            Ok(done) => done.map_err(|error| SetupError::server(step, error)),
            Err(_) => Err(SetupError::too_slow(step, self.within)),
        }
    }

    /// The first column of the first row.
    async fn first(&self, sql: &str, step: &'static str) -> Result<Option<String>, SetupError> {
        Ok(self.all(sql, step).await?.into_iter().next())
    }

    /// The first column.
    async fn all(&self, sql: &str, step: &'static str) -> Result<Vec<String>, SetupError> {
        let answers = self.bounded(step, self.client.simple_query(sql)).await?;
        let column = answers.iter().filter_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(column.collect())
    }
}

/// Gives back whichever of so many locks this session has.
fn leave(lock: i32, of: usize) -> String {
    format!(
        "SELECT pg_advisory_unlock({lock}, objid::int) FROM pg_locks WHERE locktype = 'advisory'
        AND pid = pg_backend_pid() AND classid::bigint = {lock} AND objid::bigint <= {of} AND granted"
    )
}
