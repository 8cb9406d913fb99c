//! What an HTTP service answers.

use std::time::Duration;

use super::Error;
use crate::policy::{Effect, Retry};

/// For whoever is refused without being told when to come back.
const DEFAULT_RETRY_AFTER: u64 = 1;

impl Error {
    /// The HTTP status that says it best to whoever sent the request. With the feature `axum`, that is the answer of a handler.
    ///
    /// | error | status |
    /// |---|---|
    /// | [`Shed`](Self::Shed), [`CircuitOpen`](Self::CircuitOpen), [`AcquireTimeout`](Self::AcquireTimeout), [`Connect`](Self::Connect), [`Busy`](Self::Busy), [`Closed`](Self::Closed) | 503 |
    /// | [`Postgres`](Self::Postgres), if certainly nothing was applied and another try may succeed: a lost connection, a server that shuts down or starts up, one that only reads or is out of resources, a conflict (40001, 40P01), a lock that is taken | 503 |
    /// | [`QueryTimeout`](Self::QueryTimeout), [`StreamIdle`](Self::StreamIdle) | 504 |
    /// | [`Postgres`](Self::Postgres) otherwise: the request was at fault, or what came of it is not known; also if a function or a procedure raised it, for a procedure may have committed before | 500 |
    /// | [`CommitUnknown`](Self::CommitUnknown): never 503, because clients send again what gets that | 500 |
    /// | [`TransactionAborted`](Self::TransactionAborted) | 500 |
    ///
    /// It speaks of this one call. If a request has changed something by an earlier one, "nothing was applied" is not true of the request: let one
    /// [transaction](crate::Pool::transaction) have both.
    ///
    /// What the request was at fault for, the service knows best: a duplicate key (23505) may be a 409. See [`sqlstate`](Self::sqlstate).
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Shed { .. }
            | Self::CircuitOpen { .. }
            | Self::AcquireTimeout { .. }
            | Self::Connect { .. }
            | Self::Busy { .. }
            | Self::Closed => 503,
            Self::Postgres { .. } if self.may_be_sent_again() => 503,
            Self::QueryTimeout { .. } | Self::StreamIdle { .. } => 504,
            Self::Postgres { .. } | Self::CommitUnknown { .. } | Self::TransactionAborted { .. } => 500,
        }
    }

    /// Of the server's answers: certainly nothing was applied, and another try may succeed.
    fn may_be_sent_again(&self) -> bool {
        self.effect() == Effect::NotApplied && self.retry() != Retry::Never && !self.is_from_within()
    }

    /// With a 503, the value of `Retry-After`: in whole seconds, rounded up, at least 1; 1 where the pool does not know.
    /// [`retry_after`](Self::retry_after) is exact.
    pub fn http_retry_after(&self) -> Option<u64> {
        let seconds = |after: Duration| after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        let after = self.retry_after().map_or(DEFAULT_RETRY_AFTER, |after| seconds(after).max(1));
        (self.http_status() == 503).then_some(after)
    }
}
