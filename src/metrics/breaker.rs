//! The metrics of a circuit breaker by itself, which has a name.

use super::metric::Kind::{Counter, Gauge, Histogram};
use super::metric::Metric;
use super::metric::Unit::{Count, Seconds};
use super::table::{FROM, REASON, STATE, TO};

/// The label of every metric of a circuit breaker by itself: [its name](crate::BreakerConfig::name).
pub const BREAKER: &str = "failfast.circuit_breaker.name";
pub(crate) const OUTCOME: &str = "outcome";

pub(crate) const CALL_DURATION: Metric = Metric::new(
    Histogram,
    Seconds,
    "failfast.circuit_breaker.call.duration",
    &[OUTCOME],
    "Time of a call through the circuit breaker, by outcome: success, failure, timeout, ignored",
);
pub(crate) const CALLS_REFUSED: Metric = Metric::new(
    Counter,
    Count,
    "failfast.circuit_breaker.refused",
    &[REASON],
    "Calls that were not begun: rejected by the open circuit, or busy",
);
pub(crate) const CIRCUIT_STATE: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.circuit_breaker.state",
    &[STATE],
    "1 for the state of the circuit breaker, 0 for the others",
);
pub(crate) const CIRCUIT_TRANSITIONS: Metric = Metric::new(
    Counter,
    Count,
    "failfast.circuit_breaker.transitions",
    &[FROM, TO],
    "Changes of the circuit breaker's state",
);

/// Every metric of a circuit breaker by itself.
pub const BREAKER_METRICS: &[Metric] = &[CALL_DURATION, CALLS_REFUSED, CIRCUIT_STATE, CIRCUIT_TRANSITIONS];
