//! The public types that describe a circuit breaker: state, cause, transition, snapshot, and the export for another
//! one.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Latency;
use super::counts::Counts;
use crate::human::{Count, HumanDuration};

/// What a circuit breaker does with calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The breaker admits all calls and counts them.
    #[default]
    Closed,
    /// The breaker rejects all calls until the reset timeout is over.
    Open,
    /// The breaker admits a few calls as probes and rejects the others.
    HalfOpen,
    /// The breaker rejects all calls until [`enable`](crate::CircuitBreaker::enable) or
    /// [`reset`](crate::CircuitBreaker::reset).
    ForcedOpen,
    /// The breaker admits all calls and counts nothing.
    Disabled,
    /// The breaker admits all calls and counts them, but never opens the circuit.
    MetricsOnly,
    /// The breaker rejects all calls. This is final.
    ShutDown,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::Disabled, Self::MetricsOnly, Self::ShutDown];

    /// The changes of state that a circuit breaker makes by itself, as pairs of from and to.
    #[cfg(feature = "metrics")]
    pub(crate) const USUAL_CHANGES: [(Self, Self); 4] = [
        (Self::Closed, Self::Open),
        (Self::Open, Self::HalfOpen),
        (Self::HalfOpen, Self::Closed),
        (Self::HalfOpen, Self::Open),
    ];

    /// Returns a word in snake case that never changes, as a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
            Self::ShutDown => "shut_down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics only",
            Self::ShutDown => "shut down",
        })
    }
}

/// Why a circuit breaker changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The failure rate of the window reached the threshold.
    FailureRate,
    /// Nothing succeeded for the length of a bucket, while as many calls failed as the minimum volume. Earlier
    /// successes may still outweigh these failures in the window.
    #[non_exhaustive]
    NothingSucceeds {
        /// The number of failures since the last success.
        failures: u64,
        /// The time from the first of these failures to the last.
        lasting: Duration,
    },
    /// The rate of slow calls of the window reached its threshold.
    SlowRate,
    /// The reset timeout was over.
    ResetTimeout,
    /// The probes succeeded.
    ProbesPassed,
    /// Too many probes failed or were slow.
    ProbesFailed,
    /// A probe was under way for longer than the probe timeout.
    ProbeTimeout,
    /// The server, which was not reached before, answered.
    ServerAnswers,
    /// The circuit was half-open, and the server was not reached or did not answer.
    ServerSilent,
    /// A health check failed.
    HealthCheck,
    /// The state of another breaker was imported.
    Imported,
    /// A method of the breaker was called, with this reason.
    Requested(Arc<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FailureRate => "too many calls failed",
            Self::NothingSucceeds { failures, lasting } => {
                return write!(f, "nothing succeeded for {}, {}", HumanDuration(*lasting), Count(*failures, "failure"));
            }
            Self::SlowRate => "too many calls were slow",
            Self::ResetTimeout => "the reset timeout was over",
            Self::ProbesPassed => "the probes went well",
            Self::ProbesFailed => "the probes failed",
            Self::ProbeTimeout => "a probe did not end",
            Self::ServerAnswers => "the server answers again",
            Self::ServerSilent => "the server does not answer",
            Self::HealthCheck => "a health check failed",
            Self::Imported => "imported",
            Self::Requested(reason) => reason,
        })
    }
}

impl Cause {
    /// Returns what the counts of a transition are counts of.
    fn judges_by(&self) -> &'static str {
        match self {
            Self::ProbesPassed | Self::ProbesFailed | Self::ProbeTimeout | Self::ServerSilent => "probe",
            _ => "call",
        }
    }
}

/// The start of a line about a breaker that has a name: `stock: `.
pub(crate) struct Prefix<'a>(pub(crate) Option<&'a str>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "{name}: "))
    }
}

/// One change of state.
///
/// `Display` is a line for a log: `stock: closed -> open: too many calls failed (6 of 10 calls failed)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's [name](crate::BreakerConfig::name), if it has one.
    pub name: Option<Arc<str>>,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why the state changed.
    pub cause: Cause,
    /// The counts by which the breaker judged: of the window, or of the probes.
    pub counts: Counts,
    /// When the state changed.
    pub at: Instant,
    /// The line of code that ordered the change, if it was ordered.
    pub by: Option<&'static Location<'static>>,
    /// Increases: of two transitions of one breaker, the later one has the larger number.
    pub number: u64,
}

impl Transition {
    /// Writes the line without the name.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { failures, completed, slow, .. } = self.counts;
        let Self { from, to, cause, .. } = self;
        write!(f, "{from} -> {to}: {cause}")?;
        if completed == 0 {
            return Ok(());
        }
        let completed = Count(completed, cause.judges_by());
        write!(f, " ({failures} of {completed} failed")?;
        if slow > 0 {
            write!(f, ", {slow} slow")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Prefix(self.name.as_deref()))?;
        self.describe(f)
    }
}

/// A consistent view of a circuit breaker.
///
/// `Display` is a line for a log, and one more for each change of state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The breaker's [name](crate::BreakerConfig::name), if it has one.
    pub name: Option<Arc<str>>,
    /// The current state.
    pub state: State,
    /// How long the breaker has been in this state.
    pub age: Duration,
    /// The counts of the rolling window.
    pub counts: Counts,
    /// The failure rate of the window, in percent. `None` while the window has fewer calls than the volume threshold.
    pub failure_rate: Option<f64>,
    /// The rate of slow calls of the window, in percent. `None` as above, and without
    /// [`BreakerConfig::slow_call`](crate::BreakerConfig::slow_call).
    pub slow_rate: Option<f64>,
    /// How long a rejected caller should wait before it asks again. `None` while calls pass.
    pub retry_after: Option<Duration>,
    /// The number of probes under way.
    pub probes: u32,
    /// How long calls took. `None` without [`BreakerConfig::latency`](crate::BreakerConfig::latency).
    pub latency: Option<Latency>,
    /// The last 16 changes of state, oldest first.
    pub history: Vec<Past>,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { failures, completed, rejected, .. } = self.counts;
        let Self { state, age, .. } = self;
        let name = Prefix(self.name.as_deref());
        let (age, completed) = (HumanDuration(*age), Count(completed, "call"));
        write!(f, "{name}{state} for {age}: {failures} of {completed} failed, {rejected} rejected")?;
        self.history.iter().try_for_each(|past| {
            write!(f, "\n  {} ago: ", HumanDuration(past.age))?;
            past.transition.describe(f)
        })
    }
}

/// A change of state, and how long ago it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Past {
    /// The change of state.
    pub transition: Transition,
    /// How long ago the change was.
    pub age: Duration,
}

/// The state and the counts of a circuit breaker, for another one that continues from there.
///
/// Times are durations, because an instant means nothing in another process. To build an export from stored values,
/// begin with `Export::default()`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// The state of the breaker.
    pub state: State,
    /// How long it has been in this state. If the import follows much later, add the time between.
    pub age: Duration,
    /// How often it has opened in a row, without a close between. The reset timeout may grow with this number.
    pub openings: u32,
    /// Whether it last opened because the server was not reached.
    pub unreachable: bool,
    /// The counts of the window. After the import they count as calls of that instant, so the window forgets them a
    /// whole window later.
    pub counts: Counts,
    /// The whole time for which the circuit was opened, if [`open_for`](crate::CircuitBreaker::open_for) opened it. Of
    /// that time, `age` is over.
    pub open_for: Option<Duration>,
}
