//! The kinds of errors: a plain word for each, for metrics and for `match`.

use std::fmt;

/// Which [`Error`](crate::Error) it is, without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::Shed`](crate::Error::Shed)
    Shed,
    /// [`Error::CircuitOpen`](crate::Error::CircuitOpen)
    CircuitOpen,
    /// [`Error::AcquireTimeout`](crate::Error::AcquireTimeout)
    AcquireTimeout,
    /// [`Error::Connect`](crate::Error::Connect)
    Connect,
    /// [`Error::QueryTimeout`](crate::Error::QueryTimeout)
    QueryTimeout,
    /// [`Error::StreamIdle`](crate::Error::StreamIdle)
    StreamIdle,
    /// [`Error::Busy`](crate::Error::Busy)
    Busy,
    /// [`Error::TransactionAborted`](crate::Error::TransactionAborted)
    TransactionAborted,
    /// [`Error::CommitUnknown`](crate::Error::CommitUnknown)
    CommitUnknown,
    /// [`Error::Postgres`](crate::Error::Postgres)
    Postgres,
    /// [`Error::Closed`](crate::Error::Closed)
    Closed,
}

impl ErrorKind {
    /// A word in snake case that never changes: a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::CircuitOpen => "circuit_open",
            Self::AcquireTimeout => "acquire_timeout",
            Self::Connect => "connect",
            Self::QueryTimeout => "query_timeout",
            Self::StreamIdle => "stream_idle",
            Self::Busy => "busy",
            Self::TransactionAborted => "transaction_aborted",
            Self::CommitUnknown => "commit_unknown",
            Self::Postgres => "postgres",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
