//! A database for each test, copied from a template in which the migrations have run once.

use std::env;
use std::error::Error as StdError;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio_postgres::Config;

use super::server::{Session, aside, begin_aside, runtime};
use super::setup_error::SetupError;
use crate::builder::PoolBuilder;
use crate::holder::{Holder, HolderState};
use crate::operation::Operation;
use crate::pool::Pool;

/// How long `Drop` waits for the end of the database. A database that is left is dropped by the next run.
const LONGEST_DROP: Duration = Duration::from_secs(5);

/// The timeouts of the pools, unless the test sets its own.
const UNHURRIED: Duration = Duration::from_secs(60);

/// A database of one test's own, with a small pool on it. Feature `testing`.
///
/// The first test on a server runs the migrations, in a template. Each test gets a copy of the template. All processes
/// share the template, also those of cargo-nextest. A change of the migrations makes another template.
///
/// Dropping the value drops the database, also after a panic. It then panics if a connection of the pool was not given
/// back, and says where it was taken, unless the test panics already. The database of a killed process is dropped by
/// the next process that needs one.
///
/// Not more tests run at a time than the server has connections for. The others wait.
///
/// ```no_run
/// use failfast::testing::TestDatabase;
/// use failfast::{Error, Pool};
///
/// const SCHEMA: &str = "CREATE TABLE items (id bigint PRIMARY KEY, stock bigint NOT NULL)";
///
/// async fn database() -> TestDatabase {
///     TestDatabase::builder(SCHEMA).create(async |pool: Pool| pool.batch_execute(SCHEMA).await).await.unwrap()
/// }
///
/// // #[tokio::test]
/// async fn an_item_is_added() -> Result<(), Error> {
///     let database = database().await;
///     let pool = database.pool();
///     pool.execute("INSERT INTO items VALUES (1, 10)", &[]).await?;
///     assert_eq!(pool.query_one("SELECT count(*) FROM items", &[]).await?.get::<_, i64>(0), 1);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it drops the database"]
pub struct TestDatabase {
    pool: Pool,
    config: Config,
    name: String,
    session: Arc<Session>,
}

/// The settings of a [`TestDatabase`].
#[must_use = "a builder does nothing until create() is awaited"]
pub struct TestDatabaseBuilder {
    version: u64,
    server: Option<Config>,
    max_size: usize,
    wait: Duration,
    settings: Box<dyn FnOnce(PoolBuilder) -> PoolBuilder + Send>,
}

impl TestDatabase {
    /// Begins a test database. `version` is the text of the migrations, or whatever else changes when they change.
    /// Tests with the same `version` share a template.
    pub fn builder(version: impl AsRef<str>) -> TestDatabaseBuilder {
        TestDatabaseBuilder {
            version: fnv(version.as_ref()),
            server: None,
            max_size: 2,
            wait: Duration::from_secs(300),
            settings: Box::new(|builder| builder),
        }
    }

    /// The pool on this database.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The connection settings of this database, for a pool of the test's own, or for a service in another process.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The name of this database on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits at most `within` until all connections have been given back, and drops the database. Use it if the test
    /// has begun tasks that are about to end.
    ///
    /// # Panics
    ///
    /// If a connection was not given back, as the drop does.
    pub async fn close(self, within: Duration) {
        self.pool.drain(within).await;
    }
}

impl TestDatabaseBuilder {
    /// Sets the server, a role that may create databases, and the database to which the tests of a project connect, all
    /// to the same one and without TLS. Tests that connect to another database have templates and databases of their
    /// own, and leave these alone. Default: the connection string in `DATABASE_URL`.
    pub fn server(mut self, config: Config) -> Self {
        self.server = Some(config);
        self
    }

    /// Sets the size of the pool. Smaller pools let more tests run at a time. Default: 2.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Sets how long the test waits for its turn, for a template that another test makes, and for each answer of the
    /// server while its database is made. Default: 5 min.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Changes the settings of the pool. Not its size: see [`max_size`](Self::max_size).
    ///
    /// Default: those of [`PoolBuilder`], and 60 s for `acquire_timeout`, `connect_timeout` and `query_timeout`. Tests
    /// often keep a machine busy.
    pub fn pool(mut self, settings: impl FnOnce(PoolBuilder) -> PoolBuilder + Send + 'static) -> Self {
        self.settings = Box::new(settings);
        self
    }

    /// Creates the database. If the template does not exist, `migrate` runs first, with a pool on it.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if there is no server, the role may not create databases, `migrate` fails, the test does not get
    /// its turn in time, or the server does not answer in time.
    pub async fn create<E>(self, migrate: impl AsyncFnOnce(Pool) -> Result<(), E>) -> Result<TestDatabase, SetupError>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let server = match self.server {
            Some(config) => config,
            None => env::var("DATABASE_URL").map_err(|_| SetupError::no_server())?.parse().map_err(SetupError::url)?,
        };
        let (max_size, wait) = (self.max_size, self.wait);
        let session = aside(Session::begin(server.clone(), max_size, wait)).await?;
        let template = session.template(self.version);
        let pool_of = |name: &str| {
            let mut config = server.clone();
            config.dbname(name);
            let builder = Pool::builder(config.clone()).name(name).max_size(max_size).runtime(runtime());
            // A cold start on a busy machine is no failure.
            (builder.acquire_timeout(UNHURRIED).connect_timeout(UNHURRIED).query_timeout(UNHURRIED), config)
        };

        let making = {
            let (session, template) = (Arc::clone(&session), template.clone());
            aside(async move { session.begin_template(&template, wait).await }).await?
        };
        if let Some(making) = making {
            let pool = pool_of(&making).0.build().map_err(SetupError::config)?;
            migrate(pool.clone()).await.map_err(|error| SetupError::migration(error.into()))?;
            pool.close();
            let (session, template) = (Arc::clone(&session), template.clone());
            aside(async move { session.finish_template(&template, &making).await }).await?;
        }

        let name = session.new_name();
        let (builder, config) = pool_of(&name);
        let created = {
            let (session, name) = (Arc::clone(&session), name.clone());
            aside(async move { session.create_database(&name, &template).await }).await
        };
        created?;
        match (self.settings)(builder).build() {
            Ok(pool) => Ok(TestDatabase { pool, config, name, session }),
            Err(error) => {
                let _ = aside(async move { session.drop_database(&name).await }).await;
                Err(SetupError::config(error))
            }
        }
    }
}

impl std::fmt::Debug for TestDatabaseBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestDatabaseBuilder").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let held = held(&self.pool);
        self.pool.close();
        let (session, name) = (Arc::clone(&self.session), self.name.clone());
        let (done, is_done) = mpsc::channel();
        begin_aside(async move {
            let _ = session.drop_database(&name).await;
            let _ = done.send(());
        });
        let _ = is_done.recv_timeout(LONGEST_DROP);
        if !held.is_empty() && !thread::panicking() {
            panic!("connections were not given back at the end of the test: {}", held.join(", "));
        }
    }
}

/// Which connections callers hold, and where they took them.
fn held(pool: &Pool) -> Vec<String> {
    let place = |holder: &Holder| {
        let (operation, taken) = (holder.operation, Operation::At(holder.taken));
        if operation == taken { format!("{taken}") } else { format!("{operation} ({taken})") }
    };
    let holders = pool.holders();
    holders.iter().filter(|holder| holder.state != HolderState::Settling).map(place).collect()
}

/// FNV-1a, which is the same in every process and version.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
