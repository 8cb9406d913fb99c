//! A circuit breaker: calls to a dependency that keeps failing are rejected at once, instead of making everybody wait for it.
//!
//! The pool has one of its own; this module is for everything else that a service calls.
//!
//! ```
//! # use std::time::Duration;
//! # async fn fetch() -> Result<u32, std::io::Error> { Ok(7) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use failfast::breaker::{BreakerConfig, CircuitBreaker};
//!
//! let config = BreakerConfig::default().error_threshold_percentage(30).on_transition(|change| println!("{change}"));
//! let breaker = CircuitBreaker::new(config)?.with_timeout(Duration::from_secs(2));
//! let answer = breaker.call(fetch()).await?;
//! # assert_eq!(answer, 7);
//! # Ok(())
//! # }
//! ```
//!
//! By default it opens when half of at least ten calls within ten seconds fail, lets one call try after thirty seconds, and closes when that goes well: see
//! [`BreakerConfig`].

mod call;
mod config;
mod foreign;
mod permit;
mod pool;
#[cfg(any(feature = "failsafe", test))]
mod rolling_window;
mod shared;
mod tally;

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use self::call::{CallError, Verdict};
pub use self::config::BreakerConfig;
use self::config::LONGEST;
use self::foreign::Foreign;
pub(crate) use self::foreign::Machine;
pub use self::permit::Permit;
#[cfg(any(feature = "failsafe", test))]
pub use self::rolling_window::RollingWindow;
use self::shared::Shared;
use crate::error::ConfigError;
pub use crate::policy::{Cause, Counts, Export, Past, Snapshot, State, Transition};
use crate::policy::{Deadline, Denied, Order};

/// Tokio's clock, which tests can turn.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A circuit breaker for any fallible call. Cloning is cheap; all clones are one breaker.
///
/// It has no task and no timer: time is looked at when somebody asks. It needs a Tokio runtime only for
/// [`with_timeout`](Self::with_timeout).
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
        Ok(Self { shared: Arc::new(Shared::new(now(), config)?), timeout: None, places: None, foreign: None })
    }

    /// [`call`](Self::call) gives up after `timeout`, which counts as a failure. Default: it waits, however long. opossum's default is 10 s.
    ///
    /// A probe has that time as well, even if [`probe_timeout`](BreakerConfig::probe_timeout) is shorter: one through [`call`](Self::call) and one through
    /// [`try_acquire`](Self::try_acquire), whose caller keeps to it.
    #[must_use = "the breaker it is called on is used up"]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// At most so many [`call`](Self::call)s at a time; one more is refused at once. Default: as many as come, as in opossum. More than
    /// Tokio's semaphore can count means as many as it can.
    #[must_use = "the breaker it is called on is used up"]
    pub fn with_capacity(mut self, calls: usize) -> Self {
        self.places = Some(Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))));
        self
    }

    /// The right to make one call. In a closed circuit this is one load; the result takes a look at the clock.
    ///
    /// # Errors
    ///
    /// [`Rejected`], if the circuit is open, or half-open with enough probes under way.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        let ticket = self.shared.pass().map_or_else(|| self.shared.admit(now()), Ok)?;
        if let Some(timeout) = self.timeout {
            self.shared.ends_at(ticket, || Deadline::after(now(), timeout));
        }
        Ok(Permit::new(&self.shared, ticket))
    }

    /// What it does with calls, now.
    pub fn state(&self) -> State {
        let now = now();
        self.shared.with(|breaker| breaker.state(now))
    }

    /// A consistent look at everything.
    pub fn snapshot(&self) -> Snapshot {
        let now = now();
        self.shared.with(|breaker| breaker.snapshot(now))
    }

    /// A health check of the dependency: one that fails opens the circuit at once, as in opossum. One that succeeds changes nothing: only calls
    /// close a circuit.
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

    /// Opens the circuit for `time`, after which it recovers as if it had opened by itself: half-open, one probe, closed. For a dependency that says
    /// when it will be back, as a 503 with `Retry-After` does; it may be told for each such answer. An earlier end never replaces a later one. More than
    /// 24 hours mean 24 hours.
    ///
    /// It does nothing while somebody else's order holds: [`force_open`](Self::force_open), [`disable`](Self::disable),
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

    /// Counts, but lets all calls through: for a look at what it would do.
    #[track_caller]
    pub fn metrics_only(&self, reason: impl Into<Arc<str>>) {
        self.order(Order::MetricsOnly, reason);
    }

    /// Rejects all calls from now on, for good.
    #[track_caller]
    pub fn shutdown(&self) {
        self.order(Order::ShutDown, "shut down");
    }

    /// What another breaker needs to go on from here.
    pub fn export(&self) -> Export {
        let now = now();
        self.shared.with(|breaker| breaker.export(now))
    }

    /// Goes on where another breaker was, with the settings of this one. Calls under way no longer count.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is {state}; come back in {retry_after:?}")]
#[non_exhaustive]
pub struct Rejected {
    /// What the breaker does with calls.
    pub state: State,
    /// Earlier, it would be rejected again; with a probe under way, it is an estimate. More than 0.
    pub retry_after: Duration,
}

impl From<Denied> for Rejected {
    fn from(Denied { state, retry_after, .. }: Denied) -> Self {
        Self { state, retry_after }
    }
}

impl<E> From<Rejected> for CallError<E> {
    fn from(Rejected { state, retry_after }: Rejected) -> Self {
        if state == State::ShutDown { Self::ShutDown } else { Self::Open { retry_after } }
    }
}

#[cfg(test)]
mod tests;
