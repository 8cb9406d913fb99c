//! What a circuit breaker tells of itself: its state, how it came about, and what another one needs to go on from there.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Latency;
use crate::human::{Count, HumanDuration};
use crate::policy::window::Counts;

/// What a circuit breaker does with calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass, and are counted.
    #[default]
    Closed,
    /// Calls are rejected until the reset timeout is over.
    Open,
    /// A few calls pass, as probes; the others are rejected.
    HalfOpen,
    /// Calls are rejected until somebody says otherwise.
    ForcedOpen,
    /// Calls pass, and nothing is counted.
    Disabled,
    /// Calls pass and are counted, but never open the circuit.
    MetricsOnly,
    /// Calls are rejected, for good.
    ShutDown,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::Disabled, Self::MetricsOnly, Self::ShutDown];

    /// The changes of state that a circuit breaker makes by itself, from and to.
    #[cfg(feature = "metrics")]
    pub(crate) const USUAL_CHANGES: [(Self, Self); 4] = [
        (Self::Closed, Self::Open),
        (Self::Open, Self::HalfOpen),
        (Self::HalfOpen, Self::Closed),
        (Self::HalfOpen, Self::Open),
    ];

    /// A word in snake case that never changes: a label for metrics.
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
    /// Too many calls in the window had failed.
    FailureRate,
    /// For the length of a bucket nothing had succeeded, while as many calls failed as the minimum volume. Calls that succeeded before may still outweigh
    /// them in the window.
    #[non_exhaustive]
    NothingSucceeds {
        /// Since the last success.
        failures: u64,
        /// The time from the first of them to the last.
        lasting: Duration,
    },
    /// Too many calls in the window were slow.
    SlowRate,
    /// The reset timeout was over.
    ResetTimeout,
    /// The probes went well.
    ProbesPassed,
    /// Too many probes failed, or were slow.
    ProbesFailed,
    /// A probe was under way for longer than the probe timeout.
    ProbeTimeout,
    /// The server, which could not be reached, answers again.
    ServerAnswers,
    /// Half-open, the server could not be reached, or did not answer.
    ServerSilent,
    /// A health check failed.
    HealthCheck,
    /// The state was another breaker's, and has been imported.
    Imported,
    /// Somebody asked for it, and said why.
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
    /// What the counts of a transition are counts of.
    fn judges_by(&self) -> &'static str {
        match self {
            Self::ProbesPassed | Self::ProbesFailed | Self::ProbeTimeout | Self::ServerSilent => "probe",
            _ => "call",
        }
    }
}

/// What stands before a line about a breaker that has a name: `stock: `.
pub(crate) struct Prefix<'a>(pub(crate) Option<&'a str>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "{name}: "))
    }
}

/// One change of state. `Display` is a line for a log: `stock: closed -> open: too many calls failed (6 of 10 calls failed)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's [name](crate::BreakerConfig::name), if it has one.
    pub name: Option<Arc<str>>,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// What it was judged by: the window, or the probes.
    pub counts: Counts,
    /// When.
    pub at: Instant,
    /// The call that asked for it, if somebody did.
    pub by: Option<&'static Location<'static>>,
    /// Counts up: of two transitions of one breaker, the later one has the larger number.
    pub number: u64,
}

impl Transition {
    /// The line without the name.
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

/// A consistent look at a circuit breaker. `Display` is a line for a log, and one more for each change of state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The breaker's [name](crate::BreakerConfig::name), if it has one.
    pub name: Option<Arc<str>>,
    /// What it does with calls.
    pub state: State,
    /// For how long it has been doing so.
    pub age: Duration,
    /// What the rolling window holds.
    pub counts: Counts,
    /// Failures in the window, in percent. `None` while fewer calls than the volume threshold have been seen.
    pub failure_rate: Option<f64>,
    /// Slow calls in the window, in percent. `None` as above, and while that trigger is off.
    pub slow_rate: Option<f64>,
    /// When a rejected call should come back. `None` while calls pass.
    pub retry_after: Option<Duration>,
    /// Probes under way.
    pub probes: u32,
    /// How long calls took. `None` unless [`BreakerConfig::latency`](crate::BreakerConfig::latency) asks for it.
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
    /// The change.
    pub transition: Transition,
    /// How long ago.
    pub age: Duration,
}

/// What another breaker, of another process perhaps, needs to go on from here. Times are durations: instants mean nothing elsewhere.
///
/// To make one of values that were stored, begin with `Export::default()`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// What the breaker does with calls.
    pub state: State,
    /// For how long it has been doing so. Add the time between export and import, if that is not short.
    pub age: Duration,
    /// How often it has opened without a close between: the reset timeout may grow with that.
    pub openings: u32,
    /// It last opened because the server could not be reached.
    pub unreachable: bool,
    /// What the window held. Imported, it counts as seen at once, and is forgotten a whole window later.
    pub counts: Counts,
    /// If the circuit was opened for a time of somebody's choosing: the whole of that time, of which `age` is over.
    pub open_for: Option<Duration>,
}
