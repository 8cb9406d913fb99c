//! Settings onto a builder: what is given is set, the rest left as it is.

use super::{BreakerSettings, RetrySettings, ServerTimeoutSettings, Settings};
use crate::breaker::BreakerConfig;
use crate::builder::PoolBuilder;
use crate::conn::ServerTimeouts;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
use crate::retry::RetryConfig;

impl Settings {
    pub(super) fn apply(&self, place: ConnectionString) -> Result<PoolBuilder, ConfigError> {
        let Self { breaker, retry, server_timeouts, long_running, .. } = self;
        let builder = PoolBuilder::new(place).breaker(breaker.config()?).retry(retry.config());
        let builder = given(builder, &self.name, PoolBuilder::name);
        let builder = given(builder, &self.max_size, PoolBuilder::max_size);
        let builder = given(builder, &self.max_waiting, PoolBuilder::max_waiting);
        let builder = given(builder, &self.max_connecting, PoolBuilder::max_connecting);
        let builder = given(builder, &self.min_idle, PoolBuilder::min_idle);
        let builder = given(builder, &self.idle_timeout, PoolBuilder::idle_timeout);
        let builder = given(builder, &self.max_lifetime, PoolBuilder::max_lifetime);
        let builder = given(builder, &self.health_check_after, PoolBuilder::health_check_after);
        let builder = given(builder, &self.shedding, PoolBuilder::shedding);
        let builder = given(builder, &self.acquire_timeout, PoolBuilder::acquire_timeout);
        let builder = given(builder, &self.query_timeout, PoolBuilder::query_timeout);
        let builder = given(builder, &self.stream_idle_timeout, PoolBuilder::stream_idle_timeout);
        let builder = given(builder, &self.connect_timeout, PoolBuilder::connect_timeout);
        let builder = given(builder, &self.statement_cache, PoolBuilder::statement_cache);
        let builder = given(builder, &self.reset, PoolBuilder::reset);
        let builder = given(builder, &self.leak_detection_threshold, PoolBuilder::leak_detection_threshold);
        let builder = given(builder, &self.leak_backtraces, PoolBuilder::leak_backtraces);
        let builder = given(builder, &self.unready_after, PoolBuilder::unready_after);
        let builder = given(builder, &server_timeouts.timeouts(), PoolBuilder::server_timeouts);
        let statements = ("long_running.statements", long_running.statements);
        let long_running = both(statements, ("long_running.than", long_running.than))?;
        Ok(given(builder, &long_running, |builder, (statements, than)| builder.long_running(statements, than)))
    }
}

impl BreakerSettings {
    fn config(&self) -> Result<BreakerConfig, ConfigError> {
        let config = if self.opossum == Some(true) { BreakerConfig::opossum() } else { BreakerConfig::default() };
        let config = given(config, &self.error_threshold_percentage, BreakerConfig::error_threshold_percentage);
        let config = given(config, &self.volume_threshold, BreakerConfig::volume_threshold);
        let config = given(config, &self.rolling_window, BreakerConfig::rolling_window);
        let config = given(config, &self.rolling_buckets, BreakerConfig::rolling_buckets);
        let config = given(config, &self.count_window, BreakerConfig::count_window);
        let config = given(config, &self.reset_timeout, BreakerConfig::reset_timeout);
        let config = given(config, &self.reset_timeout_jitter, BreakerConfig::reset_timeout_jitter);
        let config = given(config, &self.permitted_probes, BreakerConfig::permitted_probes);
        let config = given(config, &self.probe_timeout, BreakerConfig::probe_timeout);
        let config = given(config, &self.warm_up, BreakerConfig::warm_up);
        let growth = both(
            ("breaker.reset_timeout_growth.factor", self.reset_timeout_growth.factor),
            ("breaker.reset_timeout_growth.cap", self.reset_timeout_growth.cap),
        )?;
        let config = given(config, &growth, |config, (factor, cap)| config.reset_timeout_growth(factor, cap));
        let slow = both(
            ("breaker.slow_call.longer_than", self.slow_call.longer_than),
            ("breaker.slow_call.percentage", self.slow_call.percentage),
        )?;
        Ok(given(config, &slow, |config, (longer_than, percentage)| config.slow_call(longer_than, percentage)))
    }
}

impl RetrySettings {
    fn config(&self) -> RetryConfig {
        let config = given(RetryConfig::default(), &self.max_attempts, RetryConfig::max_attempts);
        let config = given(config, &self.initial_backoff, RetryConfig::initial_backoff);
        let config = given(config, &self.backoff_multiplier, RetryConfig::backoff_multiplier);
        let config = given(config, &self.max_backoff, RetryConfig::max_backoff);
        given(config, &self.budget, RetryConfig::budget)
    }
}

impl ServerTimeoutSettings {
    fn timeouts(&self) -> Option<ServerTimeouts> {
        let are_wanted = self.enabled.unwrap_or_else(|| *self != Self::default());
        are_wanted.then(|| {
            let timeouts = given(ServerTimeouts::new(), &self.longest_call, ServerTimeouts::longest_call);
            let timeouts = given(timeouts, &self.lock, ServerTimeouts::lock);
            let timeouts = given(timeouts, &self.idle_in_transaction, ServerTimeouts::idle_in_transaction);
            let timeouts = given(timeouts, &self.connection_check, ServerTimeouts::connection_check);
            given(timeouts, &self.transaction, ServerTimeouts::transaction)
        })
    }
}

fn given<B, T: Clone>(builder: B, value: &Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value.clone()),
        None => builder,
    }
}

/// Two values that mean something together only, each with its key.
fn both<A, B>(
    (one, first): (&'static str, Option<A>),
    (other, second): (&'static str, Option<B>),
) -> Result<Option<(A, B)>, ConfigError> {
    let missing = match (first, second) {
        (None, None) => return Ok(None),
        (Some(first), Some(second)) => return Ok(Some((first, second))),
        (None, Some(_)) => one,
        (Some(_), None) => other,
    };
    Err(ConfigError::new(missing, "(none)", "must be given with the other value of its table"))
}
