//! What can go wrong, told apart by who should act.

mod config;
mod connect;

use std::time::Duration;

pub use self::config::ConfigError;
pub(crate) use self::connect::is_out_of_files;
pub use self::connect::{ConnectError, ConnectErrorKind};
use crate::status::Status;

/// Why a call on the pool failed.
///
/// `Display` is one line for a log; causes are in [`source`](std::error::Error::source). No password and no query parameter
/// appears in either.
#[derive(Debug, thiserror::Error)]
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

    /// No connection became free in time. `status` tells the usual causes apart: all in use (holds too long, or the pool too
    /// small) or dials that fail or hang.
    #[error("no connection within {timeout:?}: {status}{}", connect::trailer(.last_connect_error))]
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

    /// The call's deadline passed while its statement was running. Whether the statement was applied is not known.
    #[error("the statement was not done when the deadline passed, {after:?} after it began")]
    #[non_exhaustive]
    QueryTimeout {
        /// How long the statement had been running.
        after: Duration,
    },

    /// The server's answer, or a connection lost.
    #[error("{}", postgres_line(.0))]
    Postgres(#[from] tokio_postgres::Error),

    /// The pool was closed, by [`Pool::close`](crate::Pool::close).
    #[error("the pool is closed")]
    Closed,
}

/// Why the pool would not let a caller wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShedReason {
    /// As many callers wait already as [`max_waiting`](crate::PoolBuilder::max_waiting) allows.
    QueueFull,
    /// It would have waited longer than it can, by what the pool has seen of its own pace.
    Hopeless,
    /// It waited, and its turn came too late for its work to be done in time: the only reason that is given after a wait.
    TooLate,
    /// More is asked of the pool than it can do, and as many wait as it takes to keep it busy.
    Overloaded,
    /// [`Pool::try_get`](crate::Pool::try_get) found no idle connection.
    NoneIdle,
}

impl std::fmt::Display for ShedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue for connections is full",
            Self::Hopeless => "the wait would be longer than the caller's deadline allows",
            Self::Overloaded => "more is asked of the pool than it can do",
            Self::TooLate => "its turn came too late for its work to be done in time",
            Self::NoneIdle => "no connection is idle",
        })
    }
}

impl Error {
    /// How long to wait before asking again makes sense, where the pool knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect { retry_after, .. } => Some(*retry_after),
            Self::Shed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the pool is overloaded: more is asked of it than it can serve in time. An HTTP service answers 503.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Shed { .. } | Self::AcquireTimeout { .. })
    }
}

/// The driver's `Display` says only "db error": the server's message and SQLSTATE are what one looks for. Its detail, which may quote
/// values, is left out.
fn postgres_line(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {} ({})", db.severity(), db.message(), db.code().code()),
        None => error.to_string(),
    }
}
