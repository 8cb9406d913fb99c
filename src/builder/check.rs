//! The ranges of the settings, in one table. `build` refuses a value by it, and the event `Started` shows its values.
//!
//! The breaker and the retries check their settings themselves: `src/breaker/config.rs`, `src/retry.rs`.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use self::Value::{Age, Any, LongRunning, Number, PerSecond, Share, Timeout};
use super::PoolBuilder;
use crate::conn::ServerTimeouts;
use crate::error::ConfigError;
#[cfg(feature = "fleet")]
use crate::fleet::is_budget;
use crate::lane_names::MOST_NAMES;
#[cfg(feature = "fleet")]
use crate::policy::Adaptive;
use crate::policy::{Lane, LaneLimits};
use crate::rates::Rate;
use crate::slots::{MOST_CONNECTIONS, MOST_WAITING, default_max_waiting};

/// A server seldom survives more dials at a time.
const MOST_CONNECTING: usize = 1_000;
/// With more prepared statements on each connection, the server runs out of memory.
const MOST_STATEMENTS: usize = 100_000;
/// A schedule of nanoseconds is not fine enough for more.
const MOST_CALLS: usize = 1_000_000;
/// A longer timeout is a mistake.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// An owner that wants a longer age should set `None`.
const LONGEST_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// `NAMEDATALEN - 1`: the server cuts a longer `application_name`.
pub(super) const LONGEST_NAME: usize = 63;

/// The value of a setting, by the kind of its range.
enum Value {
    Number(usize, RangeInclusive<usize>),
    /// A number of something in each second: more than 0, at most so many.
    PerSecond(f64, usize),
    /// A part of the pool, from 0 to 1.
    Share(f64),
    /// More than 0, at most [`LONGEST_TIMEOUT`].
    Timeout(Duration),
    /// More than 0, at most [`LONGEST_AGE`]. `None` means never.
    Age(Option<Duration>),
    /// More than so many statements, for longer than a timeout.
    LongRunning(usize, Duration),
    /// Every value of its type is good.
    Any(String),
}

impl PoolBuilder {
    /// Each setting of the pool itself, in the order in which the event `Started` shows them.
    fn values(&self) -> Vec<(Cow<'static, str>, Value)> {
        let values = vec![
            ("max_size", Number(self.max_size, 1..=MOST_CONNECTIONS)),
            ("min_idle", Number(self.min_idle, 0..=usize::MAX)),
            ("max_waiting", Number(self.effective_max_waiting(), 0..=MOST_WAITING)),
            ("max_connecting", Number(self.max_connecting, 1..=MOST_CONNECTING)),
            ("shedding", Any(format!("{:?}", self.shedding))),
            ("acquire_timeout", Timeout(self.acquire_timeout)),
            ("query_timeout", Timeout(self.query_timeout)),
            ("stream_idle_timeout", Timeout(self.stream_idle_timeout)),
            ("connect_timeout", Timeout(self.connect_timeout)),
            ("idle_timeout", Age(self.idle_timeout)),
            ("max_lifetime", Age(self.max_lifetime)),
            ("health_check_after", Age(self.health_check_after)),
            ("statement_cache", Number(self.statement_cache, 0..=MOST_STATEMENTS)),
            ("reset", Any(format!("{:?}", self.reset))),
            ("leak_detection_threshold", Age(self.leak_detection_threshold)),
            ("leak_backtraces", Any(self.leak_backtraces.to_string())),
            ("long_running", LongRunning(self.long_running.0, self.long_running.1)),
            ("unready_after", Timeout(self.unready_after)),
        ];
        let server = self.server_timeouts.iter().flat_map(ServerTimeouts::values);
        let server = server.filter_map(|(name, timeout)| Some((name, Timeout(timeout?))));
        let values = values.into_iter().chain(server).map(|(name, value)| (Cow::from(name), value));
        let values = values.chain(self.limits().flat_map(|(name, limits)| limits_of(&name, limits)));
        let values = values.chain(self.rates().flat_map(|(name, rate)| values_of(&name, rate)));
        let lanes =
            self.lane_names.iter().map(|(name, lane)| (format!("lane_of.{name}").into(), Any(lane.to_string())));
        #[cfg(feature = "fleet")]
        let lanes = lanes.chain(self.fleet.iter().flat_map(|fleet| {
            let headroom = fleet.headroom.map(|headroom| ("fleet.headroom", Number(headroom, 0..=MOST_CONNECTIONS)));
            let values =
                [("fleet.name", Any(fleet.name.clone())), ("fleet.minimum", Number(fleet.minimum, 1..=self.max_size))];
            values.into_iter().chain(headroom).map(|(name, value)| (Cow::from(name), value))
        }));
        #[cfg(feature = "fleet")]
        let lanes = lanes.chain(self.adaptive_values().map(|(name, value)| (Cow::from(name), value)));
        values.chain(lanes).collect()
    }

    #[cfg(feature = "fleet")]
    fn adaptive_values(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let least = self.min_idle.clamp(1, self.max_size.max(1));
        let start = self.adaptive_start.map(|start| ("adaptive.start", Number(start, least..=self.max_size)));
        let mode = (self.adaptive != Adaptive::Off).then(|| ("adaptive.mode", Any(self.adaptive.to_string())));
        mode.into_iter().chain(start)
    }

    /// The limits of lanes that the owner has set, each with its key.
    fn limits(&self) -> impl Iterator<Item = (String, LaneLimits)> {
        Lane::ALL.into_iter().filter_map(|lane| Some((format!("lane_limits.{lane}"), self.lanes[lane as usize]?)))
    }

    /// The rates, each with its key.
    fn rates(&self) -> impl Iterator<Item = (String, &Rate)> {
        let of_lane = |lane: Lane| Some((format!("rate.{lane}"), self.rates[lane as usize].as_ref()?));
        let of_operations = self.rates_of.iter().map(|(name, rate)| (format!("rate_of.{name}"), rate));
        Lane::ALL.into_iter().filter_map(of_lane).chain(of_operations)
    }

    /// Refuses guarantees that no pool can keep, a lane that may use nothing, and too many names.
    fn check_lanes(&self) -> Result<(), ConfigError> {
        for (name, limits) in self.limits() {
            if limits.at_most == 0.0 {
                return Err(ConfigError::new(format!("{name}.at_most"), 0, "must be more than 0"));
            }
            if let Some(share) = limits.guaranteed.filter(|share| *share > limits.at_most) {
                let rule = format!("must be at most {}, which is at_most", limits.at_most);
                return Err(ConfigError::new(format!("{name}.guaranteed"), share, rule));
            }
        }
        let limits = |lane: Lane| self.lanes[lane as usize].unwrap_or_else(|| LaneLimits::of(lane));
        let sum: f64 = Lane::ALL.into_iter().filter_map(|lane| limits(lane).guaranteed).sum();
        if sum > 1.0 + f64::EPSILON {
            return Err(ConfigError::new("lane_limits", sum, "the guarantees of all lanes must be at most 1 in sum"));
        }
        if self.lane_names.len() > MOST_NAMES {
            let rule = format!("must be at most {MOST_NAMES} operations");
            return Err(ConfigError::new("lane_of", self.lane_names.len(), rule));
        }
        Ok(())
    }

    pub(super) fn effective_max_waiting(&self) -> usize {
        self.max_waiting.unwrap_or(default_max_waiting(self.max_size))
    }

    /// One line for a log, without credentials.
    pub(super) fn in_effect(&self) -> String {
        let values = self.values().into_iter().map(|(name, value)| format!("{name} {value}"));
        values.collect::<Vec<_>>().join(", ")
    }

    /// Refuses the first setting that is out of its range.
    pub(super) fn check_values(&self) -> Result<(), ConfigError> {
        let is_printable = self.name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !(1..=LONGEST_NAME).contains(&self.name.len()) || !is_printable {
            let rule = "must be 1 to 63 printable ASCII characters";
            return Err(ConfigError::new("name", format!("{:?}", self.name), rule));
        }
        for (name, value) in self.values() {
            value.check(&name)?;
        }
        if let Some((name, _)) = self.rates().find(|(_, rate)| !rate.is_limit()) {
            return Err(ConfigError::new(name, "(no limit)", "needs connection_seconds, calls or concurrency"));
        }
        self.check_lanes()?;
        #[cfg(feature = "fleet")]
        if let Some(fleet) = self.fleet.as_ref().filter(|fleet| !is_budget(&fleet.name)) {
            let rule = "must be 1 to 15 characters of a to z, 0 to 9, - and _";
            return Err(ConfigError::new("fleet.name", format!("{:?}", fleet.name), rule));
        }
        #[cfg(feature = "fleet")]
        if let Some(start) = self.adaptive_start.filter(|_| self.adaptive != Adaptive::Act) {
            return Err(ConfigError::new("adaptive.start", start, "needs adaptive.mode = act"));
        }
        if self.min_idle > self.max_size {
            return Err(ConfigError::new("min_idle", self.min_idle, "must be at most max_size"));
        }
        Ok(())
    }
}

/// The values of the limits with the key `name`.
fn limits_of(name: &str, limits: LaneLimits) -> impl Iterator<Item = (Cow<'static, str>, Value)> + use<> {
    let guaranteed = limits.guaranteed.map(|share| (format!("{name}.guaranteed").into(), Share(share)));
    guaranteed.into_iter().chain([(format!("{name}.at_most").into(), Share(limits.at_most))])
}

/// The values of the rate with the key `name`.
fn values_of(name: &str, rate: &Rate) -> impl Iterator<Item = (Cow<'static, str>, Value)> + use<> {
    let seconds = rate.connection_seconds.map(|rate| PerSecond(rate, MOST_CONNECTIONS));
    let values = [
        ("connection_seconds", seconds),
        ("calls", rate.calls.map(|rate| PerSecond(rate, MOST_CALLS))),
        ("concurrency", rate.concurrency.map(|calls| Number(calls, 1..=MOST_CONNECTIONS))),
        ("burst", Some(Timeout(rate.burst))),
    ];
    let name = name.to_owned();
    values.into_iter().filter_map(move |(key, value)| Some((format!("{name}.{key}").into(), value?)))
}

impl Value {
    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let name = || name.to_owned();
        let (time, longest, rule) = match self {
            Number(number, range) if !range.contains(number) => {
                let rule = format!("must be {} to {}", range.start(), range.end());
                return Err(ConfigError::new(name(), number, rule));
            }
            // Also refuses what is no number.
            PerSecond(rate, most) if !(*rate > 0.0 && *rate <= *most as f64) => {
                return Err(ConfigError::new(name(), rate, format!("must be more than 0 and at most {most}")));
            }
            Share(share) if !(0.0..=1.0).contains(share) => {
                return Err(ConfigError::new(name(), share, "must be 0 to 1"));
            }
            Timeout(time) | LongRunning(_, time) => (time, LONGEST_TIMEOUT, "must be more than 0 and at most 24 hours"),
            Age(Some(time)) => (time, LONGEST_AGE, "must be more than 0 and at most 30 days"),
            Number(..) | PerSecond(..) | Share(_) | Age(None) | Any(_) => return Ok(()),
        };
        if time.is_zero() || *time > longest {
            return Err(ConfigError::new(name(), format!("{time:?}"), rule));
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number(number, _) => write!(f, "{number}"),
            PerSecond(number, _) | Share(number) => write!(f, "{number}"),
            Timeout(time) | Age(Some(time)) => write!(f, "{time:?}"),
            Age(None) => f.write_str("never"),
            LongRunning(statements, time) => write!(f, "{statements} for {time:?}"),
            Any(value) => f.write_str(value),
        }
    }
}
