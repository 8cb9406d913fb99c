//! What can go wrong, told apart by who should act.

mod config;
mod connect;
pub(crate) mod driver;
mod http;
mod io;
mod kind;
mod lost;
mod nearest;
mod outside;
mod reason;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

pub use self::config::ConfigError;
pub(crate) use self::connect::Stage;
pub use self::connect::{ConnectError, ConnectErrorKind};
pub(crate) use self::io::{ProtocolViolation, is_out_of_files};
pub use self::kind::ErrorKind;
pub use self::lost::Lost;
pub(crate) use self::nearest::nearest;
pub(crate) use self::outside::one_line;
pub use self::reason::{AbortReason, BusyReason};
use crate::human::HumanDuration;
use crate::policy::{Condition, Effect, Retry, ShedReason, StatementPhase, Verdict};
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

    /// The call could not begin on its connection. Nothing of it was sent.
    #[error("{}{}", busy(*.reason, *.waited), process(.process_id))]
    #[non_exhaustive]
    Busy {
        /// What the connection was busy with, or no longer busy with.
        reason: BusyReason,
        /// How long the call waited for the connection. Zero if waiting would not have helped.
        waited: Duration,
        /// The server's process that runs the earlier statement.
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

    /// Which error it is, as a plain word.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Shed { .. } => ErrorKind::Shed,
            Self::CircuitOpen { .. } => ErrorKind::CircuitOpen,
            Self::AcquireTimeout { .. } => ErrorKind::AcquireTimeout,
            Self::Connect { .. } => ErrorKind::Connect,
            Self::QueryTimeout { .. } => ErrorKind::QueryTimeout,
            Self::StreamIdle { .. } => ErrorKind::StreamIdle,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::TransactionAborted { .. } => ErrorKind::TransactionAborted,
            Self::CommitUnknown { .. } => ErrorKind::CommitUnknown,
            Self::Postgres { .. } => ErrorKind::Postgres,
            Self::Closed => ErrorKind::Closed,
        }
    }

    /// What the server said: in its answer, at the dial, or as its last words on a connection that was lost.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Connect { source, .. } => source.sqlstate(),
            Self::CircuitOpen { last_connect_error, .. } => last_connect_error.as_ref()?.sqlstate(),
            Self::Postgres { source, lost, .. } => source.code().or_else(|| lost.as_deref()?.sqlstate()),
            Self::CommitUnknown { source, lost } => {
                source.as_ref().and_then(|source| source.code()).or_else(|| lost.as_deref()?.sqlstate())
            }
            Self::TransactionAborted { reason: AbortReason::Failed { sqlstate } } => sqlstate.as_ref(),
            _ => None,
        }
    }

    /// Whether the call can have changed anything in the database.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Postgres { effect, .. } | Self::QueryTimeout { effect, .. } | Self::StreamIdle { effect, .. } => {
                *effect
            }
            Self::TransactionAborted { reason: AbortReason::EndedByHand } => Effect::Unknown,
            Self::CommitUnknown { .. } => Effect::Unknown,
            Self::Shed { .. }
            | Self::CircuitOpen { .. }
            | Self::AcquireTimeout { .. }
            | Self::Connect { .. }
            | Self::Busy { .. }
            | Self::TransactionAborted { .. }
            | Self::Closed => Effect::NotApplied,
        }
    }

    /// What it says of another try of the whole call.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Connect { source, .. } => source.retry(),
            Self::QueryTimeout { effect: Effect::Unknown, .. } => Retry::NewConnection(Condition::IfIdempotent),
            Self::Postgres { source, effect, lost } => {
                let may_be_applied = *effect == Effect::Unknown;
                let retry =
                    driver::failure(source, may_be_applied, StatementPhase::Autocommit, lost.as_deref()).retry();
                if may_be_applied { retry.if_idempotent() } else { retry }
            }
            _ => Retry::Never,
        }
    }

    /// Whether the connection had been dead before anything was written.
    pub(crate) fn was_stale(&self) -> bool {
        matches!(self, Self::Postgres { source, effect: Effect::NotApplied, .. } if driver::is_end(source))
    }

    /// Whether a function or a procedure raised it, and the latter may have committed before.
    fn is_from_within(&self) -> bool {
        let Self::Postgres { source, lost, .. } = self else { return false };
        driver::failure(source, true, StatementPhase::Autocommit, lost.as_deref()).is_from_within()
    }

    /// How long to wait before asking again makes sense, where the pool knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect { retry_after, .. } | Self::CircuitOpen { retry_after, .. } => Some(*retry_after),
            Self::Shed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the database gave no answer: the call was refused, the circuit is open, no connection came in time, the statement was too
    /// slow, its connection was lost, or the server is shutting down or out of resources. An answer from elsewhere may do ([`Call::fallback`](crate::Call::fallback)).
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Shed { .. }
            | Self::CircuitOpen { .. }
            | Self::AcquireTimeout { .. }
            | Self::Connect { .. }
            | Self::QueryTimeout { .. }
            | Self::Busy { .. }
            | Self::Closed => true,
            Self::Postgres { source, lost, .. } => {
                let failure = driver::failure(source, true, StatementPhase::Autocommit, lost.as_deref());
                failure.is_unreachable() || failure.verdict() == Verdict::Failure
            }
            Self::StreamIdle { .. } | Self::TransactionAborted { .. } | Self::CommitUnknown { .. } => false,
        }
    }

    /// Whether the pool is overloaded: more is asked of it than it can serve in time. An HTTP service answers 503.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Shed { .. } | Self::AcquireTimeout { .. })
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

fn busy(reason: BusyReason, waited: Duration) -> String {
    match reason {
        BusyReason::Stopping => format!("not begun within {}: {reason}", HumanDuration(waited)),
        BusyReason::CopyEnded => format!("not sent: {reason}"),
    }
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
