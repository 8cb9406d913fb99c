//! Why the pool refused, and why a transaction was not committed.

use std::fmt;

use tokio_postgres::error::SqlState;

use super::outside::one_line;

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
    /// Streams hold all connections, and their readers are so far behind that none is given back in time. See
    /// [`stream_idle_timeout`](crate::PoolBuilder::stream_idle_timeout).
    Unread,
    /// [`Pool::try_get`](crate::Pool::try_get) found no idle connection.
    NoneIdle,
}

impl ShedReason {
    /// A word in snake case that never changes: a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Hopeless => "hopeless",
            Self::TooLate => "too_late",
            Self::Overloaded => "overloaded",
            Self::Unread => "unread",
            Self::NoneIdle => "none_idle",
        }
    }
}

impl fmt::Display for ShedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue for connections is full",
            Self::Hopeless => "the wait would be longer than the caller's deadline allows",
            Self::Overloaded => "more is asked of the pool than it can do",
            Self::TooLate => "its turn came too late for its work to be done in time",
            Self::Unread => "streams that their readers do not read hold all connections",
            Self::NoneIdle => "no connection is idle",
        })
    }
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
