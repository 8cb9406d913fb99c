//! The settings of a circuit breaker, their defaults and their validation.

use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
use crate::policy::{Growth, Rule, Settings, SlowCall, TO_SAY_SO, Transition};

/// Longer than this is not a timeout.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What does not tell one bucket from the next is no window.
const SHORTEST_BUCKET: Duration = Duration::from_millis(1);
/// Each is 56 bytes.
const MOST_BUCKETS: u32 = 1_000;
/// More probes than this are the load that the dependency is to be spared.
const MOST_PROBES: u32 = 1_000;
const LARGEST_GROWTH: RangeInclusive<f64> = 1.0..=100.0;
const PERCENT: &str = "must be 1 to 100";

/// The settings of a [`CircuitBreaker`](super::CircuitBreaker). Every one has a default; none is checked before
/// [`CircuitBreaker::new`](super::CircuitBreaker::new).
///
/// The names are opossum's where it has them.
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until a breaker is made of them"]
pub struct BreakerConfig {
    settings: Settings,
    /// Of a probe, when it is known what calls may take.
    shortest_lease: Duration,
    hooks: Hooks,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let settings = Settings {
            rule: Rule::Ours,
            error_threshold: 50,
            volume_threshold: 10,
            window: Duration::from_secs(10),
            buckets: 10,
            reset_timeout: Duration::from_secs(30),
            jitter: 10,
            growth: None,
            permitted_probes: 1,
            probe_timeout: Duration::from_secs(15),
            slow_call: None,
            warm_up: false,
        };
        Self { settings, shortest_lease: Duration::ZERO, hooks: Hooks::default() }
    }
}

impl BreakerConfig {
    /// The breaker of opossum 10, the circuit breaker for Node.js, with its defaults: 50% of all calls in 10 s, no minimum, 30 s, one probe.
    ///
    /// It judges in another way than [`BreakerConfig::default`]:
    ///
    /// - it opens *above* the threshold, not at it, and only after a failure;
    /// - the failure rate is a share of all calls that asked: those under way and those rejected count too;
    /// - late results decide: in the half-open state any success closes and any failure opens, whenever that call began;
    /// - a call refused for want of capacity is a failure;
    /// - closing forgets nothing: only time does;
    /// - no jitter.
    ///
    /// What is ordered by hand, [`disable`](super::CircuitBreaker::disable) and the like, and what is exported, is as ever.
    ///
    /// Two of its defects are left out: there, a probe that hangs without a timeout, or fails during the warm-up, leaves the circuit half-open
    /// for ever. Here [`probe_timeout`](Self::probe_timeout) ends it, after 10 s, which is opossum's default timeout of a call.
    /// For that timeout itself, and its capacity, see [`CircuitBreaker::with_timeout`](super::CircuitBreaker::with_timeout).
    pub fn opossum() -> Self {
        let ours = Self::default();
        let probe_timeout = Duration::from_secs(10);
        let settings = Settings { rule: Rule::Opossum, volume_threshold: 0, jitter: 0, probe_timeout, ..ours.settings };
        Self { settings, ..ours }
    }

    /// Opens when at least this share of the calls in the window failed, in percent. 1 to 100. Default 50.
    ///
    /// At or above, as opossum's README and resilience4j say; opossum itself opens above only.
    pub fn error_threshold_percentage(mut self, percentage: u8) -> Self {
        self.settings.error_threshold = percentage;
        self
    }

    /// Fewer calls than this in the window say nothing. Default 10. 0 is as 1.
    ///
    /// As many failures in a row, over at least the length of a bucket, open the circuit in any case, however much succeeded before: then
    /// nothing succeeds any more. (Not as opossum.)
    pub fn volume_threshold(mut self, calls: u64) -> Self {
        self.settings.volume_threshold = calls;
        self
    }

    /// What happened longer ago is forgotten, give or take a bucket. At most 24 hours, and at least 1 ms for each bucket. Default 10 s.
    pub fn rolling_window(mut self, window: Duration) -> Self {
        self.settings.window = window;
        self
    }

    /// The parts in which the window moves on. 1 to 1,000. Default 10.
    pub fn rolling_buckets(mut self, buckets: u32) -> Self {
        self.settings.buckets = buckets;
        self
    }

    /// How long the circuit stays open before a probe is let through. More than 0, at most 24 hours. Default 30 s.
    pub fn reset_timeout(mut self, reset_timeout: Duration) -> Self {
        self.settings.reset_timeout = reset_timeout;
        self
    }

    /// By how much the reset timeout is made longer by chance, at most, in percent: so that many services do not come back in one
    /// instant. 0 to 100. Default 10.
    pub fn reset_timeout_jitter(mut self, percentage: u8) -> Self {
        self.settings.jitter = percentage;
        self
    }

    /// With each opening that follows another without a close between, the reset timeout is `factor` times longer, up to `cap` (and
    /// the jitter). 1 to 100; `cap` from the reset timeout to 24 hours. Default: it does not grow.
    pub fn reset_timeout_growth(mut self, factor: f64, cap: Duration) -> Self {
        self.settings.growth = Some(Growth { factor, cap });
        self
    }

    /// So many calls are let through half-open, and judged together by the threshold when all have ended. 1 to 1,000. Default 1, as opossum;
    /// resilience4j's `permittedNumberOfCallsInHalfOpenState`.
    pub fn permitted_probes(mut self, probes: u32) -> Self {
        self.settings.permitted_probes = probes;
        self
    }

    /// Half-open without a verdict for so long, since the first of the probes under way was let through: the circuit opens again. More than
    /// 0, at most 24 hours.
    /// Default 15 s; in a pool at least 1 s longer than its [`query_timeout`](crate::PoolBuilder::query_timeout). A probe that has a timeout or a deadline of its own has that time in any case, and 1 s more to say how it went: that of the call on
    /// a pool, or that of [`CircuitBreaker::with_timeout`](super::CircuitBreaker::with_timeout). As resilience4j's `maxWaitDurationInHalfOpenState`.
    pub fn probe_timeout(mut self, probe_timeout: Duration) -> Self {
        self.settings.probe_timeout = probe_timeout;
        self
    }

    /// A call that takes longer than `longer_than` is slow, and `percentage` of slow calls opens the circuit too, even if all succeed.
    /// More than 0, at most 24 hours; 1 to 100. Default: off. As resilience4j's `slowCallRateThreshold`.
    pub fn slow_call(mut self, longer_than: Duration, percentage: u8) -> Self {
        self.settings.slow_call = Some(SlowCall { longer_than, threshold: percentage });
        self
    }

    /// Nothing opens the circuit while its first window lasts: calls to a cold dependency may fail. Default: off. As opossum's `allowWarmUp`.
    pub fn warm_up(mut self, warm_up: bool) -> Self {
        self.settings.warm_up = warm_up;
        self
    }

    /// Runs `hook` after each change of state, on the thread whose call brought it about. No lock is held: it may ask the breaker. Default: none;
    /// several run in order. When two threads change the state at almost the same time, their hooks may overlap:
    /// [`Transition::number`] tells which was first. One that panics harms nobody else.
    pub fn on_transition(mut self, hook: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.hooks.0.push(Arc::new(hook));
        self
    }

    /// As [`on_transition`](Self::on_transition), before all others and for all news at once: whatever they do, even if one panics.
    pub(crate) fn on_transition_first(mut self, hook: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.hooks.0.insert(0, Arc::new(hook));
        self
    }

    /// How many calls may probe at once.
    pub(crate) fn probes(&self) -> usize {
        self.settings.permitted_probes as usize
    }

    /// A call may take so long: whatever the probe timeout, a probe has that time, and some more to say how it went.
    pub(crate) fn calls_may_take(mut self, timeout: Duration) -> Self {
        self.shortest_lease = timeout.saturating_add(TO_SAY_SO);
        self
    }

    pub(super) fn retry_after(&self) -> Duration {
        self.settings.reset_timeout
    }

    /// Checks every setting. An error names the first that cannot be used.
    pub(super) fn finish(self) -> Result<(Settings, Hooks), ConfigError> {
        let mut settings = self.settings;
        check_percentage("error_threshold_percentage", settings.error_threshold)?;
        check_number("rolling_buckets", settings.buckets, MOST_BUCKETS)?;
        check_duration("rolling_window", settings.window)?;
        if settings.window / settings.buckets < SHORTEST_BUCKET {
            let problem = "must be at least 1 ms for each of rolling_buckets";
            return Err(ConfigError::new("rolling_window", format!("{:?}", settings.window), problem));
        }
        check_duration("reset_timeout", settings.reset_timeout)?;
        if settings.jitter > 100 {
            return Err(ConfigError::new("reset_timeout_jitter", settings.jitter, "must be 0 to 100"));
        }
        check_growth(settings.growth, settings.reset_timeout)?;
        check_number("permitted_probes", settings.permitted_probes, MOST_PROBES)?;
        check_duration("probe_timeout", settings.probe_timeout)?;
        if let Some(slow) = settings.slow_call {
            check_duration("slow_call", slow.longer_than)?;
            check_percentage("slow_call", slow.threshold)?;
        }
        settings.probe_timeout = settings.probe_timeout.max(self.shortest_lease);
        Ok((settings, self.hooks))
    }
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
        return Err(ConfigError::new("reset_timeout_growth", factor, "must be 1 to 100"));
    }
    if cap < reset_timeout || cap > LONGEST {
        let problem = "must be from reset_timeout to 24 hours";
        return Err(ConfigError::new("reset_timeout_growth", format!("{cap:?}"), problem));
    }
    Ok(())
}

type Hook = Arc<dyn Fn(&Transition) + Send + Sync>;

/// Who wants to know of changes of state.
#[derive(Clone, Default)]
pub(super) struct Hooks(Vec<Hook>);

impl Hooks {
    pub(super) fn tell(&self, news: &[Transition]) {
        for hook in &self.0 {
            for transition in news {
                // One that panics has had its say on stderr, and harms neither the call that brought this about nor the other hooks.
                let _ = catch_unwind(AssertUnwindSafe(|| hook(transition)));
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks", self.0.len())
    }
}
