//! The error of a call: its kinds, and the line of each for a log. What each kind means is in `meaning`; what a service
//! reads from the server's answer is in `answer`.

mod answer;
mod config;
mod connect;
pub(crate) mod driver;
mod hook;
mod io;
mod lost;
mod meaning;
mod outside;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

pub use self::config::ConfigError;
pub(crate) use self::config::nearest;
pub(crate) use self::connect::Stage;
pub use self::connect::{ConnectError, ConnectErrorKind};
pub(crate) use self::hook::HookLeft;
pub(crate) use self::io::{ProtocolViolation, is_out_of_files};
pub use self::lost::Lost;
pub use self::meaning::ErrorKind;
pub(crate) use self::outside::one_line;
use crate::holder::LongestHeld;
use crate::human::{Count, HumanDuration};
use crate::policy::{Effect, ShedReason, StatementPhase};
use crate::status::Status;

/// Why a call on the pool failed.
///
/// `Display` is one line for a log, and `Debug` adds little to it. Neither shows a password, a query parameter, or the
/// server's DETAIL, which quotes rows. Where the server's message may quote a value (SQLSTATE class 22), the line ends
/// before it. The line shows names of tables and the like, and the text of your own `RAISE`.
/// [`source`](std::error::Error::source) has everything: take care where you print it.
///
/// # What to answer
///
/// [`http_status`](Self::http_status) has the table. Only the service knows what a request was at fault for:
///
/// ```
/// use failfast::Error;
///
/// /// The HTTP status, and Retry-After in seconds.
/// fn answer(error: &Error) -> (u16, Option<u64>) {
///     let status = match error {
///         error if error.is_unique_violation() => 409,
///         error if error.is_foreign_key_violation() || error.is_check_violation() => 422,
///         error => error.http_status(),
///     };
///     (status, error.http_retry_after())
/// }
///
/// assert_eq!(answer(&Error::Closed), (503, Some(1)));
/// ```
///
/// With the feature `axum`, a handler may return the error itself.
///
/// # Whether to try again
///
/// [`effect`](Self::effect) returns whether the call may have changed anything:
///
/// ```
/// use failfast::{Effect, Error, ErrorKind};
///
/// /// An idempotent call may run again in any case.
/// fn may_run_again(error: &Error, idempotent: bool) -> bool {
///     let is_transient =
///         matches!(error.kind(), ErrorKind::Connect | ErrorKind::AcquireTimeout | ErrorKind::QueryTimeout);
///     is_transient && (idempotent || error.effect() == Effect::NotApplied)
/// }
///
/// assert!(!may_run_again(&Error::Closed, true));
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool refused the call without asking the database: at once, or, for [`ShedReason::TooLate`], after a wait.
    /// The caller should back off or degrade.
    #[error("refused {}: {reason}{longest_held}", .reason.when())]
    #[non_exhaustive]
    Shed {
        /// Why the pool did not let the caller wait.
        reason: ShedReason,
        /// When to ask again, as the pool estimates from its recent leases. For a rate
        /// ([`ShedReason::RateLimited`]) it is exact, unless others come first or the limit is one of concurrency.
        retry_after: Option<Duration>,
        /// Who has held connections longest.
        longest_held: LongestHeld,
    },

    /// The circuit breaker is open, because too many calls failed lately. The database was not asked. See
    /// [`Pool::breaker`](crate::Pool::breaker).
    #[error("refused at once: the circuit is open{}", connect::trailer(.last_connect_error))]
    #[non_exhaustive]
    CircuitOpen {
        /// When to ask again. The pool probes the server itself, so the circuit may close earlier.
        retry_after: Duration,
        /// Why the latest dial failed, if none has succeeded since.
        last_connect_error: Option<ConnectError>,
    },

    /// No connection became free in time. `status` shows which of the usual causes it was: all connections are in use
    /// (leases are too long, or the pool is too small), or dials fail or hang. `longest_held` names the operations that
    /// hold the connections.
    #[error("no connection within {}: {status}{}{longest_held}", HumanDuration(*timeout), connect::trailer_after(.status, .last_connect_error))]
    #[non_exhaustive]
    AcquireTimeout {
        /// How long the caller was willing to wait.
        timeout: Duration,
        /// The state of the pool when the caller stopped waiting.
        status: Box<Status>,
        /// Why the latest dial failed, if none has succeeded since.
        last_connect_error: Option<ConnectError>,
        /// Who has held connections longest.
        longest_held: LongestHeld,
    },

    /// The pool has no connection, and the latest dial failed: the server cannot be reached, or refuses the pool.
    #[error("not connected: {source}")]
    #[non_exhaustive]
    Connect {
        /// Why the latest dial failed.
        source: ConnectError,
        /// When the pool will dial again. An earlier call gets the same error at once.
        retry_after: Duration,
    },

    /// The call's deadline passed while its statement was running: the statement is slow, or waits for a lock. The pool
    /// cancels it on the server.
    #[error("{}the statement had not finished when the deadline passed, {} after it began{}{}", subject(.operation), HumanDuration(*after), process(.process_id), applied(.effect))]
    #[non_exhaustive]
    QueryTimeout {
        /// The name that the caller gave it with [`Call::name`](crate::Call::name).
        operation: Option<&'static str>,
        /// How long the statement had been running.
        after: Duration,
        /// The id of the server's process, as in `pg_stat_activity.pid` and in the server's log.
        process_id: Option<i32>,
        /// Whether the statement may have been applied all the same.
        effect: Effect,
    },

    /// The reader of a stream did not poll it for [`stream_idle_timeout`](crate::PoolBuilder::stream_idle_timeout), so
    /// the pool ended the stream. The pool stops the statement, drops the unread rows, and takes the stream's
    /// connection back.
    #[error("{}nobody read the stream for {}, which is longer than stream_idle_timeout: the statement is stopped{}{}", subject(.operation), HumanDuration(*idle), process(.process_id), applied(.effect))]
    #[non_exhaustive]
    StreamIdle {
        /// The name that the caller gave it with [`Call::name`](crate::Call::name).
        operation: Option<&'static str>,
        /// How long the reader did not poll.
        idle: Duration,
        /// The id of the server's process, as in `pg_stat_activity.pid` and in the server's log.
        process_id: Option<i32>,
        /// Whether the statement may have been applied all the same.
        effect: Effect,
    },

    /// The call could not begin on its connection. Nothing of it was sent.
    #[error("{}{}", busy(*.reason, *.waited), process(.process_id))]
    #[non_exhaustive]
    Busy {
        /// What the connection was busy with, or no longer busy with.
        reason: BusyReason,
        /// How long the call waited for the connection. Zero if waiting would not have helped.
        waited: Duration,
        /// The id of the server's process that runs the earlier statement.
        process_id: Option<i32>,
    },

    /// The transaction could not be committed and was rolled back. Nothing of it was applied, unless a statement in it
    /// was a COMMIT or ROLLBACK of its own.
    #[error("rolled back instead of committed: {reason}")]
    #[non_exhaustive]
    TransactionAborted {
        /// Why it could not be committed.
        reason: AbortReason,
    },

    /// COMMIT was sent, and no answer came: the transaction may or may not have committed. The pool never runs it
    /// again. Look in the database before you do.
    #[error("the transaction may or may not have committed: {}", unanswered(.source, .lost))]
    #[non_exhaustive]
    CommitUnknown {
        /// The driver's error. `None` if the deadline passed without one.
        source: Option<tokio_postgres::Error>,
        /// Why the connection was lost, if it was.
        lost: Option<Arc<Lost>>,
    },

    /// The server answered with an error, the connection was lost, or the driver could not convert a parameter or a
    /// row.
    #[error("{}{}", of_row(.row), line(.source, .effect, .lost))]
    #[non_exhaustive]
    Postgres {
        /// The driver's error.
        source: tokio_postgres::Error,
        /// Whether the statement may have been applied all the same.
        effect: Effect,
        /// Why the connection was lost, if it was.
        lost: Option<Arc<Lost>>,
        /// Which of the given rows caused the error, counted from 0. See [`Error::row`].
        row: Option<u64>,
    },

    /// A change of the schema ([`Pool::ddl`](crate::Pool::ddl)) gave way each time it was tried. Everything was rolled
    /// back.
    #[error("gave way {}, and nothing was applied; try again when there is less traffic: {reason}", Count(u64::from(*attempts), "time"))]
    #[non_exhaustive]
    GaveWay {
        /// How often it was tried.
        attempts: u32,
        /// Why it gave way the last time.
        reason: GiveWayReason,
    },

    /// No server of a `Cluster` is known to accept writes. Nothing was sent.
    #[error(
        "no primary: no host of the cluster answers that it accepts writes ({hosts}); asking again in {}",
        HumanDuration(*retry_after)
    )]
    #[non_exhaustive]
    NoPrimary {
        /// What is known of each host: it is a replica, or why it gave no answer.
        hosts: Arc<str>,
        /// When the cluster will have asked its hosts again.
        retry_after: Duration,
    },

    /// Two servers of a `Cluster` accept writes on the same timeline, so it is not known which of them will survive.
    /// The cluster writes to neither until one of them is silent (for 3 s by default), for example because an operator
    /// stops it. Nothing was sent.
    #[error("two primaries: {} and {} both accept writes; stop one of them", .hosts[0], .hosts[1])]
    #[non_exhaustive]
    TwoPrimaries {
        /// Host and port of both.
        hosts: Box<[Arc<str>; 2]>,
        /// How long a server has to be silent until the cluster no longer counts it: 3 s by default.
        retry_after: Duration,
    },

    /// Two servers of a `Cluster` belong to different database systems, and it is not known which of them is right: one
    /// may be an empty database on a new disk. The cluster writes to neither until most hosts agree, or one of the
    /// systems has been silent for two minutes. Nothing was sent.
    #[error("two systems: {} has system {} and {} has system {}; remove the host that does not belong to the cluster", .systems[0].0, .systems[0].1, .systems[1].0, .systems[1].1)]
    #[non_exhaustive]
    TwoSystems {
        /// Two hosts, each with the identifier of its system.
        systems: Box<[(Arc<str>, u64); 2]>,
        /// When the cluster will have asked its hosts again.
        retry_after: Duration,
    },

    /// No replica of a `Cluster` is known to be fresh enough for the read, and the primary cannot serve it: its share
    /// for such reads is in use, or there is no primary. Nothing was sent.
    #[error(
        "no replica is fresh enough for the read{}, and the primary cannot serve it: its spill budget is used up, or there \
         is no primary; asking again in {}",
        nearest_lag(.nearest),
        HumanDuration(*retry_after)
    )]
    #[non_exhaustive]
    NoFreshReplica {
        /// The upper bound of the freshest replica's lag. `None` if the lag of none is known.
        nearest: Option<Duration>,
        /// When the cluster will have asked its hosts again.
        retry_after: Duration,
    },

    /// The pool accepts no callers any more: it was closed ([`Pool::close`](crate::Pool::close)), or is being drained
    /// ([`Pool::drain`](crate::Pool::drain)).
    #[error("the pool is closed")]
    Closed,
}

/// Why a transaction was rolled back although it was to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortReason {
    /// A statement in it had failed, and the caller's closure did not return the error.
    #[non_exhaustive]
    Failed {
        /// The SQLSTATE of that error. `None` if the statement had timed out, or if
        /// [`execute_many`](crate::Client::execute_many) could not send one of its rows.
        sqlstate: Option<SqlState>,
    },
    /// A clone of its handle, or a stream of its rows, still existed.
    InUse,
    /// The server answered COMMIT with ROLLBACK.
    RolledBack,
    /// A statement in it was a COMMIT or ROLLBACK of its own. The pool does not know what became of the statements
    /// before.
    EndedByHand,
}

/// Why a change of the schema gave way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveWayReason {
    /// Other sessions waited for its locks.
    #[non_exhaustive]
    Waiting {
        /// How many.
        sessions: u32,
        /// How long the first of them had waited.
        longest: Duration,
    },
    /// The pool could not see who waited.
    #[non_exhaustive]
    NotWatched {
        /// What was in the way.
        why: Box<str>,
    },
}

impl fmt::Display for GiveWayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { sessions, longest } => {
                let (sessions, longest) = (Count(u64::from(*sessions), "session"), HumanDuration(*longest));
                write!(f, "{sessions} waited for its locks, the first for {longest}")
            }
            Self::NotWatched { why } => write!(f, "the pool could not see who waits for its locks: {why}"),
        }
    }
}

/// Why a call could not begin on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusyReason {
    /// An earlier statement had timed out or was dropped, and was still being stopped when the time of this call was
    /// up.
    Stopping,
    /// The COPY had ended before this step of it: it was finished or aborted.
    CopyEnded,
    /// [`Client::execute_many`](crate::Client::execute_many) begins a transaction, and other statements were under way
    /// on the connection.
    InUse,
}

impl fmt::Display for BusyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopping => "an earlier statement on the connection is still being stopped",
            Self::CopyEnded => {
                "the COPY has ended, because it was finished, or a step of it failed or was dropped; begin another COPY \
                 with copy_in"
            }
            Self::InUse => {
                "execute_many begins a transaction, and other statements are under way on the connection; await them \
                 first, or take another connection"
            }
        })
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { sqlstate: Some(state) } => {
                write!(f, "a statement in it had failed ({}), and the error was not passed on", one_line(state.code()))
            }
            Self::Failed { sqlstate: None } => {
                f.write_str("a statement in it had timed out or was done in part, and the error was not passed on")
            }
            Self::InUse => f.write_str("a clone of its handle or a stream of its rows still existed"),
            Self::EndedByHand => {
                f.write_str("a statement in it had ended it already; earlier statements may have been committed")
            }
            Self::RolledBack => f.write_str("the server answered COMMIT with ROLLBACK"),
        }
    }
}

impl Error {
    /// The error of a statement. `written`: whether any write was attempted since the call began. `lost`: why the
    /// connection ended, if it did.
    pub(crate) fn of_statement(
        source: tokio_postgres::Error,
        written: bool,
        phase: StatementPhase,
        lost: Option<Arc<Lost>>,
    ) -> Self {
        match driver::failure(&source, written, phase, lost.as_deref()).effect() {
            Effect::Unknown if phase == StatementPhase::Commit => Self::CommitUnknown { source: Some(source), lost },
            effect => Self::Postgres { source, effect, lost, row: None },
        }
    }

    /// Returns this error with the row that caused it, unless the connection was lost.
    pub(crate) fn at_row(mut self, index: u64) -> Self {
        if let Self::Postgres { lost: None, row, .. } = &mut self {
            *row = Some(index);
        }
        self
    }

    /// Returns this error for a call that had committed something before it failed.
    pub(crate) fn after_a_commit(mut self) -> Self {
        if let Self::Postgres { effect, .. } | Self::QueryTimeout { effect, .. } | Self::StreamIdle { effect, .. } =
            &mut self
        {
            *effect = Effect::Unknown;
        }
        self
    }

    /// Returns this error for a statement of a transaction that will not be committed: nothing can have been applied.
    pub(crate) fn before_commit(self) -> Self {
        match self {
            Self::QueryTimeout { operation, after, process_id, .. } => {
                Self::QueryTimeout { operation, after, process_id, effect: Effect::NotApplied }
            }
            Self::Postgres { source, lost, row, .. } => {
                Self::Postgres { source, effect: Effect::NotApplied, lost, row }
            }
            other => other,
        }
    }
}

/// For the driver's own methods, which the guard derefs to. Only the error itself is known, so a call on a lost
/// connection may have been applied.
impl From<tokio_postgres::Error> for Error {
    fn from(source: tokio_postgres::Error) -> Self {
        Self::of_statement(source, true, StatementPhase::Autocommit, None)
    }
}

/// Prints the line of `Display`: a derived `Debug` would print the server's DETAIL.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.kind()).field("line", &self.to_string()).field("effect", &self.effect());
        debug.finish_non_exhaustive()
    }
}

fn process(id: &Option<i32>) -> String {
    id.map(|id| format!(" (server process {id})")).unwrap_or_default()
}

fn busy(reason: BusyReason, waited: Duration) -> String {
    match reason {
        BusyReason::Stopping => format!("not begun within {}: {reason}", HumanDuration(waited)),
        BusyReason::CopyEnded | BusyReason::InUse => format!("not sent: {reason}"),
    }
}

fn nearest_lag(nearest: &Option<Duration>) -> String {
    nearest.map(|lag| format!(" (the freshest is at most {} behind)", HumanDuration(lag))).unwrap_or_default()
}

fn subject(operation: &Option<&'static str>) -> String {
    operation.map(|name| format!("{name}: ")).unwrap_or_default()
}

fn of_row(row: &Option<u64>) -> String {
    row.map(|row| format!("row {row}, counted from 0: ")).unwrap_or_default()
}

fn applied(effect: &Effect) -> &'static str {
    match effect {
        Effect::NotApplied => "; nothing was applied",
        Effect::Unknown => "; it may or may not have been applied",
    }
}

fn line(source: &tokio_postgres::Error, effect: &Effect, lost: &Option<Arc<Lost>>) -> String {
    let cause = driver::cause(source, lost.as_deref());
    // The driver's own errors are mostly about an answer: one row too few, a column of another type.
    match effect {
        Effect::Unknown if driver::is_of_the_server(source, lost.as_deref()) => cause + applied(effect),
        _ => cause,
    }
}

fn unanswered(source: &Option<tokio_postgres::Error>, lost: &Option<Arc<Lost>>) -> String {
    match source {
        Some(source) => driver::cause(source, lost.as_deref()),
        None => "no answer to COMMIT came in time".to_owned(),
    }
}

#[cfg(test)]
mod tests;
