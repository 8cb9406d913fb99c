//! Every metric there is.

use super::metric::Kind::{Counter, Gauge, Histogram};
use super::metric::Metric;
use super::metric::Unit::{Count, Seconds};

/// OpenTelemetry's label for the kind of database.
pub(crate) const SYSTEM: &str = "db.system.name";
pub(crate) const OPERATION: &str = "failfast.operation";
pub(crate) const ERROR: &str = "error.type";
pub(crate) const CONNECTION_STATE: &str = "db.client.connection.state";
pub(crate) const REASON: &str = "reason";
pub(crate) const STATE: &str = "state";
pub(crate) const FROM: &str = "from";
pub(crate) const TO: &str = "to";
pub(crate) const EVENT: &str = "event";
pub(crate) const SEVERITY: &str = "severity";

pub(crate) const OPERATION_DURATION: Metric = Metric::new(
    Histogram,
    Seconds,
    "db.client.operation.duration",
    &[SYSTEM, OPERATION, ERROR],
    "Time of an operation with all its attempts and waits; error.type if it failed",
);
pub(crate) const CREATE_TIME: Metric = Metric::new(
    Histogram,
    Seconds,
    "db.client.connection.create_time",
    &[],
    "Time it took to make a connection, from name lookup to the first reply",
);
pub(crate) const WAIT_TIME: Metric = Metric::new(
    Histogram,
    Seconds,
    "db.client.connection.wait_time",
    &[],
    "Time callers waited who got a connection; 0 for those who found one idle",
);
pub(crate) const USE_TIME: Metric =
    Metric::new(Histogram, Seconds, "db.client.connection.use_time", &[], "Time callers held a connection");
pub(crate) const CONNECTIONS: Metric = Metric::new(
    Gauge,
    Count,
    "db.client.connection.count",
    &[CONNECTION_STATE],
    "Connections by state: idle, used, settling, dialing, closing",
);
pub(crate) const MAX: Metric =
    Metric::new(Gauge, Count, "db.client.connection.max", &[], "Connections there may be at most");
pub(crate) const IDLE_MIN: Metric =
    Metric::new(Gauge, Count, "db.client.connection.idle.min", &[], "Connections kept idle at least");
pub(crate) const IDLE_MAX: Metric =
    Metric::new(Gauge, Count, "db.client.connection.idle.max", &[], "Connections that may be idle at most");
pub(crate) const PENDING: Metric =
    Metric::new(Gauge, Count, "db.client.connection.pending_requests", &[], "Callers waiting for a connection");
pub(crate) const TIMEOUTS: Metric =
    Metric::new(Counter, Count, "db.client.connection.timeouts", &[], "Callers who waited for a connection in vain");
pub(crate) const UTILIZATION: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.utilization.ratio",
    &[],
    "Connections held by callers, as a share of the most there may be: 0 to 1",
);
pub(crate) const DEMAND: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.demand",
    &[],
    "Connections that callers ask for: arrivals a second times how long one is held",
);
pub(crate) const PREDICTED_WAIT: Metric = Metric::new(
    Gauge,
    Seconds,
    "failfast.predicted_wait",
    &[],
    "How long the next caller would wait; 0 while a connection is idle",
);
pub(crate) const TIME_TO_EXHAUSTION: Metric = Metric::new(
    Gauge,
    Seconds,
    "failfast.time_to_exhaustion",
    &[],
    "Until nothing is left, if utilization goes on rising as it does; +Inf if nothing points to it",
);
pub(crate) const SHED: Metric = Metric::new(
    Counter,
    Count,
    "failfast.shed",
    &[REASON],
    "Callers refused at once, or at the end of a wait, by reason",
);
pub(crate) const BREAKER_STATE: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.breaker.state",
    &[STATE],
    "1 for the state of the circuit breaker, 0 for the others",
);
pub(crate) const BREAKER_TRANSITIONS: Metric =
    Metric::new(Counter, Count, "failfast.breaker.transitions", &[FROM, TO], "Changes of the circuit breaker's state");
pub(crate) const BREAKER_REJECTED: Metric =
    Metric::new(Counter, Count, "failfast.breaker.rejected", &[], "Callers refused because the circuit was open");
pub(crate) const RETRIES: Metric =
    Metric::new(Counter, Count, "failfast.retries", &[REASON], "Attempts after the first, by what had failed before");
pub(crate) const RETRY_EXHAUSTED: Metric = Metric::new(
    Counter,
    Count,
    "failfast.retry.exhausted",
    &[],
    "Calls that failed though another attempt was safe: no attempts, time or budget was left",
);
pub(crate) const CONNECT_FAILURES: Metric =
    Metric::new(Counter, Count, "failfast.connect.failures", &[], "Connections that could not be made");
pub(crate) const CONNECTIONS_LOST: Metric =
    Metric::new(Counter, Count, "failfast.connections.lost", &[], "Connections that ended by no doing of the pool's");
pub(crate) const SETTLE_FAILURES: Metric = Metric::new(
    Counter,
    Count,
    "failfast.settle.failures",
    &[],
    "Connections that could not be cleaned up for the next caller, and were closed",
);
pub(crate) const HOLD_INFLATION: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.hold.inflation.ratio",
    &[OPERATION],
    "How many times as long as usual an operation holds its connections, while that is more than 3; else 0",
);
pub(crate) const EVENTS: Metric =
    Metric::new(Counter, Count, "failfast.events", &[EVENT, SEVERITY], "Events; what lasts is told every 30 seconds");

/// Every metric that a pool emits. A test sees to it that this is true.
pub const METRICS: &[Metric] = &[
    OPERATION_DURATION,
    CREATE_TIME,
    WAIT_TIME,
    USE_TIME,
    CONNECTIONS,
    MAX,
    IDLE_MIN,
    IDLE_MAX,
    PENDING,
    TIMEOUTS,
    UTILIZATION,
    DEMAND,
    PREDICTED_WAIT,
    TIME_TO_EXHAUSTION,
    SHED,
    BREAKER_STATE,
    BREAKER_TRANSITIONS,
    BREAKER_REJECTED,
    RETRIES,
    RETRY_EXHAUSTED,
    CONNECT_FAILURES,
    CONNECTIONS_LOST,
    SETTLE_FAILURES,
    HOLD_INFLATION,
    EVENTS,
];
