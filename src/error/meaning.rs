//! What an error means: which kind it is, whether the call may have changed anything, whether it may run again, and
//! what an HTTP service answers.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::{AbortReason, BusyReason, Error, driver};
use crate::policy::{Condition, CountsAs, Effect, Retry, ShedReason, StatementPhase};

/// The `Retry-After` of a refusal for which the pool knows no time, in seconds.
const DEFAULT_RETRY_AFTER: u64 = 1;

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
    /// [`Error::GaveWay`](crate::Error::GaveWay)
    GaveWay,
    /// [`Error::NoPrimary`](crate::Error::NoPrimary)
    NoPrimary,
    /// [`Error::TwoPrimaries`](crate::Error::TwoPrimaries)
    TwoPrimaries,
    /// [`Error::TwoSystems`](crate::Error::TwoSystems)
    TwoSystems,
    /// [`Error::NoFreshReplica`](crate::Error::NoFreshReplica)
    NoFreshReplica,
    /// [`Error::Closed`](crate::Error::Closed)
    Closed,
}

impl ErrorKind {
    /// The name in snake case, as in metrics. It never changes.
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
            Self::GaveWay => "gave_way",
            Self::NoPrimary => "no_primary",
            Self::TwoPrimaries => "two_primaries",
            Self::TwoSystems => "two_systems",
            Self::NoFreshReplica => "no_fresh_replica",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// The kind of the error, without its fields.
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
            Self::GaveWay { .. } => ErrorKind::GaveWay,
            Self::NoPrimary { .. } => ErrorKind::NoPrimary,
            Self::TwoPrimaries { .. } => ErrorKind::TwoPrimaries,
            Self::TwoSystems { .. } => ErrorKind::TwoSystems,
            Self::NoFreshReplica { .. } => ErrorKind::NoFreshReplica,
            Self::Closed => ErrorKind::Closed,
        }
    }

    /// The server's SQLSTATE: of its answer, of a dial, or of the message with which it ended the connection.
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

    /// Which of the given rows caused the error, counted from 0: of
    /// [`execute_many`](crate::Client::execute_many), or of a row that [`copy_in_rows`](crate::Client::copy_in_rows) or
    /// a [`BinaryCopyIn`](crate::BinaryCopyIn) could not send. `None` if that is unknown.
    ///
    /// If the server refuses a row of a COPY, its CONTEXT names the line, counted from 1, in the server's language. The
    /// [`source`](std::error::Error::source) has it.
    pub fn row(&self) -> Option<u64> {
        if let Self::Postgres { row, .. } = self { *row } else { None }
    }

    /// Returns whether the call can have changed anything in the database.
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
            | Self::GaveWay { .. }
            | Self::NoPrimary { .. }
            | Self::TwoPrimaries { .. }
            | Self::TwoSystems { .. }
            | Self::NoFreshReplica { .. }
            | Self::Closed => Effect::NotApplied,
        }
    }

    /// Returns whether, and on which connection, the whole call may run again.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Connect { source, .. } => source.retry(),
            Self::QueryTimeout { effect: Effect::Unknown, .. } => Retry::NewConnection(Condition::IfIdempotent),
            Self::Postgres { source, effect, lost, .. } => {
                let may_be_applied = *effect == Effect::Unknown;
                let retry =
                    driver::failure(source, may_be_applied, StatementPhase::Autocommit, lost.as_deref()).retry();
                if may_be_applied { retry.if_idempotent() } else { retry }
            }
            _ => Retry::Never,
        }
    }

    /// Returns whether the connection was dead before anything was written.
    pub(crate) fn was_stale(&self) -> bool {
        matches!(self, Self::Postgres { source, effect: Effect::NotApplied, .. } if driver::is_end(source))
    }

    /// Returns whether a function or a procedure raised the error. A procedure may have committed before.
    fn is_from_within(&self) -> bool {
        let Self::Postgres { source, lost, .. } = self else { return false };
        driver::failure(source, true, StatementPhase::Autocommit, lost.as_deref()).is_from_within()
    }

    /// How long to wait before the next call. `None` if the pool has no estimate.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect { retry_after, .. }
            | Self::CircuitOpen { retry_after, .. }
            | Self::NoPrimary { retry_after, .. }
            | Self::TwoPrimaries { retry_after, .. }
            | Self::TwoSystems { retry_after, .. }
            | Self::NoFreshReplica { retry_after, .. } => Some(*retry_after),
            Self::Shed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns whether the database gave no answer, so that an answer from elsewhere may do
    /// ([`Call::fallback`](crate::Call::fallback)).
    ///
    /// That is so if the pool refused the call, the circuit is open, no connection came in time, the statement was too
    /// slow, its connection was lost, or the server is shutting down or out of resources.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Shed { .. }
            | Self::CircuitOpen { .. }
            | Self::AcquireTimeout { .. }
            | Self::Connect { .. }
            | Self::QueryTimeout { .. }
            | Self::Busy { reason: BusyReason::Stopping, .. }
            | Self::NoPrimary { .. }
            | Self::TwoPrimaries { .. }
            | Self::TwoSystems { .. }
            | Self::NoFreshReplica { .. }
            | Self::Closed => true,
            Self::Postgres { source, lost, .. } => {
                let failure = driver::failure(source, true, StatementPhase::Autocommit, lost.as_deref());
                failure.is_unreachable() || failure.counts_as() == CountsAs::Failure
            }
            Self::Busy { reason: BusyReason::CopyEnded | BusyReason::InUse, .. }
            | Self::StreamIdle { .. }
            | Self::TransactionAborted { .. }
            | Self::GaveWay { .. }
            | Self::CommitUnknown { .. } => false,
        }
    }

    /// Returns whether the pool is overloaded: callers ask for more than it can serve in time. An HTTP service answers
    /// 503. A limit that the owner set ([`ShedReason::RateLimited`]) is no overload, and neither is a caller that wants
    /// no wait ([`ShedReason::NoneIdle`]).
    pub fn is_overload(&self) -> bool {
        match self {
            Self::Shed { reason, .. } => !matches!(reason, ShedReason::RateLimited | ShedReason::NoneIdle),
            Self::AcquireTimeout { .. } => true,
            _ => false,
        }
    }

    /// The HTTP status that a service should answer. With the feature `axum`, a handler that returns the error answers
    /// it.
    ///
    /// | error | status |
    /// |---|---|
    /// | [`Shed`](Self::Shed), [`CircuitOpen`](Self::CircuitOpen), [`AcquireTimeout`](Self::AcquireTimeout), [`Connect`](Self::Connect), [`Busy`](Self::Busy) while an earlier statement is being stopped, [`GaveWay`](Self::GaveWay), [`Closed`](Self::Closed), and [`NoPrimary`](Self::NoPrimary), [`TwoPrimaries`](Self::TwoPrimaries), [`TwoSystems`](Self::TwoSystems), [`NoFreshReplica`](Self::NoFreshReplica) of a `Cluster` | 503 |
    /// | [`Postgres`](Self::Postgres), if certainly nothing was applied and another try may succeed: a connection that was lost before the statement was sent or before COMMIT, a server that shuts down, starts up, is read-only or out of resources, a conflict (40001, 40P01), a lock that is taken | 503 |
    /// | [`QueryTimeout`](Self::QueryTimeout), [`StreamIdle`](Self::StreamIdle) | 504 |
    /// | [`Postgres`](Self::Postgres) otherwise: the request was at fault, or it may or may not have been applied. Also if a function or a procedure raised it, because a procedure may have committed before | 500 |
    /// | [`CommitUnknown`](Self::CommitUnknown): never 503, because clients repeat a request that got 503 | 500 |
    /// | [`TransactionAborted`](Self::TransactionAborted), [`Busy`](Self::Busy) for a `COPY` that has ended, or for a connection in use | 500 |
    ///
    /// The status is about this one call. If an earlier call of the same request has changed something, run both in one
    /// [transaction](crate::Pool::transaction): otherwise "nothing was applied" is not true of the request.
    ///
    /// Only the service knows what a request was at fault for: a duplicate key may be a 409. See
    /// [`is_unique_violation`](Self::is_unique_violation) and the methods beside it.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Shed { .. }
            | Self::CircuitOpen { .. }
            | Self::AcquireTimeout { .. }
            | Self::Connect { .. }
            | Self::Busy { reason: BusyReason::Stopping, .. }
            | Self::GaveWay { .. }
            | Self::NoPrimary { .. }
            | Self::TwoPrimaries { .. }
            | Self::TwoSystems { .. }
            | Self::NoFreshReplica { .. }
            | Self::Closed => 503,
            Self::Postgres { .. } if self.may_be_sent_again() => 503,
            Self::QueryTimeout { .. } | Self::StreamIdle { .. } => 504,
            Self::Postgres { .. }
            | Self::Busy { reason: BusyReason::CopyEnded | BusyReason::InUse, .. }
            | Self::CommitUnknown { .. }
            | Self::TransactionAborted { .. } => 500,
        }
    }

    /// Returns whether certainly nothing was applied, and another try may succeed.
    fn may_be_sent_again(&self) -> bool {
        self.effect() == Effect::NotApplied && self.retry() != Retry::Never && !self.is_from_within()
    }

    /// The value of `Retry-After` with a 503: in whole seconds, rounded up, at least 1. It is 1 if the pool has no
    /// estimate. [`retry_after`](Self::retry_after) is not rounded.
    pub fn http_retry_after(&self) -> Option<u64> {
        let seconds = |after: Duration| after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        let after = self.retry_after().map_or(DEFAULT_RETRY_AFTER, |after| seconds(after).max(1));
        (self.http_status() == 503).then_some(after)
    }
}
