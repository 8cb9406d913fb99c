//! A circuit breaker: while a dependency keeps failing, calls to it are rejected at once instead of waiting for it.
//!
//! The pool has its own breaker ([`Pool::breaker`](crate::Pool::breaker)). This module is for everything else that a
//! service calls.
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
//! By default the circuit opens when half of at least ten calls within ten seconds fail. After thirty seconds it lets
//! one call through as a probe, and closes if that call succeeds. [`BreakerConfig`] has all settings.
//! `examples/breaker.rs` has a service that goes through an outage.
//!
//! # Three ways to call
//!
//! - [`call`](CircuitBreaker::call) awaits a future. Every error is a failure.
//!   [`call_or_else`](CircuitBreaker::call_or_else) has a fallback.
//! - [`call_judged`](CircuitBreaker::call_judged) asks a closure for a [`Verdict`]: an `Ok` may be a failure, an error
//!   or a timeout may say nothing. [`call_with`](CircuitBreaker::call_with) only asks which errors are failures.
//! - [`try_acquire`](CircuitBreaker::try_acquire) returns a [`Permit`], for work that is no single future. The caller
//!   records how the work ended.
//!
//! # Metrics
//!
//! With the feature `metrics` (on by default), a breaker that has a [name](BreakerConfig::name) records to the recorder
//! of the process. Every metric has the label `failfast.circuit_breaker.name`.
//!
//! | metric | type | labels | |
//! |---|---|---|---|
//! | `failfast.circuit_breaker.call.duration` | histogram, seconds | `outcome`: `success`, `failure`, `timeout`, `ignored` | calls that ended |
//! | `failfast.circuit_breaker.refused` | counter | `reason`: `rejected`, `busy` | calls that were not begun |
//! | `failfast.circuit_breaker.state` | gauge, 0 or 1 | `state`, as [`State::as_str`] | 1 for the current state |
//! | `failfast.circuit_breaker.transitions` | counter | `from`, `to` | changes of state |
//!
//! Without [`automatic_transitions`](BreakerConfig::automatic_transitions) the state is as of the latest call or
//! query.
//!
#![doc = include_str!("breaker/migrating.md")]
// The rules (when does the circuit open?) are in `policy/breaker.rs`, without a clock or a lock. This folder has:
//
// - `config`: settings
// - `call`: permits, verdicts, futures
// - `shared`: the rules under a lock
// - `fast_path`: a way around the lock for most calls
// - `timer`: changes that time causes
// - `hooks`: callbacks
// - `metered`: metrics
// - `pool`: the breaker of a pool
// - `failsafe`: that crate's policy and state machine

mod call;
mod config;
#[cfg(any(feature = "failsafe", test))]
mod failsafe;
mod fast_path;
mod hooks;
#[cfg(feature = "metrics")]
mod metered;
mod pool;
mod shared;
mod timer;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::call::{CallError, Permit, Rejected, Verdict};
pub use self::config::BreakerConfig;
use self::config::LONGEST;
#[cfg(any(feature = "failsafe", test))]
pub use self::failsafe::RollingWindow;
pub use self::hooks::{CallEvent, CallOutcome};
pub(crate) use self::pool::{Machine, PoolBreaker};
use self::shared::Shared;
use crate::clock::now;
use crate::error::ConfigError;
use crate::policy::Order;
pub use crate::policy::{Cause, Counts, Export, Latency, Past, Snapshot, State, Transition};

/// A circuit breaker for any fallible call. Cloning is cheap; all clones are one breaker.
///
/// A breaker has no task and no timer by default: each call or query checks the time. It needs a Tokio runtime only
/// for [`with_timeout`](Self::with_timeout) and [`automatic_transitions`](BreakerConfig::automatic_transitions).
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    shared: Arc<Shared>,
    timeout: Option<Duration>,
    /// One place for each call that may run at the same time.
    places: Option<Arc<Semaphore>>,
}

impl CircuitBreaker {
    /// Returns a breaker whose circuit is closed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        Ok(Self { shared: Shared::new(now(), config)?, timeout: None, places: None })
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

    /// Returns the breaker's [name](BreakerConfig::name), if it has one.
    pub fn name(&self) -> Option<&str> {
        self.shared.name().map(|name| &**name)
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        let now = now();
        self.shared.with(|breaker| breaker.state(now))
    }

    /// Returns a consistent snapshot of state, counts and history.
    pub fn snapshot(&self) -> Snapshot {
        let now = now();
        self.shared.with(|breaker| breaker.snapshot(now))
    }

    /// Records the result of a health check. A failed check opens the circuit at once, as in opossum. A successful one
    /// changes nothing: only calls close a circuit.
    pub fn record_health_check(&self, healthy: bool) {
        if !healthy {
            let now = now();
            self.shared.with(|breaker| breaker.on_health_check_failed(now));
        }
    }

    /// Rejects all calls until [`enable`](Self::enable) or [`reset`](Self::reset). The history records `reason`, as for
    /// all methods below that take one.
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

    /// Closes the circuit and clears the window, but not the history. Calls under way no longer count.
    ///
    /// With [`BreakerConfig::opossum`] this is opossum's `close()`: the window and the calls under way still count.
    #[track_caller]
    pub fn reset(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::Reset, reason);
    }

    /// Lets all calls through and counts nothing. The timeout and the capacity do not apply to calls that begin while
    /// the breaker is disabled.
    #[track_caller]
    pub fn disable(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::Disable, reason);
    }

    /// Ends [`disable`](Self::disable), [`metrics_only`](Self::metrics_only) or [`force_open`](Self::force_open) and
    /// closes the circuit. A circuit that opened by itself stays open.
    #[track_caller]
    pub fn enable(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::Enable, reason);
    }

    /// Lets all calls through and counts them, so that an owner sees the rates before the breaker acts on them.
    #[track_caller]
    pub fn metrics_only(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::MetricsOnly, reason);
    }

    /// Rejects all calls from now on. This is final.
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

#[cfg(test)]
mod tests;
