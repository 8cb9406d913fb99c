//! Several servers of one database: the primary for writes, and replicas for reads that say how fresh their data must
//! be.
//!
//! A cluster is a list of hosts, a [`Pool`](crate::Pool) for each of them, and a choice of the host for each call.
//! Pools know nothing of the cluster. The parts, from the server to the caller:
//!
//! - `scout` asks each host for its role, once a second.
//! - `state` concludes from the answers which host is the primary, and which data each replica has. `board` shares it.
//! - `core` chooses the host of a call.
//! - `call` passes the call on to the pool of that host.
//!
//! The rules are in `policy/cluster`, as pure code.

mod board;
mod builder;
mod bulk;
mod call;
mod core;
mod failure;
mod freshness;
mod host;
mod listen;
mod one_host;
mod order;
#[cfg(feature = "testing")]
mod pretended;
mod readiness;
#[cfg(feature = "admin")]
mod report;
mod scout;
mod state;
mod status;

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

pub use self::builder::ClusterBuilder;
pub use self::call::{ClusterCall, ClusterDdl, ClusterFallback};
use self::core::Core;
pub use self::freshness::{After, Freshness};
pub use self::order::ClusterOrder;
#[cfg(feature = "admin")]
pub use self::report::{ClusterReport, HostReport};
pub use self::status::{HostStatus, Role};
use crate::clock::now;
use crate::conn::{Client, RowStream, Transaction};
use crate::error::Error;
use crate::holder::Holder;
use crate::policy::{Lane, Position};
use crate::pool::Pool;
#[cfg(feature = "testing")]
use crate::pretend::Moment;
use crate::telemetry::Events;

/// Several PostgreSQL servers of one database: a primary, and replicas that stream from it.
///
/// The query methods run on the primary, as those of a [`Pool`]. [`call`](Self::call) has everything else. Cloning is
/// cheap, and all clones are one cluster. When the last clone is dropped, the cluster stops asking its hosts.
///
/// - **The cluster asks each host for its role.** The primary is the host that is not in recovery, on the highest
///   timeline that this process has seen. A host on a lower timeline gets no call of the primary. While two hosts
///   accept writes on one timeline, neither gets one.
/// - **A read goes to the primary, unless the caller says otherwise** by [`ClusterCall::read`] or
///   [`ClusterCall::after`].
/// - **Lag is an upper bound**, by the clock of this process: see [`Freshness`].
///
/// A client cannot fence a writer that reaches only the old primary. In a network partition, a process on the other
/// side may still write there.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use failfast::{Cluster, Freshness};
///
/// let config = "postgres://app@db1,db2,db3/orders".parse()?;
/// let cluster = Cluster::builder(config).pool(|builder| builder.name("orders").max_size(20)).build()?;
/// cluster.execute("UPDATE items SET stock = stock - 1 WHERE id = 1", &[]).await?;
/// let call = cluster.call().read(Freshness::Within(Duration::from_secs(2)));
/// let items = call.query("SELECT name, stock FROM items", &[]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cluster {
    core: Arc<Core>,
    _scouts: Arc<Scouts>,
}

/// Ends the scouts when the last handle of the cluster is dropped.
#[derive(Debug)]
struct Scouts(Arc<Core>);

impl Drop for Scouts {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Cluster {
    fn new(core: Core) -> Self {
        let core = Arc::new(core);
        core.start();
        Self { _scouts: Arc::new(Scouts(Arc::clone(&core))), core }
    }

    /// Begins a call with settings of its own.
    #[track_caller]
    pub fn call(&self) -> ClusterCall<'_> {
        ClusterCall::new(&self.core, Location::caller())
    }

    /// Starts a call in a lane: `cluster.lane(Lane::Critical).get()`. As [`call`](Self::call) and
    /// [`ClusterCall::lane`].
    #[track_caller]
    pub fn lane(&self, lane: Lane) -> ClusterCall<'_> {
        self.call().lane(lane)
    }

    /// Makes a change of the schema at the primary: see [`Pool::ddl`].
    #[track_caller]
    pub fn ddl(&self) -> ClusterDdl<'_> {
        self.call().ddl()
    }

    /// Returns the pool of the host that is the primary now. That pool does not follow a failover, so ask for it again
    /// for each piece of work.
    ///
    /// # Errors
    ///
    /// - [`Error::NoPrimary`] if no host is known to accept writes, also before the first answer of a host: see
    ///   [`warm_up`](Self::warm_up).
    /// - [`Error::TwoPrimaries`] while two hosts accept writes.
    /// - [`Error::TwoSystems`] if hosts belong to different database systems.
    pub fn primary(&self) -> Result<&Pool, Error> {
        self.core.start();
        #[cfg(feature = "testing")]
        self.core.pretended(Moment::Primary, None)?;
        self.core.primary().map(|host| &self.core.hosts[host].pool)
    }

    /// Returns what the cluster knows of each host, in the order in which the hosts were given.
    ///
    /// ```no_run
    /// # fn example(cluster: failfast::Cluster) {
    /// for host in cluster.hosts() {
    ///     println!("{host}"); // db2:5432: replica, timeline 3, at most 1.1 s behind; pool orders@db2:5432: ...
    /// }
    /// # }
    /// ```
    pub fn hosts(&self) -> Vec<HostStatus> {
        let now = now();
        let one = |(index, host): (usize, &host::Host)| {
            let report = self.core.board.state().report(now, index);
            let role = match report.sighting {
                None => Role::Unknown,
                Some(sighting) if sighting.is_in_recovery => Role::Replica,
                Some(_) if report.is_primary => Role::Primary,
                Some(_) => Role::Fenced,
            };
            HostStatus {
                host: Arc::clone(&host.label),
                role,
                timeline: report.sighting.and_then(|sighting| sighting.timeline),
                lag: report.lag,
                is_silent: report.is_silent,
                is_balanced: report.is_balanced,
                pool: host.pool.status(),
            }
        };
        self.core.hosts.iter().enumerate().map(one).collect()
    }

    /// Iterates over the pools of the hosts, in the order in which the hosts were given.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.core.hosts.iter().map(|host| &host.pool)
    }

    /// Who holds a connection in this instant, with the host of the connection, the longest first: see
    /// [`Pool::holders`].
    pub fn holders(&self) -> Vec<(Arc<str>, Holder)> {
        let of = |host: &host::Host| {
            let label = Arc::clone(&host.label);
            host.pool.holders().into_iter().map(move |holder| (Arc::clone(&label), holder))
        };
        let mut holders: Vec<_> = self.core.hosts.iter().flat_map(of).collect();
        holders.sort_by_key(|(_, holder)| std::cmp::Reverse(holder.age));
        holders
    }

    /// Returns a stream of the events of the cluster and of the pools of its hosts, from now on: see [`Pool::events`].
    pub fn events(&self) -> Events {
        self.core.telemetry.events()
    }

    /// Takes a connection to the primary: see [`Pool::get`]. The connection does not follow a failover.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<Client, Error>> {
        self.call().get()
    }

    /// [`get`](Self::get) with a timeout of its own: see [`Pool::get_timeout`].
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> impl Future<Output = Result<Client, Error>> {
        self.call().wait(timeout).get()
    }

    /// Takes an idle connection to the primary, if there is one, and never waits: see [`Pool::try_get`].
    ///
    /// # Errors
    ///
    /// As [`Pool::try_get`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn try_get(&self) -> Result<Client, Error> {
        let taken = Location::caller();
        self.primary()?.shared.try_acquire(taken)
    }

    /// Runs on the primary: see [`Pool::query`].
    ///
    /// # Errors
    ///
    /// As [`Pool::query`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Vec<Row>, Error>> {
        self.call().query(sql, params)
    }

    /// Runs on the primary: see [`Pool::query_one`].
    ///
    /// # Errors
    ///
    /// As [`Pool::query_one`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn query_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Row, Error>> {
        self.call().query_one(sql, params)
    }

    /// Runs on the primary: see [`Pool::query_opt`].
    ///
    /// # Errors
    ///
    /// As [`Pool::query_opt`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn query_opt(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<Row>, Error>> {
        self.call().query_opt(sql, params)
    }

    /// Runs on the primary: see [`Pool::execute`].
    ///
    /// # Errors
    ///
    /// As [`Pool::execute`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<u64, Error>> {
        self.call().execute(sql, params)
    }

    /// Runs on the primary: see [`Pool::query_raw`].
    ///
    /// # Errors
    ///
    /// As [`Pool::query_raw`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn query_raw<P, I>(&self, sql: &str, params: I) -> impl Future<Output = Result<RowStream<'static>, Error>>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        self.call().query_raw(sql, params)
    }

    /// Runs on the primary: see [`Pool::query_typed`].
    ///
    /// # Errors
    ///
    /// As [`Pool::query_typed`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn query_typed(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> {
        self.call().query_typed(sql, params)
    }

    /// Runs on the primary: see [`Pool::batch_execute`].
    ///
    /// # Errors
    ///
    /// As [`Pool::batch_execute`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn batch_execute(&self, sql: &str) -> impl Future<Output = Result<(), Error>> {
        self.call().batch_execute(sql)
    }

    /// Runs on the primary: see [`Pool::simple_query`].
    ///
    /// # Errors
    ///
    /// As [`Pool::simple_query`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn simple_query(&self, sql: &str) -> impl Future<Output = Result<Vec<SimpleQueryMessage>, Error>> {
        self.call().simple_query(sql)
    }

    /// Runs on the primary: see [`Pool::transaction`].
    ///
    /// # Errors
    ///
    /// As [`Pool::transaction`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn transaction<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().transaction(work)
    }

    /// Runs on the primary: see [`Pool::transaction_once`].
    ///
    /// # Errors
    ///
    /// As [`Pool::transaction_once`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn transaction_once<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().transaction_once(work)
    }

    /// Runs on the primary: see [`Pool::run`].
    ///
    /// # Errors
    ///
    /// As [`Pool::run`] and [`primary`](Self::primary).
    #[track_caller]
    pub fn run<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().run(work)
    }

    /// As [`transaction`](Self::transaction), and returns the [`Position`] of the commit, too: see
    /// [`ClusterCall::transaction_at`].
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    #[track_caller]
    pub fn transaction_at<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<(T, Position), E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().transaction_at(work)
    }
}
