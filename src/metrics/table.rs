//! Every metric, with its unit, its labels and its help text: those of a pool, and those of a circuit breaker by
//! itself.

use super::metric::Kind::{Counter, Gauge, Histogram};
use super::metric::Metric;
use super::metric::Unit::{Count, Seconds};

/// OpenTelemetry's label for the kind of database.
pub(crate) const SYSTEM: &str = "db.system.name";
pub(crate) const OPERATION: &str = "failfast.operation";
pub(crate) const LANE: &str = "failfast.lane";
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
pub(crate) const FALLBACKS: Metric = Metric::new(
    Counter,
    Count,
    "failfast.fallbacks",
    &[OPERATION, ERROR],
    "Operations that a fallback answered, by the error for which it did",
);
pub(crate) const CREATE_TIME: Metric = Metric::new(
    Histogram,
    Seconds,
    "db.client.connection.create_time",
    &[],
    "Time it took to make a connection, from the name lookup to the first reply",
);
pub(crate) const WAIT_TIME: Metric = Metric::new(
    Histogram,
    Seconds,
    "db.client.connection.wait_time",
    &[],
    "Time that callers waited until they got a connection; 0 if one was idle",
);
pub(crate) const USE_TIME: Metric =
    Metric::new(Histogram, Seconds, "db.client.connection.use_time", &[], "Time that callers held a connection");
pub(crate) const CONNECTIONS: Metric = Metric::new(
    Gauge,
    Count,
    "db.client.connection.count",
    &[CONNECTION_STATE],
    "Connections by state: idle, used, settling, dialing, closing",
);
pub(crate) const MAX: Metric =
    Metric::new(Gauge, Count, "db.client.connection.max", &[], "Maximum number of connections");
pub(crate) const IDLE_MIN: Metric = Metric::new(
    Gauge,
    Count,
    "db.client.connection.idle.min",
    &[],
    "Minimum number of idle connections that the pool maintains",
);
pub(crate) const IDLE_MAX: Metric =
    Metric::new(Gauge, Count, "db.client.connection.idle.max", &[], "Maximum number of idle connections");
pub(crate) const PENDING: Metric =
    Metric::new(Gauge, Count, "db.client.connection.pending_requests", &[], "Callers waiting for a connection");
pub(crate) const TIMEOUTS: Metric = Metric::new(
    Counter,
    Count,
    "db.client.connection.timeouts",
    &[],
    "Callers that waited for a connection until their time was up",
);
pub(crate) const UTILIZATION: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.utilization.ratio",
    &[],
    "Connections held by callers, as a share of the maximum: 0 to 1",
);
pub(crate) const DEMAND: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.demand",
    &[],
    "Connections that callers need: arrivals per second times the mean lease duration",
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
    "Time until the pool is exhausted, if utilization keeps rising; +Inf while it does not rise",
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
pub(crate) const RETRIES: Metric = Metric::new(
    Counter,
    Count,
    "failfast.retries",
    &[REASON],
    "Attempts after the first, by the error of the attempt before",
);
pub(crate) const RETRY_EXHAUSTED: Metric = Metric::new(
    Counter,
    Count,
    "failfast.retry.exhausted",
    &[],
    "Calls that failed although another attempt was safe: no attempts, time or budget was left",
);
pub(crate) const CONNECT_FAILURES: Metric =
    Metric::new(Counter, Count, "failfast.connect.failures", &[], "Connections that could not be made");
pub(crate) const CONNECTIONS_LOST: Metric = Metric::new(
    Counter,
    Count,
    "failfast.connections.lost",
    &[],
    "Connections that ended although the pool did not close them",
);
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
    "failfast.lease.inflation.ratio",
    &[OPERATION],
    "How many times as long as usual an operation holds its connections, while this is more than 3; otherwise 0",
);
pub(crate) const TRAFFIC: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.traffic.ratio",
    &[],
    "How many times as many calls as usual came in the last minute, while this is unusual; otherwise 0",
);
pub(crate) const BACKGROUND_SHARE: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.background.share.ratio",
    &[],
    "How much of its limit the lane background may use: 0 to 1; 1 unless callers of other lanes suffer",
);
pub(crate) const LANE_CONNECTIONS: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.lane.connections",
    &[LANE],
    "Connections that the callers of a lane hold, and those that are being cleaned up after them",
);
pub(crate) const LANE_MAX: Metric =
    Metric::new(Gauge, Count, "failfast.lane.connections.max", &[LANE], "Connections that a lane may use");
pub(crate) const LANE_PENDING: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.lane.pending_requests",
    &[LANE],
    "Callers of a lane that wait for a connection",
);
pub(crate) const LANE_REFUSED: Metric = Metric::new(
    Counter,
    Count,
    "failfast.lane.refused",
    &[LANE],
    "Callers of a lane that were refused, or waited for a connection until their time was up",
);
pub(crate) const EVENTS: Metric = Metric::new(
    Counter,
    Count,
    "failfast.events",
    &[EVENT, SEVERITY],
    "Events; a state that lasts is reported again every 30 seconds",
);

/// The label of the metrics of a cluster's hosts: host and port.
#[cfg(feature = "cluster")]
pub(crate) const HOST: &str = "host";
#[cfg(feature = "cluster")]
pub(crate) const ROUTE: &str = "route";

#[cfg(feature = "cluster")]
pub(crate) const CLUSTER_PRIMARY: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.cluster.primary",
    &[HOST],
    "1 for the primary of the cluster, 0 for the others",
);
#[cfg(feature = "cluster")]
pub(crate) const REPLICA_LAG: Metric = Metric::new(
    Gauge,
    Seconds,
    "failfast.cluster.replica.lag",
    &[HOST],
    "An upper bound of the replica's lag; infinite if there is none, 0 for other hosts",
);
#[cfg(feature = "cluster")]
pub(crate) const CLUSTER_SILENT: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.cluster.silent",
    &[HOST],
    "1 for a host that has not answered for three looks, 0 for the others",
);
#[cfg(feature = "cluster")]
pub(crate) const CLUSTER_PRIMARIES: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.cluster.primaries",
    &[],
    "Hosts that accept writes on the newest timeline: 1; 0 without a primary; 2 if two hosts claim to be the primary",
);
#[cfg(feature = "cluster")]
pub(crate) const FIT_REPLICAS: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.cluster.replicas.fit",
    &[],
    "Replicas that may serve reads with a bound of max_lag, 30 s by default",
);
#[cfg(feature = "cluster")]
pub(crate) const CLUSTER_CHANGES: Metric =
    Metric::new(Counter, Count, "failfast.cluster.primary.changes", &[], "Changes of the primary");
#[cfg(feature = "cluster")]
pub(crate) const CLUSTER_READS: Metric = Metric::new(
    Counter,
    Count,
    "failfast.cluster.reads",
    &[ROUTE],
    "Reads that replicas may serve, by who serves them: replica, primary (within the spill budget), refused",
);

#[cfg(feature = "cluster")]
pub(crate) const CLUSTER_REFUSED: Metric = Metric::new(
    Counter,
    Count,
    "failfast.cluster.refused",
    &[REASON],
    "Calls refused before a pool was asked: no_primary, two_primaries, two_systems, no_fresh_replica",
);

/// Every metric that a cluster records, beyond those of the pools of its hosts.
#[cfg(feature = "cluster")]
pub const CLUSTER_METRICS: &[Metric] = &[
    CLUSTER_PRIMARY,
    CLUSTER_PRIMARIES,
    CLUSTER_CHANGES,
    CLUSTER_SILENT,
    REPLICA_LAG,
    FIT_REPLICAS,
    CLUSTER_READS,
    CLUSTER_REFUSED,
];

#[cfg(feature = "fleet")]
pub(crate) const FLEET_MEMBERS: Metric =
    Metric::new(Gauge, Count, "failfast.fleet.members", &[], "Members of the fleet at the latest reading");
#[cfg(feature = "fleet")]
pub(crate) const FLEET_GRANTED: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.fleet.granted",
    &[],
    "Connections that the pool may use: its part of the fleet's capacity",
);
#[cfg(feature = "fleet")]
pub(crate) const FLEET_WANTED: Metric =
    Metric::new(Gauge, Count, "failfast.fleet.wanted", &[], "Connections that the pool wants");
#[cfg(feature = "fleet")]
pub(crate) const FLEET_CAPACITY: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.fleet.capacity",
    &[],
    "Connections that the members divide: the server's limit less headroom, strangers and beacons",
);
#[cfg(feature = "fleet")]
pub(crate) const FLEET_STRANGERS: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.fleet.strangers",
    &[],
    "Connections of clients that no member claims, at most of the last minute",
);
#[cfg(feature = "fleet")]
pub(crate) const FLEET_STATE: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.fleet.state",
    &[STATE],
    "1 for how the pool takes part in its fleet: joining, sharing, blind, server_full, draining, off; 0 for the others",
);

/// Every metric that a pool records in a [fleet](crate::PoolBuilder::fleet), beyond those of all pools.
#[cfg(feature = "fleet")]
pub const FLEET_METRICS: &[Metric] =
    &[FLEET_MEMBERS, FLEET_GRANTED, FLEET_WANTED, FLEET_CAPACITY, FLEET_STRANGERS, FLEET_STATE];

/// Every metric that a pool records. A test compares this list with what a pool records.
pub const METRICS: &[Metric] = &[
    OPERATION_DURATION,
    FALLBACKS,
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
    TRAFFIC,
    BACKGROUND_SHARE,
    LANE_CONNECTIONS,
    LANE_MAX,
    LANE_PENDING,
    LANE_REFUSED,
    EVENTS,
];

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
    "Calls that did not begin: rejected by the open circuit, or busy",
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

/// Every metric of a [circuit breaker](crate::breaker) by itself.
pub const BREAKER_METRICS: &[Metric] = &[CALL_DURATION, CALLS_REFUSED, CIRCUIT_STATE, CIRCUIT_TRANSITIONS];
