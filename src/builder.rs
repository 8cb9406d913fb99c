//! Settings and their validation: whatever is wrong is said here, by name, before anything is connected.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};

use crate::call::Shared;
use crate::conn::Dialer;
use crate::error::ConfigError;
use crate::policy::Shedding;
use crate::pool::{Pool, check_max_size};
use crate::slots::{Limits, MOST_WAITING, Slots};

/// More dials at a time than this are a storm.
const MOST_CONNECTING: usize = 1_000;
/// Longer than this is not a timeout.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// `NAMEDATALEN - 1`: the server cuts `application_name` off there.
const LONGEST_NAME: usize = 63;

/// The settings of a [`Pool`]. Every one has a finite default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct PoolBuilder {
    config: Config,
    name: String,
    max_size: usize,
    max_waiting: Option<usize>,
    max_connecting: usize,
    shedding: Shedding,
    acquire_timeout: Duration,
    connect_timeout: Duration,
}

impl Pool {
    /// Begins a pool. `config` is the driver's: parse a URL or a connection string, or build one.
    pub fn builder(config: Config) -> PoolBuilder {
        PoolBuilder::new(config)
    }
}

impl PoolBuilder {
    fn new(config: Config) -> Self {
        Self {
            config,
            name: "failfast".to_owned(),
            max_size: 10,
            max_waiting: None,
            max_connecting: 4,
            shedding: Shedding::default(),
            acquire_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// What the pool is called in logs and, unless the connection string sets an `application_name`, on the server.
    /// 1 to 63 printable ASCII characters. Default `failfast`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The most connections at any time, those being made or closed included. 1 to 262,143. Default 10.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// The most callers that may wait for a connection; one more is refused at once with [`Error::Shed`](crate::Error::Shed).
    /// 0 to 1,000,000; 0 means that nobody waits, not even for a first connection. Default: the larger of 1,000 and 10 x `max_size`.
    pub fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = Some(max_waiting);
        self
    }

    /// The most connections being made at a time. 1 to 1,000. Default 4: enough for a cold start, few enough that a server in trouble is not
    /// stormed.
    pub fn max_connecting(mut self, max_connecting: usize) -> Self {
        self.max_connecting = max_connecting;
        self
    }

    /// Whom the pool refuses at once rather than let wait. Default [`Shedding::Predictive`].
    pub fn shedding(mut self, shedding: Shedding) -> Self {
        self.shedding = shedding;
        self
    }

    /// How long [`Pool::get`] waits for a connection. More than 0, at most 24 hours. Default 1 s.
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.acquire_timeout = acquire_timeout;
        self
    }

    /// How long making one connection may take in all: looking names up, trying every host, and authenticating. More than 0, at most 24 hours.
    /// Default 5 s. The connection string's own `connect_timeout` bounds the TCP connect of each address within it.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Checks every setting and makes the pool. Connects to nothing: the first callers do.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn build(self) -> Result<Pool, ConfigError> {
        self.check_pool()?;
        check_driver(&self.config)?;
        let mut config = self.config;
        if config.get_application_name().is_none() {
            config.application_name(&self.name);
        }
        let limits = Limits {
            max_size: self.max_size,
            max_waiting: self.max_waiting.unwrap_or_else(|| (10 * self.max_size).max(1_000)),
            max_connecting: self.max_connecting,
            room: self.acquire_timeout,
        };
        let dialer = Dialer::new(config, self.connect_timeout);
        Ok(Pool::new(Shared {
            name: self.name.into(),
            acquire_timeout: self.acquire_timeout,
            shedding: self.shedding,
            slots: Slots::new(dialer, limits),
        }))
    }

    fn check_pool(&self) -> Result<(), ConfigError> {
        if self.name.is_empty()
            || self.name.len() > LONGEST_NAME
            || !self.name.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            return Err(ConfigError::new(
                "name",
                format!("{:?}", self.name),
                "must be 1 to 63 printable ASCII characters",
            ));
        }
        check_max_size(self.max_size)?;
        if !(1..=MOST_CONNECTING).contains(&self.max_connecting) {
            return Err(ConfigError::new(
                "max_connecting",
                self.max_connecting,
                "must be 1 to 1000",
            ));
        }
        if let Some(max_waiting) = self.max_waiting.filter(|max_waiting| *max_waiting > MOST_WAITING) {
            return Err(ConfigError::new("max_waiting", max_waiting, "must be 0 to 1000000"));
        }
        for (setting, value) in [
            ("acquire_timeout", self.acquire_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if value.is_zero() || value > LONGEST_TIMEOUT {
                return Err(ConfigError::new(
                    setting,
                    format!("{value:?}"),
                    "must be more than 0 and at most 24 hours",
                ));
            }
        }
        Ok(())
    }
}

/// What the connection string asks for is done, or refused by name here; nothing is silently ignored.
fn check_driver(config: &Config) -> Result<(), ConfigError> {
    let (hosts, addresses, ports) = (
        config.get_hosts().len(),
        config.get_hostaddrs().len(),
        config.get_ports().len(),
    );
    if hosts == 0 && addresses == 0 {
        return Err(ConfigError::new("host", "(none)", "a host or a hostaddr is needed"));
    }
    if hosts > 0 && addresses > 0 && hosts != addresses {
        return Err(ConfigError::new(
            "hostaddr",
            addresses,
            "must be as many as there are hosts",
        ));
    }
    if ports > 1 && ports != hosts.max(addresses) {
        return Err(ConfigError::new(
            "port",
            ports,
            "must be one, or as many as there are hosts",
        ));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(ConfigError::new("sslmode", "require", "TLS is not supported yet"));
    }
    if config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(ConfigError::new("sslnegotiation", "direct", "TLS is not supported yet"));
    }
    if config.get_channel_binding() == ChannelBinding::Require {
        return Err(ConfigError::new(
            "channel_binding",
            "require",
            "TLS is not supported yet",
        ));
    }
    if config.get_target_session_attrs() != TargetSessionAttrs::Any {
        let value = format!("{:?}", config.get_target_session_attrs());
        return Err(ConfigError::new(
            "target_session_attrs",
            value,
            "only `any` is supported yet",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
