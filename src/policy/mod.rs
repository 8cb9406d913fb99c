//! Pure decisions, without a clock, lock, runtime, randomness or I/O. Time and randomness are arguments.

mod adaptive;
mod appointments;
mod breaker;
mod classify;
#[cfg(feature = "cluster")]
mod cluster;
mod deadline;
mod dial_times;
#[cfg(feature = "fleet")]
mod fleet;
mod forecast;
mod giving_way;
mod lane;
mod lease_durations;
mod lifetime;
mod pauses;
mod rate;
mod refusals;
mod retry;
mod shadow;
mod shutdown;
mod time;
mod wait_policy;
mod watch;

pub use adaptive::{Adaptive, Advice, AdviceReason};
#[cfg(feature = "fleet")]
pub(crate) use adaptive::{AdaptiveFinding, Controller, Pooled, SizeTerms, Wait};
pub(crate) use appointments::Appointments;
#[cfg(any(feature = "failsafe", test))]
pub(crate) use breaker::Window;
pub(crate) use breaker::{
    Breaker, BreakerParameters, Denied, Growth, Order, Prefix, ResultKind, Rule, SlowCall, TO_RECORD, Ticket,
};
pub use breaker::{Cause, Counts, Export, Latency, Past, Snapshot, State, Transition};
pub use classify::Effect;
#[cfg(test)]
pub(crate) use classify::Fate;
pub(crate) use classify::{
    Answer, Condition, CountsAs, Failure, Objection, Occurrence, Reprepare, Retry, ServerSeverity, StatementPhase,
    is_data_exception,
};
#[cfg(feature = "testing")]
pub(crate) use classify::{IN_FAILED_TRANSACTION, NOT_SUPPORTED};
#[cfg(feature = "cluster")]
pub(crate) use cluster::{
    Fitness, History, Lag, Look, Looks, Lsn, Need, Primacy, Ring, Sighting, Topology, Trend, places,
};
#[cfg(feature = "cluster")]
pub use cluster::{InvalidPosition, Position};
pub(crate) use deadline::Deadline;
pub(crate) use dial_times::DialTimes;
#[cfg(feature = "fleet")]
pub use fleet::FleetState;
#[cfg(feature = "fleet")]
pub(crate) use fleet::{Beacon, Member, Own, Peer, Reading as FleetReading, Scope, Terms};
pub(crate) use forecast::Forecast;
pub(crate) use giving_way::{LockQueue, NextStep, Tries};
pub(crate) use lane::PerLane;
pub use lane::{Lane, LaneLimits, UnknownLane};
pub(crate) use lease_durations::LeaseDurations;
pub(crate) use lifetime::Lifetimes;
pub(crate) use pauses::{Pauses, Trouble};
pub(crate) use rate::{Gcra, expected, mean_after, nanos, overdue, running, settled};
pub(crate) use refusals::PerReason;
pub use refusals::{RefusalCounts, ShedReason};
pub(crate) use retry::{Budget, Failed, Schedule};
pub(crate) use shadow::{Arrival, ShadowQueues};
pub(crate) use shutdown::Terminations;
pub(crate) use time::Time;
pub use wait_policy::Shedding;
pub(crate) use wait_policy::WaitPolicy;
#[cfg(feature = "admin")]
pub use watch::Baseline;
pub(crate) use watch::{DueReport, EndedLease, Finding, Lasting, REPEAT, Reading, Sign, Watch};
