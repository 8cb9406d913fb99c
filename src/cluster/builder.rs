//! The settings of a cluster, and how `build` makes its parts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::Cluster;
use super::board::Board;
use super::core::{Core, Settings};
use super::host::Host;
use super::one_host::{OneHost, apart};
use crate::builder::PoolBuilder;
use crate::clock::now;
use crate::conn::Socket;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
use crate::event::{Event, EventKind};
use crate::policy::Looks;
use crate::pool::Pool;
use crate::telemetry::{ClusterMeter, Observer, Observers, Telemetry, Tracer};

type PoolSettings = Arc<dyn Fn(PoolBuilder) -> PoolBuilder + Send + Sync>;

/// The longest and the shortest interval between two looks at a host.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The shortest and the longest lag that a replica may be allowed.
const LAGS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(100));

/// The settings of a [`Cluster`]. Each of them has a default.
#[derive(Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct ClusterBuilder {
    places: Vec<ConnectionString>,
    pool: PoolSettings,
    spill: f64,
    max_lag: Duration,
    looks: Looks,
    observers: Observers,
    #[cfg(feature = "testing")]
    has_no_servers: bool,
}

impl Cluster {
    /// Begins a cluster of the hosts of one connection string, such as `postgres://app@db1,db2,db3/orders`, in any
    /// order. The other options of the string hold for each host. Leave `target_session_attrs` out: the cluster asks
    /// each host for its role.
    pub fn builder(config: Config) -> ClusterBuilder {
        ClusterBuilder::new(vec![config.into()])
    }

    /// Begins a cluster of several connection strings, each with one host or several. Each may have its own user,
    /// password and TLS options. All of them have to name the same database. Unlike the driver's parser, it takes
    /// libpq's options for TLS: see [`Pool::builder_by_url`].
    ///
    /// ```
    /// # fn main() -> Result<(), failfast::ConfigError> {
    /// let builder = failfast::Cluster::builder_by_urls(["postgres://app@db1/orders", "postgres://app@db2/orders"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] that names the option, as [`Pool::builder_by_url`].
    pub fn builder_by_urls<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<ClusterBuilder, ConfigError> {
        let places: Result<Vec<ConnectionString>, _> = urls.into_iter().map(str::parse).collect();
        places.map(ClusterBuilder::new)
    }
}

impl ClusterBuilder {
    fn new(places: Vec<ConnectionString>) -> Self {
        Self {
            places,
            pool: Arc::new(|builder| builder),
            spill: 0.1,
            max_lag: Duration::from_secs(30),
            looks: Looks::default(),
            observers: Observers::default(),
            #[cfg(feature = "testing")]
            has_no_servers: false,
        }
    }

    /// Begins a cluster of hosts that do not exist. The first one answers that it is the primary, and all others that
    /// they are its replicas.
    #[cfg(feature = "testing")]
    pub(crate) fn without_servers(config: Config) -> Self {
        Self { has_no_servers: true, ..Self::new(vec![config.into()]) }
    }

    /// Begins a cluster of the hosts of one connection string, which may have libpq's options for TLS.
    #[cfg(feature = "serde")]
    pub(crate) fn of(place: ConnectionString) -> Self {
        Self::new(vec![place])
    }

    /// Sets up the pool of each host. Replicas get the same settings, because each may become the primary. The name of
    /// a pool is the name that `settings` gives it, an `@` and the host: `orders@db1:5432`.
    ///
    /// The cluster calls `settings` once for each host, and once more for the name. It has to return the same settings
    /// each time.
    ///
    /// ```
    /// # fn example(config: failfast::Config) -> failfast::ClusterBuilder {
    /// failfast::Cluster::builder(config).pool(|builder| builder.name("orders").max_size(20))
    /// # }
    /// ```
    ///
    /// If it is called again, the later settings are made after the earlier ones.
    ///
    /// Default: the defaults of [`PoolBuilder`].
    pub fn pool(mut self, settings: impl Fn(PoolBuilder) -> PoolBuilder + Send + Sync + 'static) -> Self {
        let before = self.pool;
        self.pool = Arc::new(move |builder| settings(before(builder)));
        self
    }

    /// Sets the spill budget: the share of the primary's connections that reads may use if no replica can serve them.
    /// From 0 to 1; above 0 it is at least one connection. Default 0.1.
    ///
    /// Further reads fail with [`Error::NoFreshReplica`](crate::Error::NoFreshReplica). A stream, a COPY and a
    /// connection from [`get`](crate::ClusterCall::get) count until they begin. A cluster of one host has no budget:
    /// every read goes there.
    pub fn spill(mut self, share: f64) -> Self {
        self.spill = share;
        self
    }

    /// Sets how far a replica may be behind the primary's last answer and still serve reads of
    /// [`Freshness::Any`](crate::Freshness::Any). 1 s to 100 s, because the cluster remembers two minutes. Default 30
    /// s.
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.max_lag = lag;
        self
    }

    /// Sets how often the cluster asks each host for its role and its place in the log, on a connection of its own. 100
    /// ms to 1 s. Default 1 s. Without a primary, it asks four times as often.
    ///
    /// A bound of [`Freshness::Within`](crate::Freshness::Within) should be at least twice as long.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.looks.every = interval;
        self
    }

    /// Sets how long a host may take to answer that question. More than 0, at most 1 s. Default 1 s.
    ///
    /// A host is silent if it has not answered for three times the longer of this and
    /// [`look_every`](Self::look_every): 3 s by default. It then serves no reads. It remains the primary only while no
    /// other host claims to be.
    pub fn look_timeout(mut self, timeout: Duration) -> Self {
        self.looks.timeout = timeout;
        self
    }

    /// Adds an observer. It gets each event of the cluster and of the pools of its hosts. There may be several.
    /// Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Validates every setting and creates the cluster, without TLS. It does not wait for a host. Within a runtime, it
    /// begins to ask the hosts in the background. Otherwise it begins with the first call.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn build(self) -> Result<Cluster, ConfigError> {
        self.finish(PoolBuilder::build)
    }

    /// As [`build`](Self::build), with TLS: see [`PoolBuilder::build_tls`]. Each host gets a clone of the connector.
    /// The connectors of the module `tls` follow the TLS options of each host's own connection string.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn build_tls<T>(self, tls: T) -> Result<Cluster, ConfigError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.finish(|builder| builder.build_tls(tls.clone()))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.spill) {
            return Err(ConfigError::new("cluster.spill", self.spill, "must be 0 to 1"));
        }
        if !(LAGS.0..=LAGS.1).contains(&self.max_lag) {
            return Err(ConfigError::new("cluster.max_lag", format!("{:?}", self.max_lag), "must be 1 s to 100 s"));
        }
        if !(LOOKS.0..=LOOKS.1).contains(&self.looks.every) {
            return Err(ConfigError::new(
                "cluster.look_every",
                format!("{:?}", self.looks.every),
                "must be 100 ms to 1 s",
            ));
        }
        if self.looks.timeout.is_zero() || self.looks.timeout > LOOKS.1 {
            let problem = "must be more than 0 and at most 1 s";
            return Err(ConfigError::new("cluster.look_timeout", format!("{:?}", self.looks.timeout), problem));
        }
        Ok(())
    }

    fn finish(self, build: impl Fn(PoolBuilder) -> Result<Pool, ConfigError>) -> Result<Cluster, ConfigError> {
        self.check()?;
        let mut places = Vec::new();
        for place in &self.places {
            place.check()?;
            places.extend(apart(place)?);
        }
        let Some(first) = places.first() else {
            return Err(ConfigError::new("host", "(none)", "a host or a hostaddr is needed"));
        };
        let sample = (self.pool)(PoolBuilder::new(first.place.clone()));
        let (name, recorder, runtime) = sample.owners();
        let name: Arc<str> = name.into();
        let log = Tracer::new(&name, &first.place.driver).log();
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&name), self.observers));
        let labels: Vec<_> = places.iter().map(|place| Arc::clone(&place.label)).collect();
        let board = Arc::new(Board::new(now(), &labels, self.looks, self.max_lag));
        let mut hosts = Vec::new();
        for (number, OneHost { label, place }) in places.into_iter().enumerate() {
            let (asking, board, telemetry) = (Arc::clone(&board), Arc::clone(&board), Arc::clone(&telemetry));
            let builder = (self.pool)(PoolBuilder::new(place))
                .of_host(&label, number)
                .observer(move |event: &Event| {
                    // A pool that finds its host writable again is no change of the primary.
                    if !matches!(event.kind, EventKind::PrimaryChanged { .. }) {
                        telemetry.pass_on(event);
                    }
                })
                .first_after_connect(move |client| {
                    let board = Arc::clone(&board);
                    Box::pin(async move {
                        board.on_connected(number, client).await;
                        Ok(())
                    })
                })
                .before_use(move || {
                    let board = Arc::clone(&asking);
                    async move { board.until_known(number).await }
                });
            hosts.push(Host::new(label, build(builder)?));
        }
        let settings = Settings {
            #[cfg(feature = "admin")]
            name: Arc::clone(&name),
            looks: self.looks,
            spill: self.spill,
            max_lag: self.max_lag,
            #[cfg(feature = "testing")]
            has_no_servers: self.has_no_servers,
        };
        let meter = ClusterMeter::new(Arc::clone(&name), recorder);
        let mut own = Observers::default();
        own.extend(log);
        own.extend(meter.observer());
        let core = Core::new(hosts, board, settings, telemetry, Telemetry::new(name, own), meter, runtime);
        Ok(Cluster::new(core))
    }
}

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder")
            .field("places", &self.places)
            .field("spill", &self.spill)
            .field("max_lag", &self.max_lag)
            .field("look_every", &self.looks.every)
            .field("look_timeout", &self.looks.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::state::Answer;
    use crate::policy::{Lsn, Need, Sighting};

    /// The replica is nine seconds behind.
    #[test]
    fn the_owners_bound_of_lag_rules_reads_of_any_freshness() {
        let serves = |builder: ClusterBuilder| {
            let cluster = builder.build().unwrap();
            let (mut at, mut state) = (now(), cluster.core.board.state());
            for second in 1..=10 {
                at += Duration::from_secs(1);
                for (host, place) in [(0, second * 100), (1, 100)] {
                    let (is_in_recovery, started) = (host == 1, host as i64);
                    let sighting = Sighting { at, is_in_recovery, timeline: Some(1), system: Some(7), started };
                    state.on_answer(at, host, at, Answer { sighting, place: Some(Lsn(place)) }, true);
                }
            }
            state.has(at, 1, Need::Any)
        };
        let builder = || Cluster::builder("host=a,b".parse().unwrap());
        assert!(serves(builder()), "30 s by default");
        assert!(!serves(builder().max_lag(Duration::from_secs(8))));
    }

    #[test]
    fn later_settings_of_the_pools_are_made_after_earlier_ones() {
        let builder = Cluster::builder("host=a,b".parse().unwrap()).pool(|pool| pool.name("orders").max_size(3));
        let cluster = builder.pool(|pool| pool.max_size(7)).build().unwrap();
        let pools: Vec<_> = cluster.pools().map(|pool| pool.status()).collect();
        assert_eq!(
            pools.iter().map(|pool| (&*pool.name, pool.max_size)).collect::<Vec<_>>(),
            [("orders@a:5432", 7), ("orders@b:5432", 7)]
        );
    }

    #[test]
    fn a_lag_that_cannot_be_measured_is_refused() {
        let builder = || Cluster::builder("host=a,b".parse().unwrap());
        for millis in [0, 999, 100_001] {
            let error = builder().max_lag(Duration::from_millis(millis)).build().unwrap_err().to_string();
            assert!(error.contains("max_lag") && error.contains("1 s to 100 s"), "{error}");
        }
        for seconds in [1, 100] {
            builder().max_lag(Duration::from_secs(seconds)).build().unwrap();
        }
    }
}
