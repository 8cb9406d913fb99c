//! A pool's settings as plain data: from a file in any format that serde reads, from the environment, or from both.
//! Feature `serde`.
//!
//! This file has the one list of keys. It checks that each key exists and that each value is of its kind. Whether a
//! value is in its range, the builder checks (`src/builder/check.rs`).

mod apply;
mod env;
mod field;
mod keys;
mod table;
mod tree;

use std::time::Duration;

use tokio_postgres::Config;

pub use self::field::Expiry;
use self::table::table;
use crate::breaker::BreakerConfig;
use crate::builder::PoolBuilder;
#[cfg(feature = "cluster")]
use crate::cluster::ClusterBuilder;
use crate::conn::{Reset, ServerTimeouts};
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
use crate::policy::{Adaptive, Lane, LaneLimits, Shedding};
use crate::rates::Rate;
use crate::retry::RetryConfig;

table! {
    /// The settings of a [`PoolBuilder`] as plain data, read from a file or from the environment. A setting that is
    /// `None` keeps the builder's default.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let text = r#"
    ///     url = "postgres://app@localhost/orders"
    ///     max_size = 20
    ///     acquire_timeout = "500ms"
    ///     idle_timeout = "never"
    ///     max_lifetime = "30 min"
    ///
    ///     [breaker]
    ///     error_threshold_percentage = 40
    ///     slow_call = { longer_than = "2s", percentage = 80 }
    ///
    ///     [retry]
    ///     max_attempts = 4
    /// "#;
    /// let file: failfast::Settings = toml::from_str(text)?;
    /// let mut settings = file.overridden_by(failfast::Settings::from_env("ORDERS_DB")?); // ORDERS_DB_MAX_SIZE=40
    /// settings.name = Some("orders".to_owned());
    /// let pool = settings.builder_by_url()?.build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The keys are the names of the builder's setters. The table `breaker` has those of [`BreakerConfig`], `retry`
    /// those of [`RetryConfig`], `server_timeouts` those of [`ServerTimeouts`]. A setter that takes two values is a
    /// table, too: `long_running = { statements = 5, than = "10s" }`, `breaker.slow_call` and
    /// `breaker.reset_timeout_growth`. The table `rate` has a table for each lane, such as `rate.background`, with the
    /// keys of [`Rate`], and `rate_of` has one for each operation, by its name: `rate_of.report.calls = 10`. In the
    /// same way `lane_limits` has a table for each lane, with the keys of [`LaneLimits`], and `lane_of` a lane for each
    /// operation: `lane_of.report = "background"`. Code is no data: set observers, credentials and hooks on the
    /// builder. `docs/settings.md` lists all keys with their defaults and ranges.
    ///
    /// - A duration is a text with its unit: `"250ms"`, `"5s"`, `"30 min"`, `"1h 30m"`. `"never"` stands for no
    ///   duration where the setter takes `None`.
    /// - `shedding` is `"predictive"`, `"queue_only"` or `"off"`; `reset` is `"never"`, `"when_seen"` or `"always"`.
    /// - An error names an unknown key in full, such as `retry.max_atempts`, and the key of a value of the wrong kind.
    ///   Whether a value is in its range, the builder checks.
    /// - `null` means that the key is not given.
    /// - The format must describe itself, as TOML, JSON and YAML do. bincode does not.
    ///
    /// Neither `Debug` nor an error of these settings shows the password in `url`, so an error about `url` comes
    /// without its line. A format may quote a line that it cannot read, or the line of another error. If a file has
    /// passwords, print no more than the message (`toml::de::Error::message`). Serialized settings have no `url`.
    Settings of PoolBuilder;
    by_hand {
        /// Where the database is: a URL or a connection string. Used by [`builder_by_url`](Self::builder_by_url) only.
        /// With libpq's options for TLS, as [`Pool::builder_by_url`](crate::Pool::builder_by_url) reads them.
        url: ConnectionString,
    }
    setters {
        name: String,
        max_size: usize,
        max_waiting: usize,
        max_connecting: usize,
        min_idle: usize,
        idle_timeout: Expiry,
        max_lifetime: Expiry,
        health_check_after: Expiry,
        shedding: Shedding,
        acquire_timeout: Duration,
        query_timeout: Duration,
        stream_idle_timeout: Duration,
        connect_timeout: Duration,
        statement_cache: usize,
        reset: Reset,
        leak_detection_threshold: Expiry,
        leak_backtraces: bool,
        unready_after: Duration,
    }
    tables {
        long_running: LongRunningSettings,
        breaker: BreakerSettings,
        retry: RetrySettings,
        server_timeouts: ServerTimeoutSettings,
        rate: LaneRateSettings,
        lane_limits: LaneLimitsSettings,
    }
    tables_by_hand {
        /// The budget of a fleet. Without the feature `fleet`, it is refused.
        fleet: FleetSettings,
        /// How the limit follows the database. Without the feature `fleet`, it is refused.
        adaptive: AdaptiveSettings,
        /// What a cluster has beside the settings of its pools. A pool refuses it.
        cluster: ClusterSettings,
    }
    maps {
        rate_of: RateSettings,
    }
    values {
        lane_of: Lane,
    }
}

table! {
    /// The values of [`PoolBuilder::long_running`]: both or neither.
    LongRunningSettings of PoolBuilder;
    by_hand {
        /// The pool reports when more statements than this have been running for longer than [`than`](Self::than).
        statements: usize,
        /// The duration after which a statement counts.
        than: Duration,
    }
}

table! {
    /// The settings of a [`BreakerConfig`].
    BreakerSettings of BreakerConfig;
    by_hand {
        /// Whether to begin with [`BreakerConfig::opossum`] instead of [`BreakerConfig::default`]. Default: no.
        opossum: bool,
    }
    setters {
        error_threshold_percentage: u8,
        volume_threshold: u64,
        rolling_window: Duration,
        rolling_buckets: u32,
        count_window: u32,
        reset_timeout: Duration,
        reset_timeout_jitter: u8,
        permitted_probes: u32,
        probe_timeout: Duration,
        warm_up: bool,
    }
    tables {
        reset_timeout_growth: GrowthSettings,
        slow_call: SlowCallSettings,
    }
}

table! {
    /// The values of [`BreakerConfig::reset_timeout_growth`]: both or neither.
    GrowthSettings of BreakerConfig;
    by_hand {
        /// The factor by which the reset timeout grows.
        factor: f64,
        /// The longest reset timeout.
        cap: Duration,
    }
}

table! {
    /// The values of [`BreakerConfig::slow_call`]: both or neither.
    SlowCallSettings of BreakerConfig;
    by_hand {
        /// A call that takes longer is slow.
        longer_than: Duration,
        /// The share of slow calls that opens the circuit.
        percentage: u8,
    }
}

table! {
    /// The settings of a [`RetryConfig`].
    RetrySettings of RetryConfig;
    setters {
        max_attempts: u32,
        initial_backoff: Duration,
        backoff_multiplier: f64,
        max_backoff: Duration,
        budget: u32,
    }
}

table! {
    /// The settings of [`ServerTimeouts`].
    ServerTimeoutSettings of ServerTimeouts;
    by_hand {
        /// Whether the pool asks the server for timeouts at all. Default: yes if another key of this table is given, or
        /// if the table is there and empty.
        enabled: bool,
    }
    setters {
        longest_call: Duration,
        lock: Expiry,
        idle_in_transaction: Expiry,
        connection_check: Expiry,
        transaction: Expiry,
    }
}

table! {
    /// The rate of each lane.
    LaneRateSettings of PoolBuilder;
    tables_by_hand {
        /// The rate of [`Lane::Critical`].
        critical: RateSettings,
        /// The rate of [`Lane::Normal`].
        normal: RateSettings,
        /// The rate of [`Lane::Background`].
        background: RateSettings,
    }
}

table! {
    /// The settings of a fleet. Without `name` there is none.
    FleetSettings of PoolBuilder;
    by_hand {
        /// The name of the budget.
        name: String,
        /// How many connections the pool may use in any case.
        minimum: usize,
        /// How many of the server's connections the fleet leaves free.
        headroom: usize,
    }
}

table! {
    /// How the limit follows the database.
    AdaptiveSettings of PoolBuilder;
    by_hand {
        /// Whether it does: `PoolBuilder::adaptive`.
        mode: Adaptive,
        /// How many connections the pool may use at first: `PoolBuilder::adaptive_start`.
        start: usize,
    }
}

table! {
    /// The settings of a cluster, beside those of the pools of its hosts. Feature `cluster`.
    ClusterSettings of PoolBuilder;
    by_hand {
        /// The share of the primary's connections for reads that no replica can serve.
        spill: f64,
        /// How far a replica may be behind to serve reads at all.
        max_lag: Duration,
        /// How often each host is asked for its role.
        look_every: Duration,
        /// How long a host has to answer.
        look_timeout: Duration,
    }
}

table! {
    /// The limits of each lane.
    LaneLimitsSettings of PoolBuilder;
    tables_by_hand {
        /// The limits of [`Lane::Critical`].
        critical: LimitsSettings,
        /// The limits of [`Lane::Normal`].
        normal: LimitsSettings,
        /// The limits of [`Lane::Background`].
        background: LimitsSettings,
    }
}

table! {
    /// The settings of [`LaneLimits`]. What is not given is the lane's default.
    LimitsSettings of LaneLimits;
    setters {
        guaranteed: f64,
        at_most: f64,
    }
}

table! {
    /// The settings of a [`Rate`]. Without any of them there is no rate.
    RateSettings of Rate;
    setters {
        connection_seconds: f64,
        calls: f64,
        concurrency: usize,
        burst: Duration,
    }
}

impl Settings {
    /// A set of values for services that rather fail than wait:
    ///
    /// - 5 idle connections and at most 40 in all; idle ones are checked after 30 s and closed after 30 s;
    /// - 5 s to connect, 5 s to wait for a connection, 15 s for a statement;
    /// - at most three attempts, with pauses from 100 ms up to 5 s, each twice as long as the one before;
    /// - a breaker that opens for 30 s when 50% of the calls fail, or take longer than 10 s.
    ///
    /// They suit a service whose callers wait patiently. The builder's own defaults refuse callers earlier.
    pub fn hardened() -> Self {
        let seconds = Duration::from_secs;
        Self {
            min_idle: Some(5),
            max_size: Some(40),
            idle_timeout: Some(Expiry::After(seconds(30))),
            health_check_after: Some(Expiry::After(seconds(30))),
            connect_timeout: Some(seconds(5)),
            acquire_timeout: Some(seconds(5)),
            query_timeout: Some(seconds(15)),
            retry: RetrySettings {
                max_attempts: Some(3),
                initial_backoff: Some(Duration::from_millis(100)),
                backoff_multiplier: Some(2.0),
                max_backoff: Some(seconds(5)),
                budget: None,
            },
            breaker: BreakerSettings {
                error_threshold_percentage: Some(50),
                reset_timeout: Some(seconds(30)),
                slow_call: SlowCallSettings { longer_than: Some(seconds(10)), percentage: Some(50) },
                ..BreakerSettings::default()
            },
            ..Self::default()
        }
    }

    /// Returns these settings, replaced by those that `over` has. For example, the environment overrides a file, which
    /// overrides [`hardened`](Self::hardened).
    #[must_use = "the result has both"]
    pub fn overridden_by(mut self, mut over: Self) -> Self {
        // So that both have the same fields.
        let names: Vec<_> = self.rate_of.keys().chain(over.rate_of.keys()).cloned().collect();
        for name in names {
            self.rate_of.entry(name.clone()).or_default();
            over.rate_of.entry(name).or_default();
        }
        let names: Vec<_> = self.lane_of.keys().chain(over.lane_of.keys()).cloned().collect();
        for name in names {
            self.lane_of.entry(name.clone()).or_default();
            over.lane_of.entry(name).or_default();
        }
        for ((_, own), (_, other)) in self.fields("").into_iter().zip(over.fields("")) {
            own.take_from(other);
        }
        self
    }

    /// Returns a builder with these settings for the database of `config`; [`url`](Self::url) is ignored. Set
    /// observers, credentials and hooks on it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if one of two values that belong together is missing. [`PoolBuilder::build`] checks the ranges.
    pub fn builder(&self, config: Config) -> Result<PoolBuilder, ConfigError> {
        self.apply(config.into())
    }

    /// Returns a builder with these settings for the database at [`url`](Self::url).
    ///
    /// # Errors
    ///
    /// The errors of [`builder`](Self::builder), and [`ConfigError`] if there is no `url`.
    pub fn builder_by_url(&self) -> Result<PoolBuilder, ConfigError> {
        self.apply(self.place()?)
    }

    /// Returns a builder of a cluster with these settings, for the hosts of `config`; [`url`](Self::url) is ignored.
    /// The pool of each host has the settings of a pool, and [`cluster`](Self::cluster) those of the cluster. Feature
    /// `cluster`.
    ///
    /// ```
    /// # fn main() -> Result<(), failfast::ConfigError> {
    /// let mut settings = failfast::Settings::default();
    /// settings.set("url", "postgres://app@db1,db2,db3/orders")?;
    /// settings.set("max_size", "20")?;
    /// settings.set("cluster.max_lag", "10s")?;
    /// let cluster = settings.cluster_builder_by_url()?.pool(|pool| pool.name("orders")).build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`builder`](Self::builder).
    #[cfg(feature = "cluster")]
    pub fn cluster_builder(&self, config: Config) -> Result<ClusterBuilder, ConfigError> {
        self.apply_to_cluster(config.into())
    }

    /// As [`cluster_builder`](Self::cluster_builder), for the hosts in [`url`](Self::url).
    ///
    /// # Errors
    ///
    /// As [`builder_by_url`](Self::builder_by_url).
    #[cfg(feature = "cluster")]
    pub fn cluster_builder_by_url(&self) -> Result<ClusterBuilder, ConfigError> {
        self.apply_to_cluster(self.place()?)
    }

    fn place(&self) -> Result<ConnectionString, ConfigError> {
        self.url.clone().ok_or_else(|| ConfigError::new("url", "(none)", "must be given"))
    }
}

#[cfg(test)]
mod tests;
