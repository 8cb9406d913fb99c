//! A circuit breaker: calls to a dependency that keeps failing are rejected at once, instead of making every caller wait for it.
//!
//! The pool has one of its own ([`Pool::breaker`](crate::Pool::breaker)); this module is for everything else that a service calls.
//!
//! ```
//! # use std::time::Duration;
//! # async fn fetch() -> Result<u32, std::io::Error> { Ok(7) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use failfast::breaker::{BreakerConfig, CircuitBreaker};
//!
//! let config = BreakerConfig::default().name("stock").on_transition(|change| println!("{change}"));
//! let breaker = CircuitBreaker::new(config)?.with_timeout(Duration::from_secs(2));
//! let answer = breaker.call(fetch()).await?;
//! # assert_eq!(answer, 7);
//! # Ok(())
//! # }
//! ```
//!
//! By default it opens when half of at least ten calls within ten seconds fail, lets one call try after thirty seconds, and closes when
//! that goes well: see [`BreakerConfig`]. `examples/breaker.rs` has a service that goes through an outage.
//!
//! # Three ways to call
//!
//! - [`call`](CircuitBreaker::call) awaits a future. Every error is a failure. [`call_or_else`](CircuitBreaker::call_or_else) has a
//!   fallback.
//! - [`call_judged`](CircuitBreaker::call_judged) asks a closure for a [`Verdict`]: an `Ok` may be a failure, an error or a timeout may say
//!   nothing. [`call_with`](CircuitBreaker::call_with) only asks which errors are failures.
//! - [`try_acquire`](CircuitBreaker::try_acquire) returns a [`Permit`], for what is no single future. Say how it went.
//!
//! # Metrics
//!
//! With the feature `metrics` (on by default) a breaker that has a [name](BreakerConfig::name) records to the recorder that the process
//! has installed. Every metric has the label `failfast.circuit_breaker.name`.
//!
//! | metric | type | labels | |
//! |---|---|---|---|
//! | `failfast.circuit_breaker.call.duration` | histogram, seconds | `outcome`: `success`, `failure`, `timeout`, `ignored` | calls that ended |
//! | `failfast.circuit_breaker.refused` | counter | `reason`: `rejected`, `busy` | calls that were not begun |
//! | `failfast.circuit_breaker.state` | gauge, 0 or 1 | `state`, as [`State::as_str`] | 1 for the state that it is in |
//! | `failfast.circuit_breaker.transitions` | counter | `from`, `to` | changes of state |
//!
//! Without [`automatic_transitions`](BreakerConfig::automatic_transitions) the state is as of the latest call or question.
//!
//! # If you come from opossum
//!
//! [`BreakerConfig::opossum`] judges as opossum 10 does; a test replays 100 schedules of calls that were recorded from it. The differences
//! that are left are listed there.
//!
//! | opossum | here |
//! |---|---|
//! | `timeout`, default 10 s | [`with_timeout`](CircuitBreaker::with_timeout), default none. The future is dropped: nothing goes on in the background |
//! | `capacity` | [`with_capacity`](CircuitBreaker::with_capacity) |
//! | `errorThresholdPercentage` | [`error_threshold_percentage`](BreakerConfig::error_threshold_percentage) |
//! | `volumeThreshold` | [`volume_threshold`](BreakerConfig::volume_threshold) |
//! | `rollingCountTimeout`, `rollingCountBuckets` | [`rolling_window`](BreakerConfig::rolling_window), [`rolling_buckets`](BreakerConfig::rolling_buckets) |
//! | `resetTimeout` | [`reset_timeout`](BreakerConfig::reset_timeout) |
//! | `allowWarmUp` | [`warm_up`](BreakerConfig::warm_up) |
//! | `errorFilter` | [`call_with`](CircuitBreaker::call_with), the other way round; [`call_judged`](CircuitBreaker::call_judged) sees timeouts, too. Neither is asked about refusals, as opossum's is |
//! | `name` | [`name`](BreakerConfig::name) |
//! | `group` | none: label the recorder, or name breakers `group/name` |
//! | `enabled: false` | [`disable`](CircuitBreaker::disable) |
//! | `rollingPercentilesEnabled`, `latencyMean`, `percentiles` | [`latency`](BreakerConfig::latency), default off; the histogram of the metrics has more |
//! | `cache`, `cacheTTL`, `cacheSize`, `cacheGetKey`, `cacheTransport` | none: a cache is not a breaker's business. Look into yours first, and fall back on it in [`call_or_else`](CircuitBreaker::call_or_else) |
//! | `coalesce` and its options | none: shared futures are (`futures::future::Shared`) |
//! | `abortController`, `autoRenewAbortController` | none needed: a future that is dropped is aborted |
//! | `enableSnapshots`, `rotateBucketController` | none needed: there are no timers |
//! | `state`, `status`, `toJSON()` | [`export`](CircuitBreaker::export), [`import`](CircuitBreaker::import) |
//! | `fire()`, `call()` | [`call`](CircuitBreaker::call): it takes the future of one call, so a breaker has no action of its own |
//! | `fallback()` | [`call_or_else`](CircuitBreaker::call_or_else), for each call |
//! | `healthCheck()` | [`record_health_check`](CircuitBreaker::record_health_check), from a task of yours |
//! | `open()` | [`open_for`](CircuitBreaker::open_for): it recovers, as there |
//! | `close()` | [`reset`](CircuitBreaker::reset) |
//! | `enable()`, `disable()`, `shutdown()` | [`enable`](CircuitBreaker::enable), [`disable`](CircuitBreaker::disable), [`shutdown`](CircuitBreaker::shutdown) |
//! | `stats`, `status.window` | [`snapshot`](CircuitBreaker::snapshot); single buckets cannot be seen |
//! | `isOurError()` | every [`CallError`] but [`Failed`](CallError::Failed) is the breaker's |
//! | events `open`, `halfOpen`, `close`, `shutdown`, `healthCheckFailed` | [`on_transition`](BreakerConfig::on_transition). `halfOpen` without a call: [`automatic_transitions`](BreakerConfig::automatic_transitions) |
//! | events `success`, `failure`, `timeout`, `reject`, `semaphoreLocked` | [`on_call`](BreakerConfig::on_call) |
//! | events `fire`, `fallback`, `snapshot`, `cacheHit` and the like | none |
//!
//! # If you come from resilience4j
//!
//! | resilience4j | here |
//! |---|---|
//! | `failureRateThreshold` | [`error_threshold_percentage`](BreakerConfig::error_threshold_percentage), whole percents |
//! | `slowCallDurationThreshold`, `slowCallRateThreshold` | [`slow_call`](BreakerConfig::slow_call), default off |
//! | `minimumNumberOfCalls`, default 100 | [`volume_threshold`](BreakerConfig::volume_threshold), default 10 |
//! | `slidingWindowType` `COUNT_BASED` (the default there) | [`count_window`](BreakerConfig::count_window) |
//! | `slidingWindowType` `TIME_BASED`, `slidingWindowSize` | [`rolling_window`](BreakerConfig::rolling_window), the default |
//! | `slidingWindowSynchronizationStrategy` | none needed: successes are mostly counted without a lock |
//! | `waitDurationInOpenState`, default 60 s | [`reset_timeout`](BreakerConfig::reset_timeout), default 30 s |
//! | `waitIntervalFunctionInOpenState` | [`reset_timeout_growth`](BreakerConfig::reset_timeout_growth), [`reset_timeout_jitter`](BreakerConfig::reset_timeout_jitter); for a time that the dependency names, [`open_for`](CircuitBreaker::open_for) |
//! | `permittedNumberOfCallsInHalfOpenState`, default 10 | [`permitted_probes`](BreakerConfig::permitted_probes), default 1 |
//! | `maxWaitDurationInHalfOpenState`, default unlimited | [`probe_timeout`](BreakerConfig::probe_timeout), default 15 s |
//! | `transitionToStateAfterWaitDuration` | none: always open |
//! | `automaticTransitionFromOpenToHalfOpenEnabled` | [`automatic_transitions`](BreakerConfig::automatic_transitions) |
//! | `recordExceptions`, `recordExceptionPredicate` | [`call_with`](CircuitBreaker::call_with) |
//! | `ignoreExceptions`, `ignoreExceptionPredicate`, `recordResultPredicate` | [`call_judged`](CircuitBreaker::call_judged): [`Verdict::Ignore`], or [`Verdict::Failure`] of an `Ok` |
//! | `initialState` | [`import`](CircuitBreaker::import) of an [`Export`] with that state |
//! | `writableStackTraceEnabled`, `currentTimestampFunction` | none needed: errors have no stack trace, and tests pause Tokio's clock |
//! | `tryAcquirePermission()`, `onSuccess()`, `onError()`, `releasePermission()` | [`try_acquire`](CircuitBreaker::try_acquire), [`Permit`] |
//! | `executeSupplier()` and other decorators | [`call`](CircuitBreaker::call) |
//! | fallback (`recover`, `fallbackMethod`) | [`call_or_else`](CircuitBreaker::call_or_else) |
//! | `TimeLimiter`, `Bulkhead` | [`with_timeout`](CircuitBreaker::with_timeout), [`with_capacity`](CircuitBreaker::with_capacity) |
//! | `transitionToForcedOpenState()`, `...DisabledState()`, `...MetricsOnlyState()` | [`force_open`](CircuitBreaker::force_open), [`disable`](CircuitBreaker::disable), [`metrics_only`](CircuitBreaker::metrics_only) |
//! | `transitionToOpenStateFor(duration)` | [`open_for`](CircuitBreaker::open_for) |
//! | `transitionToClosedState()`, `reset()` | [`enable`](CircuitBreaker::enable) after an order, else [`reset`](CircuitBreaker::reset) |
//! | `getMetrics()`, `getState()` | [`snapshot`](CircuitBreaker::snapshot), [`state`](CircuitBreaker::state) |
//! | `getEventPublisher()` | [`on_call`](BreakerConfig::on_call), [`on_transition`](BreakerConfig::on_transition) |
//! | `CircuitBreakerRegistry`, tags | none: a breaker is a value. Keep it where the client of the dependency is |

mod call;
mod config;
mod foreign;
mod hooks;
#[cfg(feature = "metrics")]
mod metered;
mod permit;
mod pool;
#[cfg(any(feature = "failsafe", test))]
mod rolling_window;
mod shared;
mod tally;
mod timer;
mod verdict;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::call::CallError;
pub use self::config::BreakerConfig;
use self::config::LONGEST;
use self::foreign::Foreign;
pub(crate) use self::foreign::Machine;
pub use self::hooks::{CallEvent, CallOutcome};
pub use self::permit::Permit;
#[cfg(any(feature = "failsafe", test))]
pub use self::rolling_window::RollingWindow;
use self::shared::Shared;
pub use self::verdict::Verdict;
use crate::clock::now;
use crate::error::ConfigError;
pub use crate::policy::{Cause, Counts, Export, Latency, Past, Snapshot, State, Transition};
use crate::policy::{Deadline, Denied, Order, Prefix};

/// A circuit breaker for any fallible call. Cloning is cheap; all clones are one breaker.
///
/// A breaker has no task and no timer by default: it checks the time when somebody asks. It needs a Tokio runtime only
/// for [`with_timeout`](Self::with_timeout) and [`automatic_transitions`](BreakerConfig::automatic_transitions).
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    shared: Arc<Shared>,
    timeout: Option<Duration>,
    places: Option<Arc<Semaphore>>,
    /// Of a pool only.
    foreign: Option<Foreign>,
}

impl CircuitBreaker {
    /// A closed circuit.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        Ok(Self { shared: Shared::new(now(), config)?, timeout: None, places: None, foreign: None })
    }

    /// Limits each [`call`](Self::call) to `timeout`. A call that takes longer is dropped and counts as a failure.
    /// Default: no limit. opossum's default is 10 s.
    ///
    /// A probe has that time as well, even if [`probe_timeout`](BreakerConfig::probe_timeout) is shorter. This includes
    /// probes by [`try_acquire`](Self::try_acquire), whose caller is expected to keep the limit.
    #[must_use = "the breaker it is called on is used up"]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Limits how many [`call`](Self::call)s run at the same time. One more is refused at once. Default: no limit, as
    /// in opossum. The limit is at most what Tokio's semaphore can count.
    #[must_use = "the breaker it is called on is used up"]
    pub fn with_capacity(mut self, calls: usize) -> Self {
        self.places = Some(Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))));
        self
    }

    /// Returns the permit for one call. In a closed circuit this is one atomic load. Recording the result reads the
    /// clock.
    ///
    /// # Errors
    ///
    /// [`Rejected`], if the circuit is open, or half-open with enough probes under way.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        let ticket = self.shared.pass().map_or_else(|| self.shared.admit(now()), Ok);
        let ticket = ticket.map_err(|denied| self.rejected(denied))?;
        if let Some(timeout) = self.timeout {
            self.shared.ends_at(ticket, || Deadline::after(now(), timeout));
        }
        Ok(Permit::new(&self.shared, ticket))
    }

    fn rejected(&self, Denied { state, retry_after, .. }: Denied) -> Rejected {
        self.shared.tell_call(CallOutcome::Rejected, Duration::ZERO);
        Rejected { name: self.shared.name().cloned(), state, retry_after }
    }

    /// Its [name](BreakerConfig::name), if it has one.
    pub fn name(&self) -> Option<&str> {
        self.shared.name().map(|name| &**name)
    }

    /// The current state.
    pub fn state(&self) -> State {
        let now = now();
        self.shared.with(|breaker| breaker.state(now))
    }

    /// A consistent snapshot of state, counts and history.
    pub fn snapshot(&self) -> Snapshot {
        let now = now();
        self.shared.with(|breaker| breaker.snapshot(now))
    }

    /// Records the result of a health check. A failed check opens the circuit at once, as in opossum. A successful one
    /// changes nothing: only calls close a circuit.
    pub fn record_health_check(&self, healthy: bool) {
        if !healthy {
            let now = now();
            self.shared.with(|breaker| breaker.health_check_failed(now));
        }
    }

    /// Rejects all calls until [`enable`](Self::enable) or [`reset`](Self::reset). `reason` goes to the history, here and below.
    #[track_caller]
    pub fn force_open(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::ForceOpen, reason);
    }

    /// Opens the circuit for `time`. Then it recovers as if it had opened by itself: half-open, one probe, closed. Use
    /// it when a dependency says when it will be back, as a 503 with `Retry-After` does; every such answer may call
    /// this. An earlier end never replaces a later one. At most 24 hours.
    ///
    /// It does nothing while another order holds: [`force_open`](Self::force_open), [`disable`](Self::disable),
    /// [`metrics_only`](Self::metrics_only) or [`shutdown`](Self::shutdown).
    #[track_caller]
    pub fn open_for(&self, time: Duration, reason: impl Into<Arc<str>>) {
        self.order(Order::OpenFor(time.min(LONGEST)), reason);
    }

    /// Closes the circuit and forgets what it has seen, but for the history. Calls under way no longer count.
    ///
    /// Under [`BreakerConfig::opossum`] this is opossum's `close()`: the window and the calls under way still count, as after any close there.
    #[track_caller]
    pub fn reset(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::Reset, reason);
    }

    /// Lets all calls through and counts nothing. The timeout and the capacity do not apply to calls that begin meanwhile.
    #[track_caller]
    pub fn disable(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::Disable, reason);
    }

    /// Ends [`disable`](Self::disable), [`metrics_only`](Self::metrics_only) or [`force_open`](Self::force_open): the circuit is closed.
    /// One that opened by itself stays open.
    #[track_caller]
    pub fn enable(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::Enable, reason);
    }

    /// Lets all calls through and counts them, to observe what the breaker would do.
    #[track_caller]
    pub fn metrics_only(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::MetricsOnly, reason);
    }

    /// Rejects all calls from now on, for good.
    #[track_caller]
    pub fn shutdown(&self) {
        self.order(Order::ShutDown, "shut down");
    }

    /// Exports the state and the counts, for [`import`](Self::import) by another breaker.
    pub fn export(&self) -> Export {
        let now = now();
        self.shared.with(|breaker| breaker.export(now))
    }

    /// Continues with the state and the counts of another breaker and the settings of this one. Calls under way no
    /// longer count.
    pub fn import(&self, export: &Export) {
        let now = now();
        self.shared.with(|breaker| breaker.import(now, export));
    }

    #[track_caller]
    fn order(&self, order: Order, reason: impl Into<Arc<str>>) {
        let (now, reason, by) = (now(), reason.into(), Location::caller());
        self.shared.with(|breaker| breaker.obey(now, order, reason, by));
    }
}

/// A circuit breaker did not let a call through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}the circuit is {state}; come back in {retry_after:?}", Prefix(name.as_deref()))]
#[non_exhaustive]
pub struct Rejected {
    /// The breaker's [name](BreakerConfig::name), if it has one.
    pub name: Option<Arc<str>>,
    /// What the breaker does with calls.
    pub state: State,
    /// Earlier, it would be rejected again; with a probe under way, it is an estimate. More than 0.
    pub retry_after: Duration,
}

#[cfg(test)]
mod tests;
