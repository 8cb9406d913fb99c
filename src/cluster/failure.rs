//! What a failed attempt says about another attempt, on another host.

use crate::conn::Trail;
use crate::error::{Error, ErrorKind};
use crate::policy::{Condition, Effect, Retry};
use crate::telemetry::Fault;

/// Why another host may do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// It would not: the request was at fault.
    No,
    /// The host is slow or full. If it is also silent, it cannot be reached.
    Slow,
    /// The host is not the primary any more, or there is none. Nothing was sent.
    NoPrimary,
    /// The host no longer has what the read needs. Nothing was sent.
    NotFresh,
    /// The host takes no writes.
    ReadOnly,
    /// The host admits no more connections, or the circuit breaker of its pool is open, because calls on the host
    /// failed or were slow.
    CircuitOpen,
    /// The host cannot be reached, or the connection was lost.
    Unreachable,
    /// Something on this host was in the way, such as the replay of the log.
    Conflict,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) elsewhere: Elsewhere,
    /// Whether the attempt may have been applied.
    pub(super) is_doubtful: bool,
    /// Whether the database gave no answer, so that a fallback may answer.
    pub(super) is_unavailable: bool,
    pub(super) fault: Fault,
}

impl Seen {
    /// Returns whether another primary may do better.
    pub(super) fn is_about_the_primary(self) -> bool {
        use Elsewhere::{CircuitOpen, NoPrimary, ReadOnly, Unreachable};
        matches!(self.elsewhere, CircuitOpen | NoPrimary | ReadOnly | Unreachable)
    }

    fn of(error: &Error) -> Self {
        let retry = error.retry();
        let elsewhere = match error.kind() {
            ErrorKind::NoFreshReplica => Elsewhere::NotFresh,
            ErrorKind::CircuitOpen => Elsewhere::CircuitOpen,
            // A host that is full is not stale: its load must not move to the primary.
            ErrorKind::Connect if is_full(error) => Elsewhere::CircuitOpen,
            ErrorKind::Connect => Elsewhere::Unreachable,
            ErrorKind::AcquireTimeout | ErrorKind::Shed | ErrorKind::QueryTimeout => Elsewhere::Slow,
            ErrorKind::NoPrimary | ErrorKind::TwoPrimaries | ErrorKind::TwoSystems => Elsewhere::NoPrimary,
            ErrorKind::Postgres => by_retry(retry),
            _ => Elsewhere::No,
        };
        let (is_doubtful, is_unavailable) = (error.effect() == Effect::Unknown, error.is_unavailable());
        Self { elsewhere, is_doubtful, is_unavailable, fault: Fault::from(error) }
    }

    /// For a closure in a transaction that was not committed, or on a connection. `is_whole`: nothing of it can have
    /// been applied.
    fn of_work(trail: &Trail, is_whole: bool) -> Self {
        let is_doubtful = !is_whole && !trail.is_stale();
        let elsewhere = if trail.has_timed_out() { Elsewhere::Slow } else { by_retry(trail.retry()) };
        Self { elsewhere, is_doubtful, is_unavailable: trail.is_unavailable(), fault: trail.fault() }
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Connect { source, .. } if source.is_full())
}

fn by_retry(retry: Retry) -> Elsewhere {
    match retry {
        Retry::OtherHost(_) => Elsewhere::ReadOnly,
        Retry::NewConnection(_) => Elsewhere::Unreachable,
        Retry::SameConnection(Condition::Scheduled | Condition::IfIdempotent) => Elsewhere::Conflict,
        Retry::SameConnection(_) | Retry::Never => Elsewhere::No,
    }
}

/// An error that says what another host may do.
pub(super) trait Failure {
    fn seen(&self) -> Seen;
}

impl Failure for Error {
    fn seen(&self) -> Seen {
        Seen::of(self)
    }
}

/// The error of a call that runs the caller's closure.
pub(super) enum Outer<E> {
    /// The pool's own: there was no connection, or the transaction did not begin or commit.
    Pool(Error),
    /// The closure's own, and what the last failure on its connection says.
    Work(E, Seen),
}

impl<E> From<Error> for Outer<E> {
    fn from(error: Error) -> Self {
        Self::Pool(error)
    }
}

impl<E: From<Error>> Outer<E> {
    pub(super) fn work(error: E, trail: &Trail, is_whole: bool) -> Self {
        Self::Work(error, Seen::of_work(trail, is_whole))
    }

    /// The closure has run, and may run only once.
    pub(super) fn into_last(self) -> Self {
        let seen = Seen { elsewhere: Elsewhere::No, ..self.seen() };
        Self::Work(self.into_error(), seen)
    }

    pub(super) fn into_error(self) -> E {
        match self {
            Self::Pool(error) => error.into(),
            Self::Work(error, _) => error,
        }
    }
}

impl<E> Failure for Outer<E> {
    fn seen(&self) -> Seen {
        match self {
            Self::Pool(error) => Seen::of(error),
            Self::Work(_, seen) => *seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_postgres::error::SqlState;

    use super::*;
    use crate::error::{ConnectError, ConnectErrorKind};
    use crate::holder::LongestHeld;
    use crate::policy::ShedReason;

    fn elsewhere(error: &Error) -> Elsewhere {
        Seen::of(error).elsewhere
    }

    #[test]
    fn a_slow_host_is_not_an_unreachable_one_and_a_missing_primary_is_no_fault_of_the_request() {
        let (reason, retry_after) = (ShedReason::NoneIdle, Duration::ZERO);
        let shed = Error::Shed { reason, retry_after: None, longest_held: LongestHeld::NONE };
        assert_eq!(elsewhere(&shed), Elsewhere::Slow);
        let late = |effect| Error::QueryTimeout { operation: None, after: Duration::ZERO, process_id: None, effect };
        assert_eq!(elsewhere(&late(Effect::Unknown)), Elsewhere::Slow);
        assert!(Seen::of(&late(Effect::Unknown)).is_doubtful && !Seen::of(&late(Effect::NotApplied)).is_doubtful);
        let hosts = Box::new(["a", "b"].map(std::sync::Arc::from));
        let none = Error::NoPrimary { hosts: "a is a replica".into(), retry_after };
        for error in [none, Error::TwoPrimaries { hosts, retry_after }] {
            assert_eq!(elsewhere(&error), Elsewhere::NoPrimary);
            assert!(Seen::of(&error).is_about_the_primary());
        }
        assert!(!Seen::of(&shed).is_about_the_primary());
    }

    #[test]
    fn a_host_that_admits_no_more_connections_can_be_reached() {
        let of = |kind| Error::Connect { source: ConnectError::new(kind, "a:1"), retry_after: Duration::ZERO };
        let server = |state| of(ConnectErrorKind::Server(state));
        assert_eq!(elsewhere(&server(SqlState::TOO_MANY_CONNECTIONS)), Elsewhere::CircuitOpen);
        assert_eq!(elsewhere(&server(SqlState::CANNOT_CONNECT_NOW)), Elsewhere::Unreachable);
        assert_eq!(elsewhere(&of(ConnectErrorKind::Timeout(Duration::ZERO))), Elsewhere::Unreachable);
    }
}
