//! Every setting by its key: the one list that all ways in and out go by.

use super::Settings;
use super::field::{Field, Scalar};
use crate::error::ConfigError;

impl Settings {
    /// In the order of a file: what stands in a table comes after what stands outside, and together.
    pub(super) fn fields(&mut self) -> Vec<(&'static str, &mut dyn Field)> {
        let Self { long_running, breaker, retry, server_timeouts: server, .. } = self;
        vec![
            ("url", &mut self.url),
            ("name", &mut self.name),
            ("max_size", &mut self.max_size),
            ("max_waiting", &mut self.max_waiting),
            ("max_connecting", &mut self.max_connecting),
            ("min_idle", &mut self.min_idle),
            ("idle_timeout", &mut self.idle_timeout),
            ("max_lifetime", &mut self.max_lifetime),
            ("health_check_after", &mut self.health_check_after),
            ("shedding", &mut self.shedding),
            ("acquire_timeout", &mut self.acquire_timeout),
            ("query_timeout", &mut self.query_timeout),
            ("stream_idle_timeout", &mut self.stream_idle_timeout),
            ("connect_timeout", &mut self.connect_timeout),
            ("statement_cache", &mut self.statement_cache),
            ("reset", &mut self.reset),
            ("leak_detection_threshold", &mut self.leak_detection_threshold),
            ("leak_backtraces", &mut self.leak_backtraces),
            ("unready_after", &mut self.unready_after),
            ("long_running.statements", &mut long_running.statements),
            ("long_running.than", &mut long_running.than),
            ("breaker.opossum", &mut breaker.opossum),
            ("breaker.error_threshold_percentage", &mut breaker.error_threshold_percentage),
            ("breaker.volume_threshold", &mut breaker.volume_threshold),
            ("breaker.rolling_window", &mut breaker.rolling_window),
            ("breaker.rolling_buckets", &mut breaker.rolling_buckets),
            ("breaker.count_window", &mut breaker.count_window),
            ("breaker.reset_timeout", &mut breaker.reset_timeout),
            ("breaker.reset_timeout_jitter", &mut breaker.reset_timeout_jitter),
            ("breaker.permitted_probes", &mut breaker.permitted_probes),
            ("breaker.probe_timeout", &mut breaker.probe_timeout),
            ("breaker.warm_up", &mut breaker.warm_up),
            ("breaker.reset_timeout_growth.factor", &mut breaker.reset_timeout_growth.factor),
            ("breaker.reset_timeout_growth.cap", &mut breaker.reset_timeout_growth.cap),
            ("breaker.slow_call.longer_than", &mut breaker.slow_call.longer_than),
            ("breaker.slow_call.percentage", &mut breaker.slow_call.percentage),
            ("retry.max_attempts", &mut retry.max_attempts),
            ("retry.initial_backoff", &mut retry.initial_backoff),
            ("retry.backoff_multiplier", &mut retry.backoff_multiplier),
            ("retry.max_backoff", &mut retry.max_backoff),
            ("retry.budget", &mut retry.budget),
            ("server_timeouts.enabled", &mut server.enabled),
            ("server_timeouts.longest_call", &mut server.longest_call),
            ("server_timeouts.lock", &mut server.lock),
            ("server_timeouts.idle_in_transaction", &mut server.idle_in_transaction),
            ("server_timeouts.connection_check", &mut server.connection_check),
            ("server_timeouts.transaction", &mut server.transaction),
        ]
    }

    /// Sets one by its key, as it is written in a file: `settings.set("breaker.reset_timeout", "10s")`. For what comes from a command line.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no such key, or the value is not of its kind.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        self.read(key, key, value)
    }

    /// `named`: what an error calls it.
    pub(super) fn read(&mut self, key: &str, named: &str, value: &str) -> Result<(), ConfigError> {
        match self.fields().into_iter().find(|(name, _)| *name == key) {
            Some((_, field)) => field.read(value).map_err(|problem| problem.of(named, value)),
            None if is_table(key) => Err(ConfigError::without_value(named, "is a table")),
            None => Err(ConfigError::unknown(named, nearest(key))),
        }
    }

    /// What is given, and may be written down.
    pub(super) fn shown(&self) -> Vec<(&'static str, Scalar)> {
        let mut copy = self.clone();
        let fields = copy.fields().into_iter();
        fields.filter_map(|(key, field)| Some((key, field.show()?))).collect()
    }
}

pub(super) fn keys() -> Vec<&'static str> {
    Settings::default().fields().into_iter().map(|(key, _)| key).collect()
}

pub(super) fn is_table(name: &str) -> bool {
    keys().iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key or table that `name` may be a misspelling of.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let with_tables = |key: &'static str| {
        let tables = key.match_indices('.').map(move |(end, _)| &key[..end]);
        std::iter::once(key).chain(tables)
    };
    crate::error::nearest(name, keys().into_iter().flat_map(with_tables))
}
