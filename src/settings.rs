//! A pool's settings as plain data: from a file in any format that serde reads, from the environment, or from both. Feature `serde`.
//!
//! Nothing is checked here but that each key exists and each value is of its kind: what a pool can use is the builder's to say.

mod apply;
mod env;
mod field;
mod fields;
mod tree;

use std::time::Duration;

use tokio_postgres::Config;

pub use self::field::Expiry;
use crate::builder::PoolBuilder;
use crate::conn::Reset;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
use crate::policy::Shedding;

/// The settings of a [`PoolBuilder`] as plain data, to be read from a file or from the environment. What is `None` keeps the builder's default.
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
/// The keys are the builder's setters, in a table `breaker` those of [`BreakerConfig`](crate::BreakerConfig), in `retry` those of
/// [`RetryConfig`](crate::RetryConfig), in `server_timeouts` those of [`ServerTimeouts`](crate::ServerTimeouts). Two that take two values are tables, too:
/// `long_running = { statements = 5, than = "10s" }`; `breaker.slow_call` and `breaker.reset_timeout_growth` likewise. What is code and no
/// data is set on the builder: observers, credentials, hooks.
///
/// - A duration is a text with its unit: `"250ms"`, `"5s"`, `"30 min"`, `"1h 30m"`. Where there may be none, `"never"`.
/// - `shedding` is `"predictive"`, `"queue_only"` or `"off"`; `reset` is `"never"`, `"when_seen"` or `"always"`.
/// - A key that does not exist is refused by its whole name, such as `retry.max_atempts`; a value of the wrong kind with its key. What cannot be
///   used is refused by the builder, as ever.
/// - `null` is as if the key were not there.
/// - The format must describe itself, as TOML, JSON and YAML do. bincode and its like do not.
///
/// Neither `Debug` nor an error of these settings shows the password in `url`, so one of `url` is told without its line. What the format itself cannot read it may
/// quote, and so it may the rest of the line of another error: print no more than the message (`toml::de::Error::message`) where passwords are in files.
/// Serialized, the settings are without `url`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Where the database is: a URL or a connection string. Used by [`builder_by_url`](Self::builder_by_url) only.
    /// With libpq's options for TLS, as [`Pool::builder_by_url`](crate::Pool::builder_by_url) reads them.
    pub url: Option<ConnectionString>,
    /// [`PoolBuilder::name`]
    pub name: Option<String>,
    /// [`PoolBuilder::max_size`]
    pub max_size: Option<usize>,
    /// [`PoolBuilder::max_waiting`]
    pub max_waiting: Option<usize>,
    /// [`PoolBuilder::max_connecting`]
    pub max_connecting: Option<usize>,
    /// [`PoolBuilder::min_idle`]
    pub min_idle: Option<usize>,
    /// [`PoolBuilder::idle_timeout`]
    pub idle_timeout: Option<Expiry>,
    /// [`PoolBuilder::max_lifetime`]
    pub max_lifetime: Option<Expiry>,
    /// [`PoolBuilder::health_check_after`]
    pub health_check_after: Option<Expiry>,
    /// [`PoolBuilder::shedding`]
    pub shedding: Option<Shedding>,
    /// [`PoolBuilder::acquire_timeout`]
    pub acquire_timeout: Option<Duration>,
    /// [`PoolBuilder::query_timeout`]
    pub query_timeout: Option<Duration>,
    /// [`PoolBuilder::stream_idle_timeout`]
    pub stream_idle_timeout: Option<Duration>,
    /// [`PoolBuilder::connect_timeout`]
    pub connect_timeout: Option<Duration>,
    /// [`PoolBuilder::statement_cache`]
    pub statement_cache: Option<usize>,
    /// [`PoolBuilder::reset`]
    pub reset: Option<Reset>,
    /// [`PoolBuilder::leak_detection_threshold`]
    pub leak_detection_threshold: Option<Expiry>,
    /// [`PoolBuilder::leak_backtraces`]
    pub leak_backtraces: Option<bool>,
    /// [`PoolBuilder::unready_after`]
    pub unready_after: Option<Duration>,
    /// [`PoolBuilder::long_running`]
    pub long_running: LongRunningSettings,
    /// [`PoolBuilder::breaker`]
    pub breaker: BreakerSettings,
    /// [`PoolBuilder::retry`]
    pub retry: RetrySettings,
    /// [`PoolBuilder::server_timeouts`]
    pub server_timeouts: ServerTimeoutSettings,
}

/// Of [`PoolBuilder::long_running`]: both or neither.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LongRunningSettings {
    /// More than so many statements.
    pub statements: Option<usize>,
    /// For longer than this.
    pub than: Option<Duration>,
}

/// Of [`BreakerConfig`](crate::BreakerConfig).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct BreakerSettings {
    /// Whether to begin with [`BreakerConfig::opossum`](crate::BreakerConfig::opossum). Default: no.
    pub opossum: Option<bool>,
    /// [`BreakerConfig::error_threshold_percentage`](crate::BreakerConfig::error_threshold_percentage)
    pub error_threshold_percentage: Option<u8>,
    /// [`BreakerConfig::volume_threshold`](crate::BreakerConfig::volume_threshold)
    pub volume_threshold: Option<u64>,
    /// [`BreakerConfig::rolling_window`](crate::BreakerConfig::rolling_window)
    pub rolling_window: Option<Duration>,
    /// [`BreakerConfig::rolling_buckets`](crate::BreakerConfig::rolling_buckets)
    pub rolling_buckets: Option<u32>,
    /// [`BreakerConfig::count_window`](crate::BreakerConfig::count_window)
    pub count_window: Option<u32>,
    /// [`BreakerConfig::reset_timeout`](crate::BreakerConfig::reset_timeout)
    pub reset_timeout: Option<Duration>,
    /// [`BreakerConfig::reset_timeout_jitter`](crate::BreakerConfig::reset_timeout_jitter)
    pub reset_timeout_jitter: Option<u8>,
    /// [`BreakerConfig::permitted_probes`](crate::BreakerConfig::permitted_probes)
    pub permitted_probes: Option<u32>,
    /// [`BreakerConfig::probe_timeout`](crate::BreakerConfig::probe_timeout)
    pub probe_timeout: Option<Duration>,
    /// [`BreakerConfig::warm_up`](crate::BreakerConfig::warm_up)
    pub warm_up: Option<bool>,
    /// [`BreakerConfig::reset_timeout_growth`](crate::BreakerConfig::reset_timeout_growth)
    pub reset_timeout_growth: GrowthSettings,
    /// [`BreakerConfig::slow_call`](crate::BreakerConfig::slow_call)
    pub slow_call: SlowCallSettings,
}

/// Of [`BreakerConfig::reset_timeout_growth`](crate::BreakerConfig::reset_timeout_growth): both or neither.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct GrowthSettings {
    /// By how much the reset timeout grows.
    pub factor: Option<f64>,
    /// The longest that it becomes.
    pub cap: Option<Duration>,
}

/// Of [`BreakerConfig::slow_call`](crate::BreakerConfig::slow_call): both or neither.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SlowCallSettings {
    /// A call that takes longer is slow.
    pub longer_than: Option<Duration>,
    /// The share of slow calls that opens the circuit.
    pub percentage: Option<u8>,
}

/// Of [`RetryConfig`](crate::RetryConfig).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct RetrySettings {
    /// [`RetryConfig::max_attempts`](crate::RetryConfig::max_attempts): 1 for no retries.
    pub max_attempts: Option<u32>,
    /// [`RetryConfig::initial_backoff`](crate::RetryConfig::initial_backoff)
    pub initial_backoff: Option<Duration>,
    /// [`RetryConfig::backoff_multiplier`](crate::RetryConfig::backoff_multiplier)
    pub backoff_multiplier: Option<f64>,
    /// [`RetryConfig::max_backoff`](crate::RetryConfig::max_backoff)
    pub max_backoff: Option<Duration>,
    /// [`RetryConfig::budget`](crate::RetryConfig::budget)
    pub budget: Option<u32>,
}

/// Of [`ServerTimeouts`](crate::ServerTimeouts).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ServerTimeoutSettings {
    /// Whether the server is to keep timeouts at all. If it is not said: yes, as soon as one of the others is given, or an empty table.
    pub enabled: Option<bool>,
    /// [`ServerTimeouts::longest_call`](crate::ServerTimeouts::longest_call)
    pub longest_call: Option<Duration>,
    /// [`ServerTimeouts::lock`](crate::ServerTimeouts::lock)
    pub lock: Option<Expiry>,
    /// [`ServerTimeouts::idle_in_transaction`](crate::ServerTimeouts::idle_in_transaction)
    pub idle_in_transaction: Option<Expiry>,
    /// [`ServerTimeouts::connection_check`](crate::ServerTimeouts::connection_check)
    pub connection_check: Option<Expiry>,
    /// [`ServerTimeouts::transaction`](crate::ServerTimeouts::transaction)
    pub transaction: Option<Expiry>,
}

impl Settings {
    /// The figures that public write-ups of pool exhaustion asked for afterwards, as far as they are a pool's: 5 connections kept idle and 40 at
    /// most, idle ones closed after 30 s and checked after 30 s; 5 s for connecting and for waiting, 15 s for a query; three attempts, after
    /// 100 ms, then twice as long, up to 5 s; a breaker that opens at 50% of failures, or of calls longer than 10 s, for 30 s.
    ///
    /// They suit a service with patient callers. The builder's own defaults refuse earlier.
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

    /// These, except for what `over` has: the environment over a file over [`hardened`](Self::hardened).
    #[must_use = "it is the result that has both"]
    pub fn overridden_by(mut self, mut over: Self) -> Self {
        for ((_, own), (_, other)) in self.fields().into_iter().zip(over.fields()) {
            own.take_from(other);
        }
        self
    }

    /// A builder with these settings, for this database, whatever [`url`](Self::url) says. Set on it what is no data.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if of two values that belong together one is missing. All else is said by [`PoolBuilder::build`].
    pub fn builder(&self, config: Config) -> Result<PoolBuilder, ConfigError> {
        self.apply(config.into())
    }

    /// A builder with these settings, for the database at [`url`](Self::url).
    ///
    /// # Errors
    ///
    /// As [`builder`](Self::builder), and if there is no `url`.
    pub fn builder_by_url(&self) -> Result<PoolBuilder, ConfigError> {
        match &self.url {
            Some(place) => self.apply(place.clone()),
            None => Err(ConfigError::new("url", "(none)", "must be given")),
        }
    }
}

#[cfg(test)]
mod tests;
