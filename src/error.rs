//! What can go wrong, told apart by who should act.

mod config;
mod connect;
pub(crate) mod driver;
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
pub(crate) use self::io::{ProtocolViolation, is_out_of_files};
pub use self::lost::Lost;
pub use self::meaning::ErrorKind;
pub(crate) use self::outside::one_line;
use crate::human::HumanDuration;
use crate::policy::{Effect, ShedReason, StatementPhase};
use crate::status::Status;

/// Why a call on the pool failed.
///
/// `Display` is one line for a log, `Debug` adds little to it: neither shows a password, a query parameter, or the server's DETAIL, which
/// quotes rows. Where the server's message may quote a value (SQLSTATE class 22), it is cut off there. Names of tables and the like are
/// shown, and what your own `RAISE` says. [`source`](std::error::Error::source) has everything: take care where you print it.
///
/// # What to answer
///
/// [`http_status`](Self::http_status) has the table; what a request was at fault for, the service knows best:
///
/// ```
/// use failfast::Error;
/// use failfast::tokio_postgres::error::SqlState;
///
/// /// The HTTP status, and Retry-After in seconds.
/// fn answer(error: &Error) -> (u16, Option<u64>) {
///     let status = match error.sqlstate() {
///         Some(&SqlState::UNIQUE_VIOLATION) => 409,
///         Some(&SqlState::FOREIGN_KEY_VIOLATION | &SqlState::CHECK_VIOLATION) => 422,
///         _ => error.http_status(),
///     };
///     (status, error.http_retry_after())
/// }
///
/// assert_eq!(answer(&Error::Closed), (503, Some(1)));
/// ```
///
/// With the feature `axum`, handlers may return the error as it is.
///
/// # Whether to try again
///
/// [`effect`](Self::effect) tells whether anything can have been applied:
///
/// ```
/// use failfast::{Effect, Error, ErrorKind};
///
/// /// What may be applied twice may run again in any case.
/// fn may_run_again(error: &Error, idempotent: bool) -> bool {
///     let is_transient = matches!(error.kind(), ErrorKind::Connect | ErrorKind::AcquireTimeout | ErrorKind::QueryTimeout);
///     is_transient && (idempotent || error.effect() == Effect::NotApplied)
/// }
///
/// assert!(!may_run_again(&Error::Closed, true));
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Refused at once, before any waiting: the caller should back off or degrade. The database was not asked.
    #[error("refused at once: {reason}")]
    #[non_exhaustive]
    Shed {
        /// Why the pool would not let the caller wait.
        reason: ShedReason,
        /// When to ask again, by what the pool has seen of its own pace.
        retry_after: Option<Duration>,
    },

    /// The circuit breaker is open: too many calls on the database failed lately, so it was not asked. See
    /// [`Pool::breaker`](crate::Pool::breaker).
    #[error("refused at once: the circuit is open{}", connect::trailer(.last_connect_error))]
    #[non_exhaustive]
    CircuitOpen {
        /// When to ask again. The pool looks after the server itself, and may be back earlier.
        retry_after: Duration,
        /// Why the latest dial failed, if none has succeeded since.
        last_connect_error: Option<ConnectError>,
    },

    /// No connection became free in time. `status` tells the usual causes apart: all in use (holds too long, or the pool too
    /// small) or dials that fail or hang.
    #[error("no connection within {}: {status}{}", HumanDuration(*timeout), connect::trailer_after(.status, .last_connect_error))]
    #[non_exhaustive]
    AcquireTimeout {
        /// How long the caller was willing to wait.
        timeout: Duration,
        /// The pool at the moment of giving up.
        status: Box<Status>,
        /// Why the latest dial failed, if none has succeeded since.
        last_connect_error: Option<ConnectError>,
    },

    /// Nothing is connected and the database cannot be reached, or refuses the pool's credentials.
    #[error("not connected: {source}")]
    #[non_exhaustive]
    Connect {
        /// Why the latest dial failed.
        source: ConnectError,
        /// When the pool will dial again. Asking earlier gets the same answer at once.
        retry_after: Duration,
    },

    /// The call's deadline passed while its statement was running: the statement is slow, or waits for a lock. The server is being told to
    /// stop it.
    #[error("{}the statement was not done when the deadline passed, {} after it began{}{}", subject(.operation), HumanDuration(*after), process(.process_id), applied(.effect))]
    #[non_exhaustive]
    QueryTimeout {
        /// What the caller called it: [`Call::name`](crate::Call::name).
        operation: Option<&'static str>,
        /// How long the statement had been running.
        after: Duration,
        /// The server's process that ran it, as in `pg_stat_activity.pid` and in the server's log.
        process_id: Option<i32>,
        /// Whether it may have been applied all the same.
        effect: Effect,
    },

    /// The pool ended a stream that its reader had not polled for [`stream_idle_timeout`](crate::PoolBuilder::stream_idle_timeout). The pool stops the
    /// statement, drops the rows that were not read, and takes back the connection that the stream owned.
    #[error("{}nobody read the stream for {}, which is longer than stream_idle_timeout: the statement is stopped{}{}", subject(.operation), HumanDuration(*idle), process(.process_id), applied(.effect))]
    #[non_exhaustive]
    StreamIdle {
        /// What the caller called it: [`Call::name`](crate::Call::name).
        operation: Option<&'static str>,
        /// How long the reader had not polled.
        idle: Duration,
        /// The server's process, as in `pg_stat_activity.pid` and in the server's log.
        process_id: Option<i32>,
        /// Whether the statement may have been applied all the same.
        effect: Effect,
    },

    /// An earlier statement on this connection had timed out and was still being stopped when this call's deadline passed. This
    /// call's statement was not sent.
    #[error("not begun within {}: an earlier statement on the connection is still being stopped{}", HumanDuration(*waited), process(.process_id))]
    #[non_exhaustive]
    Busy {
        /// How long the call waited for the earlier one to end.
        waited: Duration,
        /// The server's process that runs the earlier one.
        process_id: Option<i32>,
    },

    /// The transaction was to be committed and could not be: it was rolled back, and nothing of it was applied, unless a statement in it had
    /// ended it by hand.
    #[error("rolled back instead of committed: {reason}")]
    #[non_exhaustive]
    TransactionAborted {
        /// Why it could not be committed.
        reason: AbortReason,
    },

    /// COMMIT was sent, and no answer came: the transaction may have been committed or not. The pool never runs it again; look in the
    /// database before you do.
    #[error("whether the transaction was committed is not known: {}", unanswered(.source, .lost))]
    #[non_exhaustive]
    CommitUnknown {
        /// The driver's error; `None` if nothing came before the deadline.
        source: Option<tokio_postgres::Error>,
        /// Why the connection was lost, if it was.
        lost: Option<Arc<Lost>>,
    },

    /// The server's answer; or the connection was lost, or the driver could not convert a parameter or a row.
    #[error("{}", said(.source, .effect, .lost))]
    #[non_exhaustive]
    Postgres {
        /// The driver's error.
        source: tokio_postgres::Error,
        /// Whether the statement may have been applied all the same.
        effect: Effect,
        /// Why the connection was lost, if it was.
        lost: Option<Arc<Lost>>,
    },

    /// The pool was closed, by [`Pool::close`](crate::Pool::close).
    #[error("the pool is closed")]
    Closed,
}

/// Why a transaction was rolled back although it was to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortReason {
    /// A statement in it had failed, and the error was not passed on.
    #[non_exhaustive]
    Failed {
        /// What the server had answered; `None` if the statement had timed out.
        sqlstate: Option<SqlState>,
    },
    /// A clone of its handle, or a stream of its rows, was still there.
    InUse,
    /// The server answered COMMIT with ROLLBACK.
    RolledBack,
    /// A statement in it was a COMMIT or a ROLLBACK of its own: what came before was ended there, and is not known to the pool.
    EndedByHand,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { sqlstate: Some(state) } => {
                write!(f, "a statement in it had failed ({}), and the error was not passed on", one_line(state.code()))
            }
            Self::Failed { sqlstate: None } => {
                f.write_str("a statement in it had timed out, and the error was not passed on")
            }
            Self::InUse => f.write_str("a clone of its handle or a stream of its rows was still there"),
            Self::EndedByHand => {
                f.write_str("it had been ended by a statement in it; what came before may be committed")
            }
            Self::RolledBack => f.write_str("the server answered COMMIT with ROLLBACK"),
        }
    }
}

impl Error {
    /// What came of a statement. `written`: whether any write was attempted since the call began; `lost`: why the connection ended, if
    /// it did.
    pub(crate) fn of_statement(
        source: tokio_postgres::Error,
        written: bool,
        phase: StatementPhase,
        lost: Option<Arc<Lost>>,
    ) -> Self {
        match driver::failure(&source, written, phase, lost.as_deref()).effect() {
            Effect::Unknown if phase == StatementPhase::Commit => Self::CommitUnknown { source: Some(source), lost },
            effect => Self::Postgres { source, effect, lost },
        }
    }

    /// Something of the call has been committed before it failed.
    pub(crate) fn after_a_commit(mut self) -> Self {
        if let Self::Postgres { effect, .. } | Self::QueryTimeout { effect, .. } | Self::StreamIdle { effect, .. } =
            &mut self
        {
            *effect = Effect::Unknown;
        }
        self
    }

    /// It was a BEGIN: nothing of the transaction can have been applied.
    pub(crate) fn of_begin(self) -> Self {
        match self {
            Self::QueryTimeout { operation, after, process_id, .. } => {
                Self::QueryTimeout { operation, after, process_id, effect: Effect::NotApplied }
            }
            Self::Postgres { source, lost, .. } => Self::Postgres { source, effect: Effect::NotApplied, lost },
            other => other,
        }
    }
}

/// For the driver's own methods, behind the guard: nothing is known but the error itself, so a lost connection may have applied
/// everything.
impl From<tokio_postgres::Error> for Error {
    fn from(source: tokio_postgres::Error) -> Self {
        Self::of_statement(source, true, StatementPhase::Autocommit, None)
    }
}

/// The line of `Display`: the derived one would print the server's DETAIL.
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

fn subject(operation: &Option<&'static str>) -> String {
    operation.map(|name| format!("{name}: ")).unwrap_or_default()
}

fn applied(effect: &Effect) -> &'static str {
    match effect {
        Effect::NotApplied => "; nothing was applied",
        Effect::Unknown => "; whether it was applied is not known",
    }
}

fn said(source: &tokio_postgres::Error, effect: &Effect, lost: &Option<Arc<Lost>>) -> String {
    let cause = driver::cause(source, lost.as_deref());
    // The driver's own complaints are mostly about what was read: one row too few, a column of another type.
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
