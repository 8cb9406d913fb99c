//! What is wrong with a setting is said here, by name and value; and what is in effect, in a line.

use std::time::Duration;

use super::PoolBuilder;
use crate::conn::ServerTimeouts;
use crate::error::ConfigError;
use crate::pool::check_max_size;
use crate::slots::{Limits, MOST_WAITING};

/// More dials at a time than this are a storm.
const MOST_CONNECTING: usize = 1_000;
/// More prepared statements than this on each connection are a server's memory gone.
const MOST_STATEMENTS: usize = 100_000;
/// Longer than this is not a timeout.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Older than this is for ever.
const LONGEST_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// `NAMEDATALEN - 1`: the server cuts `application_name` off there.
const LONGEST_NAME: usize = 63;

impl PoolBuilder {
    /// For a log: one line, without credentials.
    pub(super) fn in_effect(&self, limits: &Limits) -> String {
        let age = |age: Option<Duration>| age.map_or("never".to_owned(), |age| format!("{age:?}"));
        format!(
            "max_size {}, min_idle {}, max_waiting {}, max_connecting {}, shedding {:?}, acquire_timeout {:?}, query_timeout {:?}, stream_idle_timeout {:?}, \
             connect_timeout {:?}, idle_timeout {}, max_lifetime {}, health_check_after {}, statement_cache {}, reset {:?}",
            limits.max_size,
            self.min_idle,
            limits.max_waiting,
            self.max_connecting,
            self.shedding,
            self.acquire_timeout,
            self.query_timeout,
            self.stream_idle_timeout,
            self.connect_timeout,
            age(self.idle_timeout),
            age(self.max_lifetime),
            age(self.health_check_after),
            self.statement_cache,
            self.reset,
        )
    }

    pub(super) fn check_pool(&self) -> Result<(), ConfigError> {
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
            return Err(ConfigError::new("max_connecting", self.max_connecting, "must be 1 to 1000"));
        }
        if self.min_idle > self.max_size {
            return Err(ConfigError::new("min_idle", self.min_idle, "must be at most max_size"));
        }
        let ages = [
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
            ("health_check_after", self.health_check_after),
            ("leak_detection_threshold", self.leak_detection_threshold),
        ];
        for (setting, age) in ages {
            if let Some(age) = age.filter(|age| age.is_zero() || *age > LONGEST_AGE) {
                return Err(ConfigError::new(setting, format!("{age:?}"), "must be more than 0 and at most 30 days"));
            }
        }
        if let Some(max_waiting) = self.max_waiting.filter(|max_waiting| *max_waiting > MOST_WAITING) {
            return Err(ConfigError::new("max_waiting", max_waiting, "must be 0 to 1000000"));
        }
        if self.statement_cache > MOST_STATEMENTS {
            return Err(ConfigError::new("statement_cache", self.statement_cache, "must be 0 to 100000"));
        }
        let own = [
            ("acquire_timeout", self.acquire_timeout),
            ("query_timeout", self.query_timeout),
            ("stream_idle_timeout", self.stream_idle_timeout),
            ("connect_timeout", self.connect_timeout),
            ("long_running", self.long_running.1),
            ("unready_after", self.unready_after),
        ];
        let server = self.server_timeouts.iter().flat_map(ServerTimeouts::values);
        let server = server.filter_map(|(setting, value)| value.map(|value| (setting, value)));
        for (setting, value) in own.into_iter().chain(server) {
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
