//! Passes settings to a builder. A setting that is not given leaves the builder as it is.
//!
//! The macro of `table.rs` passes each value that has a setter of the same name. This file has the exceptions.

use super::table::given;
use super::{
    AdaptiveSettings, BreakerSettings, ClusterSettings, FleetSettings, LaneLimitsSettings, LaneRateSettings,
    LimitsSettings, RateSettings, ServerTimeoutSettings, Settings,
};
use crate::breaker::BreakerConfig;
use crate::builder::PoolBuilder;
#[cfg(feature = "cluster")]
use crate::cluster::ClusterBuilder;
use crate::conn::ServerTimeouts;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
#[cfg(feature = "fleet")]
use crate::fleet::FleetConfig;
use crate::policy::{Lane, LaneLimits};
use crate::rates::Rate;
use crate::retry::RetryConfig;

impl Settings {
    pub(super) fn apply(&self, place: ConnectionString) -> Result<PoolBuilder, ConfigError> {
        if self.cluster != ClusterSettings::default() {
            return Err(ConfigError::without_value("cluster", "is of a Cluster: use Settings::cluster_builder"));
        }
        self.apply_to_pool(PoolBuilder::new(place))
    }

    #[cfg(feature = "cluster")]
    pub(super) fn apply_to_cluster(&self, place: ConnectionString) -> Result<ClusterBuilder, ConfigError> {
        // An error of these settings is found here, so that the pools have none.
        let _ = self.apply_to_pool(PoolBuilder::new(place.clone()))?;
        let settings = self.clone();
        let pool = move |pool| settings.apply_to_pool(pool).expect("these settings were applied before");
        let ClusterSettings { spill, max_lag, look_every, look_timeout } = &self.cluster;
        let builder = given(ClusterBuilder::of(place).pool(pool), spill, ClusterBuilder::spill);
        let builder = given(builder, max_lag, ClusterBuilder::max_lag);
        let builder = given(builder, look_every, ClusterBuilder::look_every);
        Ok(given(builder, look_timeout, ClusterBuilder::look_timeout))
    }

    fn apply_to_pool(&self, builder: PoolBuilder) -> Result<PoolBuilder, ConfigError> {
        let retry = self.retry.apply_to(RetryConfig::default());
        let builder = builder.breaker(self.breaker.config()?).retry(retry);
        let builder = given(self.apply_to(builder), &self.server_timeouts.timeouts(), PoolBuilder::server_timeouts);
        let LaneRateSettings { critical, normal, background } = &self.rate;
        let lanes = Lane::ALL.into_iter().zip([critical, normal, background]);
        let builder = lanes.fold(builder, |builder, (lane, rate)| {
            given(builder, &rate.rate(), |builder, rate| builder.rate(lane, rate))
        });
        let builder = self.rate_of.iter().fold(builder, |builder, (operation, rate)| {
            given(builder, &rate.rate(), |builder, rate| builder.rate_of(operation, rate))
        });
        let LaneLimitsSettings { critical, normal, background } = &self.lane_limits;
        let lanes = Lane::ALL.into_iter().zip([critical, normal, background]);
        let builder = lanes.fold(builder, |builder, (lane, limits)| {
            given(builder, &limits.limits(lane), |builder, limits| builder.lane_limits(lane, limits))
        });
        let builder = self.lane_of.iter().fold(builder, |builder, (operation, lane)| {
            given(builder, lane, |builder, lane| builder.lane_of(operation, lane))
        });
        let builder = self.adaptive.apply_to(self.fleet.apply_to(builder)?)?;
        let long_running = both(
            ("long_running.statements", self.long_running.statements),
            ("long_running.than", self.long_running.than),
        )?;
        Ok(given(builder, &long_running, |builder, (statements, than)| builder.long_running(statements, than)))
    }
}

impl BreakerSettings {
    fn config(&self) -> Result<BreakerConfig, ConfigError> {
        let config = if self.opossum == Some(true) { BreakerConfig::opossum() } else { BreakerConfig::default() };
        let growth = both(
            ("breaker.reset_timeout_growth.factor", self.reset_timeout_growth.factor),
            ("breaker.reset_timeout_growth.cap", self.reset_timeout_growth.cap),
        )?;
        let config = self.apply_to(config);
        let config = given(config, &growth, |config, (factor, cap)| config.reset_timeout_growth(factor, cap));
        let slow = both(
            ("breaker.slow_call.longer_than", self.slow_call.longer_than),
            ("breaker.slow_call.percentage", self.slow_call.percentage),
        )?;
        Ok(given(config, &slow, |config, (longer_than, percentage)| config.slow_call(longer_than, percentage)))
    }
}

impl ServerTimeoutSettings {
    fn timeouts(&self) -> Option<ServerTimeouts> {
        let are_wanted = self.enabled.unwrap_or_else(|| *self != Self::default());
        are_wanted.then(|| self.apply_to(ServerTimeouts::new()))
    }
}

impl FleetSettings {
    #[cfg(feature = "fleet")]
    fn apply_to(&self, builder: PoolBuilder) -> Result<PoolBuilder, ConfigError> {
        if *self == Self::default() {
            return Ok(builder);
        }
        let name = self.name.clone().ok_or_else(|| ConfigError::new("fleet.name", "(none)", "must be given"))?;
        let config = given(FleetConfig::new(name), &self.minimum, FleetConfig::minimum);
        Ok(builder.fleet(given(config, &self.headroom, FleetConfig::headroom)))
    }

    #[cfg(not(feature = "fleet"))]
    fn apply_to(&self, builder: PoolBuilder) -> Result<PoolBuilder, ConfigError> {
        if *self == Self::default() {
            return Ok(builder);
        }
        let name = self.name.clone().unwrap_or_else(|| "(none)".to_owned());
        Err(ConfigError::new("fleet.name", name, "needs the feature fleet of the crate"))
    }
}

impl AdaptiveSettings {
    #[cfg(feature = "fleet")]
    #[expect(clippy::unnecessary_wraps, reason = "without the feature it is refused")]
    fn apply_to(&self, builder: PoolBuilder) -> Result<PoolBuilder, ConfigError> {
        let builder = given(builder, &self.mode, PoolBuilder::adaptive);
        Ok(given(builder, &self.start, PoolBuilder::adaptive_start))
    }

    #[cfg(not(feature = "fleet"))]
    fn apply_to(&self, builder: PoolBuilder) -> Result<PoolBuilder, ConfigError> {
        if *self == Self::default() {
            return Ok(builder);
        }
        let mode = self.mode.unwrap_or_default();
        Err(ConfigError::new("adaptive.mode", mode, "needs the feature fleet of the crate"))
    }
}

impl LimitsSettings {
    fn limits(&self, lane: Lane) -> Option<LaneLimits> {
        (*self != Self::default()).then(|| self.apply_to(LaneLimits::of(lane)))
    }
}

impl RateSettings {
    fn rate(&self) -> Option<Rate> {
        (*self != Self::default()).then(|| self.apply_to(Rate::new()))
    }
}

/// Two values of one setter, each with its key: both or neither.
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
