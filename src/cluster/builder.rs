//! The settings of a cluster, and how its parts are made.

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
use crate::pool::Pool;
use crate::telemetry::{ClusterMeter, Observer, Observers, Telemetry, Tracer};

type PoolSettings = Arc<dyn Fn(PoolBuilder) -> PoolBuilder + Send + Sync>;

/// The longest and the shortest interval between two looks at a host.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The shortest and the longest lag that a replica may be allowed.
const LAGS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(100));

/// The settings of a [`Cluster`]. Every one has a default.
#[derive(Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct ClusterBuilder {
    places: Vec<ConnectionString>,
    pool: PoolSettings,
    spill: f64,
    max_lag: Duration,
    look_every: Duration,
    look_timeout: Duration,
    observers: Observers,
}

impl Cluster {
    /// Begins a cluster of the hosts of one connection string: `postgres://app@db1,db2,db3/orders`. The hosts are in any
    /// order: the cluster asks each for its role. `target_session_attrs` may be left out.
    pub fn builder(config: Config) -> ClusterBuilder {
        ClusterBuilder::new(vec![config.into()])
    }

    /// Begins a cluster of several connection strings, each with one host or several. Unlike the driver's parser, it
    /// takes libpq's options for TLS: see [`Pool::builder_by_url`].
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
            look_every: Duration::from_secs(1),
            look_timeout: Duration::from_secs(1),
            observers: Observers::default(),
        }
    }

    /// Sets up the pool of each host, also those that are replicas now: they may become the primary. The name of each
    /// pool becomes that of the owner, an `@` and the host.
    ///
    /// ```
    /// # fn example(config: failfast::Config) -> failfast::ClusterBuilder {
    /// failfast::Cluster::builder(config).pool(|builder| builder.name("orders").max_size(20))
    /// # }
    /// ```
    ///
    /// Default: the defaults of [`PoolBuilder`].
    pub fn pool(mut self, settings: impl Fn(PoolBuilder) -> PoolBuilder + Send + Sync + 'static) -> Self {
        self.pool = Arc::new(settings);
        self
    }

    /// The share of the primary's connections that reads may use which no replica can serve, from 0 to 1. With more than
    /// 0, at least one connection. Further such reads fail with
    /// [`Error::NoFreshReplica`](crate::Error::NoFreshReplica). A stream, a COPY and a connection that the caller takes
    /// count until they begin. In a cluster of one host, every read goes there. Default 0.1.
    pub fn spill(mut self, share: f64) -> Self {
        self.spill = share;
        self
    }

    /// How far a replica may be behind what the primary last answered. A replica that is further behind serves no reads,
    /// not even those of [`Freshness::Any`](crate::Freshness::Any). 1 s to 100 s, because the cluster remembers two
    /// minutes. Default 30 s.
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.max_lag = lag;
        self
    }

    /// How often each host is asked for its role and its place in the log, on a connection of its own. 100 ms to 1 s.
    /// Without a primary, hosts are asked four times as often. Default 1 s.
    ///
    /// A bound of [`Freshness::Within`](crate::Freshness::Within) should be at least twice as long.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.look_every = interval;
        self
    }

    /// How long a host has to answer such a question. More than 0, at most 1 s. Default 1 s. A host that has not
    /// answered for 3 s serves no reads, and is no primary if another host claims to be.
    pub fn look_timeout(mut self, timeout: Duration) -> Self {
        self.look_timeout = timeout;
        self
    }

    /// Adds an observer, which gets each event of the cluster and of the pools of its hosts. There may be several.
    /// Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Validates every setting and creates the cluster, without TLS. It connects to no host at once: within a runtime,
    /// the first look at the hosts begins in the background, otherwise with the first call.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn build(self) -> Result<Cluster, ConfigError> {
        self.finish(PoolBuilder::build)
    }

    /// As [`build`](Self::build), with TLS: see [`PoolBuilder::build_tls`].
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
            return Err(ConfigError::new("spill", self.spill, "must be 0 to 1"));
        }
        if !(LAGS.0..=LAGS.1).contains(&self.max_lag) {
            return Err(ConfigError::new("max_lag", format!("{:?}", self.max_lag), "must be 1 s to 100 s"));
        }
        if !(LOOKS.0..=LOOKS.1).contains(&self.look_every) {
            return Err(ConfigError::new("look_every", format!("{:?}", self.look_every), "must be 100 ms to 1 s"));
        }
        if self.look_timeout.is_zero() || self.look_timeout > LOOKS.1 {
            let problem = "must be more than 0 and at most 1 s";
            return Err(ConfigError::new("look_timeout", format!("{:?}", self.look_timeout), problem));
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
        let board = Arc::new(Board::new(now(), &labels, self.max_lag));
        let mut hosts = Vec::new();
        for (number, OneHost { label, place }) in places.into_iter().enumerate() {
            let (board, telemetry) = (Arc::clone(&board), Arc::clone(&telemetry));
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
                });
            hosts.push(Host::new(label, build(builder)?));
        }
        let (spill, max_lag) = (self.spill, self.max_lag);
        let settings = Settings { look_every: self.look_every, look_timeout: self.look_timeout, spill, max_lag };
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
            .field("look_every", &self.look_every)
            .field("look_timeout", &self.look_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
