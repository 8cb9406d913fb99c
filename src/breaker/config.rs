//! The settings of a circuit breaker, their defaults and their validation.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::hooks::{CallEvent, Hooks};
use crate::error::ConfigError;
use crate::policy::{BreakerParameters, Growth, Rule, SlowCall, TO_RECORD, Transition};

/// The longest duration that a setting accepts.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The shortest bucket. A shorter one would end before the next call.
const SHORTEST_BUCKET: Duration = Duration::from_millis(1);
/// A bucket takes 56 bytes.
const MOST_BUCKETS: u32 = 1_000;
/// More probes would be the load from which the breaker protects the dependency.
const MOST_PROBES: u32 = 1_000;
const LARGEST_GROWTH: RangeInclusive<f64> = 1.0..=100.0;
const PERCENT: &str = "must be 1 to 100";
/// A call takes three bytes.
const MOST_CALLS: u32 = 10_000;
/// The longest name, in bytes. A pool's name has the same limit.
const LONGEST_NAME: usize = 63;
/// Why a pool refuses a setting.
const NOT_OF_A_POOL: &str = "is for a breaker by itself; a pool has a name, metrics and events of its own";

/// The settings of a [`CircuitBreaker`](super::CircuitBreaker). Each has a default.
/// [`CircuitBreaker::new`](super::CircuitBreaker::new) validates them.
///
/// The names are opossum's where it has them.
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until a breaker is made of them"]
pub struct BreakerConfig {
    name: Option<Arc<str>>,
    automatic_transitions: bool,
    settings: BreakerParameters,
    /// The least probe timeout of a pool, whose calls have a timeout.
    least_probe_timeout: Duration,
    hooks: Hooks,
}

/// Settings that have been checked.
pub(super) struct Checked {
    pub(super) name: Option<Arc<str>>,
    pub(super) automatic_transitions: bool,
    pub(super) settings: BreakerParameters,
    pub(super) hooks: Hooks,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let settings = BreakerParameters {
            rule: Rule::Ours,
            error_threshold: 50,
            volume_threshold: 10,
            window: Duration::from_secs(10),
            buckets: 10,
            count_window: None,
            reset_timeout: Duration::from_secs(30),
            jitter: 10,
            growth: None,
            permitted_probes: 1,
            probe_timeout: Duration::from_secs(15),
            slow_call: None,
            warm_up: false,
            latency: false,
        };
        let (name, automatic_transitions, least_probe_timeout, hooks) = Default::default();
        Self { name, automatic_transitions, settings, least_probe_timeout, hooks }
    }
}

impl BreakerConfig {
    /// Returns the settings of opossum 10, the circuit breaker for Node.js, with its defaults: 50% of all calls in 10
    /// s, no minimum number of calls, a reset timeout of 30 s, one probe.
    ///
    /// With them the breaker judges by other rules than with [`BreakerConfig::default`]:
    ///
    /// - It opens *above* the threshold, not at it, and only after a failure.
    /// - The failure rate is a share of all calls that asked, including those under way and those rejected.
    /// - Late results count. In the half-open state any success closes the circuit and any failure opens it, whenever
    ///   that call began.
    /// - A call that is refused because the capacity is in use is a failure.
    /// - A close forgets nothing; only time does.
    /// - There is no jitter.
    ///
    /// A test replays 100 random schedules that were recorded from opossum 10.0.0. The outcome of each call, the
    /// states, the counts and the changes of state are the same. These differences are intended:
    ///
    /// - A probe that hangs without a timeout, or fails during the warm-up, leaves opossum half-open for ever. Here
    ///   [`probe_timeout`](Self::probe_timeout) ends that state after 10 s, which is opossum's default timeout of a
    ///   call. With a longer [`with_timeout`](super::CircuitBreaker::with_timeout), that one ends it.
    /// - There is no timeout by default: see [`with_timeout`](super::CircuitBreaker::with_timeout).
    /// - opossum asks its `errorFilter` about its own timeouts and refusals. Here
    ///   [`call_with`](super::CircuitBreaker::call_with) sees only errors of the dependency, and
    ///   [`call_judged`](super::CircuitBreaker::call_judged) also sees timeouts.
    /// - The breaker compares the rate in whole numbers. opossum divides floating point numbers, so for some numbers of
    ///   calls it opens *at* some thresholds, for example 7% or 55%.
    /// - Buckets last exactly `rolling_window / rolling_buckets`. opossum cuts that to whole milliseconds.
    /// - A disabled breaker counts nothing. Its state is [`Disabled`](super::State::Disabled), and closed when it is
    ///   enabled again. In opossum the state below continues: it counts the calls that ask, and the results of those
    ///   under way may open it.
    /// - After an import, calls under way do not count, because the imported window does not include them. In opossum a
    ///   breaker with imported state is a new object, in which they do not count either.
    /// - The next caller makes the change to half-open, not a timer: see
    ///   [`automatic_transitions`](Self::automatic_transitions).
    pub fn opossum() -> Self {
        let ours = Self::default();
        let probe_timeout = Duration::from_secs(10);
        let settings =
            BreakerParameters { rule: Rule::Opossum, volume_threshold: 0, jitter: 0, probe_timeout, ..ours.settings };
        Self { settings, ..ours }
    }

    /// The breaker's name in logs, errors and metrics. 1 to 63 printable ASCII characters. Default: none.
    ///
    /// A breaker with a name has [metrics](super#metrics). A pool refuses this setting, because it has its own
    /// [name](crate::PoolBuilder::name).
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The failure rate, in percent, at which the circuit opens. 1 to 100. Default 50.
    ///
    /// The circuit opens at the threshold or above, as the documentation of opossum and resilience4j says. opossum's
    /// code opens above the threshold only.
    pub fn error_threshold_percentage(mut self, percentage: u8) -> Self {
        self.settings.error_threshold = percentage;
        self
    }

    /// The minimum number of calls in the window; with fewer, no rate is judged. Default 10. 0 means 1.
    ///
    /// The circuit also opens after as many failures in a row, over at least the length of a bucket. Earlier successes
    /// do not matter then. opossum has no such rule.
    pub fn volume_threshold(mut self, calls: u64) -> Self {
        self.settings.volume_threshold = calls;
        self
    }

    /// The length of the window. Older calls are forgotten, to the precision of a bucket. At least 1 ms for each
    /// bucket, at most 24 hours. Default 10 s.
    pub fn rolling_window(mut self, window: Duration) -> Self {
        self.settings.window = window;
        self
    }

    /// The number of buckets: the window advances by one bucket at a time. 1 to 1,000. Default 10.
    pub fn rolling_buckets(mut self, buckets: u32) -> Self {
        self.settings.buckets = buckets;
        self
    }

    /// Judges by the last `calls` that ended, instead of the calls within [`rolling_window`](Self::rolling_window). 1
    /// to 10,000, and at least [`volume_threshold`](Self::volume_threshold). Each takes three bytes. Default: off. Like
    /// resilience4j's `COUNT_BASED` window.
    ///
    /// Use it for rare calls, of which a window of seconds holds none. The rolling window remains the duration of a
    /// [warm-up](Self::warm_up). It cannot be combined with [`opossum`](Self::opossum), which counts calls when they
    /// begin.
    pub fn count_window(mut self, calls: u32) -> Self {
        self.settings.count_window = Some(calls);
        self
    }

    /// How long the circuit stays open before it lets a probe through. More than 0, at most 24 hours. Default 30 s.
    pub fn reset_timeout(mut self, reset_timeout: Duration) -> Self {
        self.settings.reset_timeout = reset_timeout;
        self
    }

    /// The jitter: each reset timeout is longer by a random part of up to this many percent, so that many services do
    /// not return at the same instant. 0 to 100. Default 10.
    pub fn reset_timeout_jitter(mut self, percentage: u8) -> Self {
        self.settings.jitter = percentage;
        self
    }

    /// Multiplies the reset timeout by `factor` each time the circuit opens again without having closed, up to `cap`
    /// (plus jitter). `factor` is 1 to 100; `cap` is at least the reset timeout, at most 24 hours. Default: no growth.
    pub fn reset_timeout_growth(mut self, factor: f64, cap: Duration) -> Self {
        self.settings.growth = Some(Growth { factor, cap });
        self
    }

    /// The number of probes that a half-open circuit lets through. When all have ended, the threshold judges them
    /// together. 1 to 1,000. Default 1, as in opossum. resilience4j calls it `permittedNumberOfCallsInHalfOpenState`.
    pub fn permitted_probes(mut self, probes: u32) -> Self {
        self.settings.permitted_probes = probes;
        self
    }

    /// How long a half-open circuit waits for its probes, from the first probe under way. Then it opens again. More
    /// than 0, at most 24 hours. Default 15 s; in a pool, at least 1 s longer than its
    /// [`query_timeout`](crate::PoolBuilder::query_timeout).
    ///
    /// A probe with a longer limit of its own has that time: the timeout or deadline of a call on a pool, or
    /// [`CircuitBreaker::with_timeout`](super::CircuitBreaker::with_timeout). resilience4j calls it
    /// `maxWaitDurationInHalfOpenState`.
    pub fn probe_timeout(mut self, probe_timeout: Duration) -> Self {
        self.settings.probe_timeout = probe_timeout;
        self
    }

    /// Opens the circuit when at least `percentage` of the calls take longer than `longer_than`, even if all succeed.
    /// `longer_than` is more than 0, at most 24 hours; `percentage` is 1 to 100. Default: off. Like resilience4j's
    /// `slowCallRateThreshold`.
    pub fn slow_call(mut self, longer_than: Duration, percentage: u8) -> Self {
        self.settings.slow_call = Some(SlowCall { longer_than, threshold: percentage });
        self
    }

    /// Keeps the circuit closed during its first window, because calls to a cold dependency may fail. Default: off.
    /// Like opossum's `allowWarmUp`.
    pub fn warm_up(mut self, warm_up: bool) -> Self {
        self.settings.warm_up = warm_up;
        self
    }

    /// Records how long calls take, for the percentiles of [`Snapshot::latency`](super::Snapshot::latency). They cover
    /// the last window and are exact to an eighth. Default: off. Like opossum's `rollingPercentilesEnabled`, which is
    /// on by default.
    ///
    /// It costs 2.5 KB of memory, and two clock reads and the breaker's lock for each call. A pool refuses this
    /// setting: it has metrics.
    pub fn latency(mut self, latency: bool) -> Self {
        self.settings.latency = latency;
        self
    }

    /// Changes the state by a timer when its time is up: to half-open after the reset timeout, to open after the probe
    /// timeout. Default: off. Then the next call or query makes the change and runs the hooks. This is resilience4j's
    /// `automaticTransitionFromOpenToHalfOpenEnabled`; opossum always has such a timer.
    ///
    /// It costs one task. The task starts in the Tokio runtime in which the circuit first opens, and ends with the
    /// breaker. If there is no runtime, or it has ended, the setting has no effect until the circuit opens within a
    /// runtime again. In a pool it changes nothing: a pool asks four times a second.
    ///
    /// # Panics
    ///
    /// The task panics if the runtime's timer is not enabled. The setting then has no effect.
    pub fn automatic_transitions(mut self, automatic: bool) -> Self {
        self.automatic_transitions = automatic;
        self
    }

    /// Runs `hook` after each call that ended or was refused, on the caller's thread and without a lock. Several hooks
    /// run in order. If one panics, the others still run. Default: none. A hook costs two clock reads for each call.
    /// Calls through a [disabled](super::CircuitBreaker::disable) breaker run no hook.
    ///
    /// A pool refuses this setting: see its [`Observer`](crate::Observer) and metrics.
    pub fn on_call(mut self, hook: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_call(hook);
        self
    }

    /// Runs `hook` after each change of state, on the thread whose call caused it. No lock is held, so the hook may ask
    /// the breaker. Several hooks run in order. If one panics, the others still run. Default: none. When two threads
    /// change the state at almost the same time, their hooks may overlap; [`Transition::number`] is larger for the
    /// later change.
    pub fn on_transition(mut self, hook: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.hooks.on_transition(hook);
        self
    }

    /// Like [`on_transition`](Self::on_transition), but runs before all other hooks, for all changes at once. So the
    /// others cannot disturb it, even if one panics.
    pub(crate) fn on_transition_first(mut self, hook: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.hooks.on_transition_first(hook);
        self
    }

    /// Returns how many calls may probe at once.
    pub(crate) fn probes(&self) -> usize {
        self.settings.permitted_probes as usize
    }

    /// Calls have this timeout. A probe has at least that time, and some more for the record of its result.
    pub(crate) fn call_timeout(mut self, timeout: Duration) -> Self {
        self.least_probe_timeout = timeout.saturating_add(TO_RECORD);
        self
    }

    pub(super) fn retry_after(&self) -> Duration {
        self.settings.reset_timeout
    }

    /// Refuses settings that have no effect in a pool.
    pub(super) fn check_for_pool(&self) -> Result<(), ConfigError> {
        if let Some(name) = &self.name {
            return Err(ConfigError::new("name", format!("{name:?}"), NOT_OF_A_POOL));
        }
        if self.hooks.want_calls() {
            return Err(ConfigError::new("on_call", "a hook", NOT_OF_A_POOL));
        }
        if self.settings.latency {
            return Err(ConfigError::new("latency", true, NOT_OF_A_POOL));
        }
        Ok(())
    }

    /// Checks every setting. An error names the first that cannot be used.
    pub(super) fn finish(self) -> Result<Checked, ConfigError> {
        let Self { name, automatic_transitions, mut settings, least_probe_timeout, hooks } = self;
        check_name(name.as_deref())?;
        check_percentage("error_threshold_percentage", settings.error_threshold)?;
        check_number("rolling_buckets", settings.buckets, MOST_BUCKETS)?;
        check_duration("rolling_window", settings.window)?;
        if settings.window / settings.buckets < SHORTEST_BUCKET {
            let problem = "must be at least 1 ms for each of rolling_buckets";
            return Err(ConfigError::new("rolling_window", format!("{:?}", settings.window), problem));
        }
        check_count_window(&settings)?;
        check_duration("reset_timeout", settings.reset_timeout)?;
        if settings.jitter > 100 {
            return Err(ConfigError::new("reset_timeout_jitter", settings.jitter, "must be 0 to 100"));
        }
        check_growth(settings.growth, settings.reset_timeout)?;
        check_number("permitted_probes", settings.permitted_probes, MOST_PROBES)?;
        check_duration("probe_timeout", settings.probe_timeout)?;
        if let Some(slow) = settings.slow_call {
            check_duration("slow_call.longer_than", slow.longer_than)?;
            check_percentage("slow_call.percentage", slow.threshold)?;
        }
        settings.probe_timeout = settings.probe_timeout.max(least_probe_timeout);
        Ok(Checked { name, automatic_transitions, settings, hooks })
    }
}

fn check_name(name: Option<&str>) -> Result<(), ConfigError> {
    let is_good =
        |name: &str| (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(|b| (b' '..=b'~').contains(&b));
    match name {
        Some(name) if !is_good(name) => {
            Err(ConfigError::new("name", format!("{name:?}"), "must be 1 to 63 printable ASCII characters"))
        }
        _ => Ok(()),
    }
}

fn check_count_window(settings: &BreakerParameters) -> Result<(), ConfigError> {
    let Some(calls) = settings.count_window else { return Ok(()) };
    let problem = if !(1..=MOST_CALLS).contains(&calls) {
        "must be 1 to 10000"
    } else if u64::from(calls) < settings.volume_threshold {
        "must be at least volume_threshold, or nothing would open the circuit"
    } else if settings.is_opossum() {
        "is not for BreakerConfig::opossum, which judges by the calls that asked within a time"
    } else {
        return Ok(());
    };
    Err(ConfigError::new("count_window", calls, problem))
}

fn check_percentage(setting: &'static str, percentage: u8) -> Result<(), ConfigError> {
    if (1..=100).contains(&percentage) { Ok(()) } else { Err(ConfigError::new(setting, percentage, PERCENT)) }
}

fn check_number(setting: &'static str, number: u32, most: u32) -> Result<(), ConfigError> {
    if (1..=most).contains(&number) { Ok(()) } else { Err(ConfigError::new(setting, number, "must be 1 to 1000")) }
}

fn check_duration(setting: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() || duration > LONGEST {
        let problem = "must be more than 0 and at most 24 hours";
        return Err(ConfigError::new(setting, format!("{duration:?}"), problem));
    }
    Ok(())
}

fn check_growth(growth: Option<Growth>, reset_timeout: Duration) -> Result<(), ConfigError> {
    let Some(Growth { factor, cap }) = growth else { return Ok(()) };
    if !LARGEST_GROWTH.contains(&factor) {
        return Err(ConfigError::new("reset_timeout_growth.factor", factor, "must be 1 to 100"));
    }
    if cap < reset_timeout || cap > LONGEST {
        let problem = "must be from reset_timeout to 24 hours";
        return Err(ConfigError::new("reset_timeout_growth.cap", format!("{cap:?}"), problem));
    }
    Ok(())
}
