//! Timeouts that the server itself enforces. They end statements that no client can stop any more, because its process
//! died or its network is gone.
//!
//! The pool sends them as startup options, so a reset of the session does not undo them. A server refuses options that
//! it does not know. So the pool sends those of newer versions only after an earlier dial has learned the server's
//! version.

use std::fmt::Write;
use std::time::Duration;

/// How much longer the server's timeout is than the longest call. So the pool's own timeout, whose error says more,
/// comes first.
const MARGIN: Duration = Duration::from_secs(1);

/// Timeouts that the server enforces on each connection, as the last resort behind the pool's own.
///
/// A pooler between the pool and the server may refuse startup options. Then dials fail, and the error names this
/// setting. PgBouncer refuses them unless `ignore_startup_parameters` or `track_extra_parameters` names them.
///
/// ```
/// use std::time::Duration;
///
/// use failfast::{Pool, ServerTimeouts};
///
/// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
/// let timeouts = ServerTimeouts::new().longest_call(Duration::from_secs(60)).lock(Duration::from_secs(2));
/// Pool::builder(config).server_timeouts(timeouts)
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it does nothing until it is given to server_timeouts()"]
pub struct ServerTimeouts {
    longest_call: Option<Duration>,
    lock: Option<Duration>,
    idle_in_transaction: Option<Duration>,
    connection_check: Option<Duration>,
    transaction: Option<Duration>,
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            longest_call: None,
            lock: None,
            idle_in_transaction: Some(Duration::from_secs(60)),
            connection_check: Some(Duration::from_secs(5)),
            transaction: None,
        }
    }
}

impl ServerTimeouts {
    /// The default of each setting.
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest time that any statement may take: more than 0, at most 24 hours. The server's `statement_timeout` is
    /// one second more.
    ///
    /// Default: the pool's [`query_timeout`](crate::PoolBuilder::query_timeout). Set it to the longest
    /// [`Call::timeout`](crate::Call::timeout) or [`deadline`](crate::Call::deadline) that you use.
    ///
    /// The pool lifts `statement_timeout` for streams ([`query_raw`](crate::Client::query_raw)) and COPY, and bounds
    /// each of their steps instead. It cleans the session up afterwards.
    pub fn longest_call(mut self, longest_call: Duration) -> Self {
        self.longest_call = Some(longest_call);
        self
    }

    /// `lock_timeout`: how long a statement may wait for one lock. More than 0, at most 24 hours; `None` leaves it to
    /// the server's own setting, here and below. Default: `None`.
    pub fn lock(mut self, lock: impl Into<Option<Duration>>) -> Self {
        self.lock = lock.into();
        self
    }

    /// `idle_in_transaction_session_timeout`: how long a client may be silent within a transaction before the server
    /// ends the session. More than 0, at most 24 hours, or `None`. Default: 60 s.
    pub fn idle_in_transaction(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle_in_transaction = idle.into();
        self
    }

    /// `client_connection_check_interval`: how often the server checks that the client of a running statement is still
    /// connected. More than 0, at most 24 hours, or `None`. Default: 5 s. From version 14 on.
    ///
    /// It also bounds the sessions on a server that no cancel request reaches. The pool closes a connection 1 to 2 s
    /// after the timeout of its statement, and the server runs the statement on until its next check. With 1 s, it has
    /// at most two sessions for each connection of `max_size`; with 5 s at most six.
    pub fn connection_check(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.connection_check = interval.into();
        self
    }

    /// `transaction_timeout`: how long a transaction may take before the server ends the session. More than 0, at most
    /// 24 hours, or `None`. Default: `None`. From version 17 on.
    pub fn transaction(mut self, transaction: impl Into<Option<Duration>>) -> Self {
        self.transaction = transaction.into();
        self
    }

    /// The settings by name, for validation.
    pub(crate) fn values(&self) -> [(&'static str, Option<Duration>); 5] {
        [
            ("server_timeouts.longest_call", self.longest_call),
            ("server_timeouts.lock", self.lock),
            ("server_timeouts.idle_in_transaction", self.idle_in_transaction),
            ("server_timeouts.connection_check", self.connection_check),
            ("server_timeouts.transaction", self.transaction),
        ]
    }

    pub(crate) fn statement(&self, query_timeout: Duration) -> Duration {
        self.longest_call.unwrap_or(query_timeout) + MARGIN
    }

    /// Returns the startup options for a server of this major version. `None`: the version is not known yet.
    pub(crate) fn options(&self, query_timeout: Duration, version: Option<u32>) -> String {
        let since = |first: u32| version.is_some_and(|version| version >= first);
        let mut options = String::new();
        for (name, timeout, is_known) in [
            ("statement_timeout", Some(self.statement(query_timeout)), true),
            ("lock_timeout", self.lock, true),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction, true),
            ("client_connection_check_interval", self.connection_check, since(14)),
            ("transaction_timeout", self.transaction, since(17)),
        ] {
            if let Some(timeout) = timeout.filter(|_| is_known) {
                let _ = write!(options, "-c {name}={} ", timeout.as_millis().max(1));
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_settings_are_for_newer_servers() {
        let timeouts = ServerTimeouts::new().transaction(Duration::from_secs(90)).lock(Duration::from_micros(10));
        let options = |version| timeouts.options(Duration::from_secs(10), version);
        let old = "-c statement_timeout=11000 -c lock_timeout=1 -c idle_in_transaction_session_timeout=60000 ";
        assert_eq!(options(None), old);
        assert_eq!(options(Some(13)), old);
        assert_eq!(options(Some(16)), format!("{old}-c client_connection_check_interval=5000 "));
        let newest = "-c client_connection_check_interval=5000 -c transaction_timeout=90000 ";
        assert_eq!(options(Some(17)), format!("{old}{newest}"));
    }

    #[test]
    fn the_longest_call_decides() {
        let timeouts = ServerTimeouts::new().longest_call(Duration::from_secs(60)).idle_in_transaction(None);
        assert_eq!(timeouts.options(Duration::from_secs(10), None), "-c statement_timeout=61000 ");
    }
}
