//! Every event and its details.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::{ConnectError, Lost};
use crate::operation::Operation;
#[cfg(feature = "cluster")]
use crate::policy::Position;
use crate::policy::{Advice, Lane, RefusalCounts, State, Transition};
use crate::status::Status;

/// What happened, or is going on.
///
/// `lasting` is how long a condition has lasted when the event is made, `lasted` how long it had lasted when it ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind {
    /// The pool was built.
    #[non_exhaustive]
    Started {
        /// The settings in effect, in one line, without credentials.
        settings: Arc<str>,
    },
    /// `max_size` is larger than the number of connections that the server has left. The server will refuse the last
    /// ones.
    #[non_exhaustive]
    PoolTooLarge {
        /// The pool's maximum number of connections.
        max_size: usize,
        /// How many connections the server had left.
        left: usize,
    },
    /// Utilization has been above 80%, on average over 10 s. Repeated every 30 s while it lasts, unless a worse event
    /// is.
    #[non_exhaustive]
    UtilizationHigh {
        /// The state of the pool when the event was made.
        status: Status,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// Utilization has been above 90%, on average over 10 s. Its end is [`UtilizationHigh`](Self::UtilizationHigh) or
    /// [`UtilizationNormal`](Self::UtilizationNormal).
    #[non_exhaustive]
    UtilizationCritical {
        /// The state of the pool when the event was made.
        status: Status,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`UtilizationHigh`](Self::UtilizationHigh).
    #[non_exhaustive]
    UtilizationNormal {
        /// The state of the pool when the event was made.
        status: Status,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// All connections have been in use while callers waited, for 2 s or more. A busy pool without waiters is not
    /// exhausted.
    #[non_exhaustive]
    Exhausted {
        /// The state of the pool when the event was made.
        status: Status,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`Exhausted`](Self::Exhausted).
    #[non_exhaustive]
    ExhaustionEnded {
        /// The state of the pool when the event was made.
        status: Status,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// The pool will be exhausted soon if utilization keeps rising. A trend is extrapolated by a quarter of the time
    /// over which it was observed: the event comes seconds before a surge, and up to half an hour before the peak of a
    /// day.
    #[non_exhaustive]
    ExhaustionPredicted {
        /// The state of the pool when the event was made.
        status: Status,
        /// The time until no connection is left. Zero means now.
        within: Duration,
        /// The time over which the trend was observed.
        over: Duration,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`ExhaustionPredicted`](Self::ExhaustionPredicted): utilization no longer rises.
    #[non_exhaustive]
    ExhaustionPredictionEnded {
        /// The state of the pool when the event was made.
        status: Status,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// The pool refuses callers that it could not serve in time.
    #[non_exhaustive]
    Shedding {
        /// The state of the pool when the event was made.
        status: Status,
        /// How many callers were refused since the beginning, by reason.
        refused: RefusalCounts,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`Shedding`](Self::Shedding): no caller has been refused for 5 s.
    #[non_exhaustive]
    SheddingEnded {
        /// The state of the pool when the event was made.
        status: Status,
        /// How many callers were refused, by reason.
        refused: RefusalCounts,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// An operation holds its connections more than three times as long as it used to. It is the first suspect when a
    /// pool runs out of connections.
    #[non_exhaustive]
    LeasesInflated {
        /// The operation.
        operation: Operation,
        /// The mean lease duration before.
        from: Duration,
        /// The mean lease duration now; a lower bound while the first slow leases have not ended.
        to: Duration,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`LeasesInflated`](Self::LeasesInflated): its leases are as short as before, or have been long
    /// for so long that this is normal.
    #[non_exhaustive]
    LeasesNormal {
        /// The operation.
        operation: Operation,
        /// The mean lease duration now.
        to: Duration,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// Many more callers come than in the last hour: more than twice the calls of its median minute, more than five
    /// median absolute deviations above it, and at least 100 calls a minute. Nothing follows from it: the pool serves
    /// and refuses callers as before. A level that lasts for half an hour is usual.
    #[non_exhaustive]
    TrafficAnomaly {
        /// How many callers asked for a connection in the last minute. Attempts count, and so do callers that the open
        /// circuit or a rate refused.
        calls_per_minute: u64,
        /// How many did so in the median minute of the last hour. Minutes without a call do not count.
        usual: u64,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`TrafficAnomaly`](Self::TrafficAnomaly): as many callers come as before, or so many have come for so
    /// long that this is normal.
    #[non_exhaustive]
    TrafficNormal {
        /// How many callers asked for a connection in the last minute.
        calls_per_minute: u64,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// The lane [`Background`](crate::Lane::Background) may use less of its limit, because callers of the other lanes
    /// hold connections much longer than usual. Its guaranteed connections remain.
    #[non_exhaustive]
    BackgroundThrottled {
        /// How much of its limit the lane may use: 0 to 1. It is halved every two seconds, and comes back by a tenth a
        /// second once no such operation is slow.
        share: f64,
        /// The operation of the other lanes that is slow. If there are several, the one that costs the most
        /// connections.
        operation: Operation,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`BackgroundThrottled`](Self::BackgroundThrottled): the lane may use all of its limit.
    #[non_exhaustive]
    BackgroundRestored {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// A connection has been held for longer than the [threshold](crate::PoolBuilder::leak_detection_threshold).
    #[non_exhaustive]
    LeakSuspected {
        /// The operation that it was taken for.
        operation: Operation,
        /// How long it has been held.
        held: Duration,
        /// Where it was taken.
        taken: &'static Location<'static>,
        /// The backtrace of that place, if backtraces are switched on. Not part of `Display`.
        backtrace: Option<Arc<Backtrace>>,
    },
    /// Too many statements have been running for too long.
    #[non_exhaustive]
    LongRunning {
        /// How many statements have been running for longer than `than`.
        count: usize,
        /// The threshold.
        than: Duration,
        /// The operation of the longest of them, and how long it has been running.
        longest: (Operation, Duration),
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`LongRunning`](Self::LongRunning).
    #[non_exhaustive]
    LongRunningEnded {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// Callers wait longer for a connection than half of [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    #[non_exhaustive]
    SlowAcquire {
        /// The state of the pool when the event was made.
        status: Status,
        /// How many callers waited longer than `than`, since the last such event.
        count: u64,
        /// The threshold.
        than: Duration,
        /// The longest of these waits.
        longest: Duration,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`SlowAcquire`](Self::SlowAcquire).
    #[non_exhaustive]
    SlowAcquireEnded {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// No connection could be made.
    #[non_exhaustive]
    ConnectFailed {
        /// The last error.
        error: ConnectError,
        /// How many dials failed, since the last such event.
        count: u64,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`ConnectFailed`](Self::ConnectFailed): a connection was made.
    #[non_exhaustive]
    ConnectRecovered {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// Connections were lost: the server, the network or an administrator ended them.
    #[non_exhaustive]
    ConnectionLost {
        /// The reason for the last of them.
        lost: Arc<Lost>,
        /// How many connections were lost since the last such event.
        count: u64,
        /// How long ago the last of them was lost: up to 30 s, because there is at most one such event in 30 s.
        ago: Duration,
    },
    /// A listener lost its connection, or the server no longer answered on it. The pool dials again, and notifications
    /// may be missed until then.
    #[non_exhaustive]
    ListenInterrupted {
        /// Why.
        reason: String,
    },
    /// The end of [`ListenInterrupted`](Self::ListenInterrupted): the listener listens again.
    #[non_exhaustive]
    ListenResumed {
        /// How long the listener did not listen.
        lasted: Duration,
    },
    /// The server sent a warning for a statement, as `RAISE WARNING` does. At most one event in 30 s. Each warning is
    /// also logged through the `log` crate, with the level and the target that tokio-postgres uses.
    #[non_exhaustive]
    ServerWarning {
        /// The text of the latest warning, made safe for one line of a log.
        message: String,
        /// Its SQLSTATE: 01000 for a plain warning.
        sqlstate: SqlState,
        /// How many warnings there were since the last such event.
        count: u64,
        /// How long ago the latest warning came: up to 30 s, because there is at most one such event in 30 s.
        ago: Duration,
    },
    /// The server announced that it shuts down. The pool retires its connections.
    #[non_exhaustive]
    ServerShuttingDown {
        /// The server's announcement.
        lost: Arc<Lost>,
    },
    /// Another server has become the primary. A service should drop its caches of the database: they may be newer than
    /// the data of the new primary.
    #[non_exhaustive]
    PrimaryChanged {
        /// Host and port of the primary before, if there was one.
        from: Option<String>,
        /// Host and port of the primary now. `None` if they are not known.
        to: Option<String>,
        /// The last position at which the primary before was seen. `None` if a pool reports the change.
        #[cfg(feature = "cluster")]
        last: Option<Position>,
        /// The first position at which the new primary was seen. `None` if a pool reports the change. Commits between
        /// the end of the old timeline on the new primary and `last` may be lost.
        #[cfg(feature = "cluster")]
        first: Option<Position>,
    },
    /// For 3 s, no host of a cluster has been the primary, or the primary has been silent. Repeated every 30 s while it
    /// lasts.
    #[non_exhaustive]
    PrimaryMissing {
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`PrimaryMissing`](Self::PrimaryMissing), [`TwoPrimaries`](Self::TwoPrimaries) and
    /// [`TwoSystems`](Self::TwoSystems): one host of the cluster is the primary.
    #[non_exhaustive]
    PrimaryFound {
        /// Host and port of the primary.
        host: String,
        /// How long there was none.
        lasted: Duration,
    },
    /// Two hosts of a cluster accept writes on the same timeline. The cluster writes to neither. Repeated every 30 s
    /// while it lasts.
    #[non_exhaustive]
    TwoPrimaries {
        /// Host and port of both.
        hosts: [String; 2],
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// For 3 s, hosts of a cluster have shown different database systems, and it is not known which of them is right.
    /// The cluster writes to none of them. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    TwoSystems {
        /// Host and port of two of them, each with the identifier of its system.
        systems: [(String, u64); 2],
        /// How long it has lasted.
        lasting: Duration,
    },
    /// A replica lags by 15 s or more, or by 3 s more than a minute ago. From 45 s on it is critical: a failover would
    /// lose as much. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    ReplicaLags {
        /// Host and port of the replica.
        host: String,
        /// The lag, at most. `None` if it is longer than can be measured, or the replica does not show its timeline.
        lag: Option<Duration>,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`ReplicaLags`](Self::ReplicaLags).
    #[non_exhaustive]
    ReplicaCaughtUp {
        /// Host and port of the replica.
        host: String,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// A host of a cluster has not answered for 3 s (by default: three looks). Replicas that are silent serve no reads.
    /// Repeated every 30 s while it lasts.
    #[non_exhaustive]
    HostSilent {
        /// Host and port.
        host: String,
        /// Why the latest question had no answer.
        reason: String,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`HostSilent`](Self::HostSilent).
    #[non_exhaustive]
    HostAnswers {
        /// Host and port.
        host: String,
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// The name of one host of a cluster leads to several servers, as a reader endpoint does that balances. One session
    /// there proves nothing about another one, so the host serves no reads with a bound.
    #[non_exhaustive]
    HostBalances {
        /// Host and port.
        host: String,
    },
    /// What the pool advises about its limit, or about the connections of one operation. It changes nothing: it only
    /// gives advice, or `max_size` does not let it. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    LimitAdvised {
        /// The advice, its reason and its figures.
        advice: Advice,
        /// How long it has been given.
        lasting: Duration,
    },
    /// The pool has changed its limit, or that of one operation, because of what the database makes of its connections.
    #[non_exhaustive]
    LimitChanged {
        /// What has changed, the reason and the figures.
        advice: Advice,
    },
    /// An operation takes much longer than usual because it waits for locks of the database. More or fewer connections
    /// would not help. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    LockBound {
        /// The operation that waits most, and the figures.
        advice: Advice,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`LockBound`](Self::LockBound).
    #[non_exhaustive]
    LockBoundEnded {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// Leases take much longer than usual, and the server waits for the caller meanwhile: for its code between two
    /// statements, or for the network. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    HeldByCaller {
        /// The figures.
        advice: Advice,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`HeldByCaller`](Self::HeldByCaller).
    #[non_exhaustive]
    HeldByCallerEnded {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// The processes that share the server want more connections than it has for them: this pool gets less than it
    /// wants, or not even all minimums fit. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    FleetShort {
        /// The connections that the pool may use.
        granted: usize,
        /// The connections that the pool wants.
        wanted: usize,
        /// The connections that the members divide.
        capacity: usize,
        /// The number of members.
        members: usize,
        /// The minimums of all members. If they are more than `capacity`, the server will refuse connections.
        minimums: usize,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`FleetShort`](Self::FleetShort).
    #[non_exhaustive]
    FleetSuffices {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// Connections that do not belong to the fleet take more of the server than the headroom. Repeated every 30 s while
    /// it lasts.
    #[non_exhaustive]
    FleetStrangers {
        /// How many there are. Those that stayed for 4 s still count for a minute.
        count: usize,
        /// The connections that are left for the members.
        capacity: usize,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`FleetStrangers`](Self::FleetStrangers).
    #[non_exhaustive]
    FleetStrangersGone {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// The pool has not read the beacons of its fleet for longer than 15 s. It keeps the connections that it has. After
    /// a minute it keeps no more than an equal part. Repeated every 30 s while it lasts.
    #[non_exhaustive]
    FleetBlind {
        /// The connections that the pool may use.
        granted: usize,
        /// Why the latest reading failed.
        reason: String,
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`FleetBlind`](Self::FleetBlind).
    #[non_exhaustive]
    FleetSees {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// A pooler answers in place of the server, so the pool takes no part in its fleet and may use all of `max_size`.
    /// Repeated every 30 s while it lasts.
    #[non_exhaustive]
    FleetOff {
        /// How long the condition has lasted.
        lasting: Duration,
    },
    /// The end of [`FleetOff`](Self::FleetOff): the server itself answers.
    #[non_exhaustive]
    FleetOn {
        /// How long the condition lasted.
        lasted: Duration,
    },
    /// A host, or one of its addresses, could not be used. For 30 s the pool tries others first. There is one such
    /// event until the address works again.
    #[non_exhaustive]
    AddressAvoided {
        /// Host or address, and port.
        address: String,
        /// Why it could not be used.
        reason: String,
    },
    /// The end of [`AddressAvoided`](Self::AddressAvoided): the address has taken a connection again.
    #[non_exhaustive]
    AddressRestored {
        /// Host or address, and port.
        address: String,
        /// How long it could not be used.
        lasted: Duration,
    },
    /// The pool could not clean connections up for their next caller, and closed them.
    #[non_exhaustive]
    SettleFailed {
        /// How many connections were closed since the last such event.
        count: u64,
        /// How long ago the last of them was closed: up to 30 s, because there is at most one such event in 30 s.
        ago: Duration,
    },
    /// The circuit breaker has changed its state.
    #[non_exhaustive]
    BreakerChanged {
        /// The old and the new state, the cause, and the counts behind it.
        transition: Transition,
        /// How long the new state has lasted. The event is repeated every 30 s while the circuit is open.
        lasting: Duration,
    },
    /// A caller forced the circuit breaker into a state.
    #[non_exhaustive]
    BreakerForced {
        /// The new state of the circuit.
        to: State,
        /// The place in the code that gave the order.
        by: &'static Location<'static>,
        /// The reason that the caller gave.
        reason: Arc<str>,
    },
    /// A caller changed the size of the pool.
    #[non_exhaustive]
    Resized {
        /// `max_size` before.
        from: usize,
        /// `max_size` now.
        to: usize,
        /// The place in the code that gave the order.
        by: &'static Location<'static>,
        /// The reason that the caller gave.
        reason: Option<Arc<str>>,
    },
    /// A caller changed the lane of an operation.
    #[non_exhaustive]
    LaneChanged {
        /// The name of the operation.
        operation: Arc<str>,
        /// The lane set before. `None`: that of each call.
        from: Option<Lane>,
        /// The lane set now. `None`: that of each call.
        to: Option<Lane>,
        /// The place in the code that gave the order.
        by: &'static Location<'static>,
        /// The reason that the caller gave.
        reason: Option<Arc<str>>,
    },
    /// A change of the schema ([`Pool::ddl`](crate::Pool::ddl)) was rolled back because of others, and will be tried
    /// again.
    #[non_exhaustive]
    SchemaChangePostponed {
        /// The name of the operation.
        operation: Option<&'static str>,
        /// How often it was tried.
        attempts: u32,
        /// What was in the way.
        reason: Arc<str>,
        /// When it will be tried again.
        retry_in: Duration,
    },
    /// A caller made a cluster forget the highest timeline that it had seen.
    #[non_exhaustive]
    TimelineForgotten {
        /// The timeline. 0 if none was known.
        timeline: u32,
        /// The place in the code that gave the order.
        by: &'static Location<'static>,
        /// The reason that the caller gave.
        reason: Option<Arc<str>>,
    },
    /// A caller flushed the pool: it replaces all connections.
    #[non_exhaustive]
    Flushed {
        /// The place in the code that gave the order.
        by: &'static Location<'static>,
        /// The reason that the caller gave.
        reason: Option<Arc<str>>,
    },
    /// A caller drains the pool. It serves the callers that wait, and then closes.
    #[non_exhaustive]
    Draining {
        /// The place in the code that gave the order.
        by: &'static Location<'static>,
        /// The reason that the caller gave.
        reason: Option<Arc<str>>,
    },
    /// The pool has been drained, and is closed.
    #[non_exhaustive]
    Drained {
        /// How many connections were still held when the time was up.
        left: usize,
        /// How long it took.
        took: Duration,
    },
}
