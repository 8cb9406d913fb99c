//! The columns of the table: one function for each question about a failure.
//!
//! Three rules stand above the rows:
//!
//! - The pool discards the connection if the failure ended the session, whatever the SQLSTATE.
//! - An error that the session survives is a failure of the database only if the server lacks a resource.
//! - Before COMMIT is sent, nothing has been applied. After it, only an answer of severity ERROR proves that.
//!
//! If the answer is unknown, the function returns the one that does no harm.

use super::{Failure, Meaning, Occurrence, ServerSeverity, StatementPhase};

/// Whether a failed call may have changed anything in the database.
///
/// This does not cover a procedure that committed by itself before it failed: that commit stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Certainly nothing was applied, so the call may run again.
    NotApplied,
    /// The call may have been applied as a whole. A batch with a COMMIT in it may have been applied in part. Run the
    /// call again only if applying it twice is harmless.
    Unknown,
}

/// Whether and where the call may run again. Inside a transaction, this means the whole transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Retry {
    #[default]
    Never,
    SameConnection(Condition),
    NewConnection(Condition),
    /// On a server of another role.
    OtherHost(Condition),
}

impl Retry {
    /// Returns on which condition the call may run again, on any connection.
    pub(crate) fn condition(self) -> Option<Condition> {
        match self {
            Self::Never => None,
            Self::SameConnection(condition) | Self::NewConnection(condition) | Self::OtherHost(condition) => {
                Some(condition)
            }
        }
    }

    /// Restricts the retry to idempotent calls, because the call may have been applied.
    pub(crate) fn if_idempotent(self) -> Self {
        match self {
            Self::Never => Self::Never,
            Self::SameConnection(_) => Self::SameConnection(Condition::IfIdempotent),
            Self::NewConnection(_) => Self::NewConnection(Condition::IfIdempotent),
            Self::OtherHost(_) => Self::OtherHost(Condition::IfIdempotent),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// As often as the schedule and the budget allow.
    Scheduled,
    /// Once, because a missing resource may stay missing.
    Limited,
    /// Once, after [`Failure::reprepare`].
    OnceReprepared,
    /// Only if the call may be applied twice.
    IfIdempotent,
}

/// What a failure means to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountsAs {
    Failure,
    /// The request was at fault, or another request was in its way. The server is well.
    Success,
    /// The failure counts as a slow call, if slow calls count.
    Slow,
    /// The session was terminated. This is a failure if the server shuts down (see `Terminations`).
    FailureIfShutdown,
    /// The server is well, but has another role than the pool wants.
    WrongHost,
    /// A setting has to be changed. Waiting does not help.
    Config,
    Nothing,
}

/// What happens to the connection, for docs/failure-semantics.md. The pool itself asks
/// [`ends_session`](Failure::ends_session).
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    /// The pool settles it first, because a statement may still be under way.
    Settle,
    Discard,
}

/// What the pool has to prepare again before another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reprepare {
    /// The prepared statement, on this connection.
    Statement,
    /// The prepared statement, on all connections.
    StatementEverywhere,
}

impl Failure<'_> {
    /// Returns whether the call may have changed anything.
    pub(crate) fn effect(&self) -> Effect {
        let nothing = match self.event {
            Occurrence::Unreachable => true,
            // After an error of the driver the transaction goes on, and may be committed.
            Occurrence::Driver { written } => !written || self.phase == StatementPhase::Preparing,
            Occurrence::Lost { written, .. } => !written || self.is_before_commit(),
            Occurrence::Answer(_) if self.is_before_commit() => true,
            Occurrence::Answer(answer) => match self.meaning() {
                // The first is ambiguous by definition. With the second, a pooler may have cut off a running query.
                Meaning::Ambiguous | Meaning::Protocol => false,
                // FATAL, but the server never sends these while a statement runs. A conflict with recovery only happens
                // on a standby, which applies nothing.
                Meaning::KilledIdle
                | Meaning::NotForwarded
                | Meaning::TooManyClients
                | Meaning::NotReady
                | Meaning::Refused
                | Meaning::Conflict => true,
                _ => answer.severity == Some(ServerSeverity::Error),
            },
        };
        if nothing { Effect::NotApplied } else { Effect::Unknown }
    }

    /// Returns whether and where the call may run again.
    pub(crate) fn retry(&self) -> Retry {
        use Condition::{IfIdempotent, Limited, OnceReprepared, Scheduled};
        let retry = match self.meaning() {
            Meaning::Unreachable
            | Meaning::Lost
            | Meaning::Protocol
            | Meaning::NotForwarded
            | Meaning::KilledIdle
            | Meaning::TooManyClients
            | Meaning::Shutdown
            | Meaning::Crash
            | Meaning::NotReady => Retry::NewConnection(Scheduled),
            Meaning::ReadOnly => Retry::OtherHost(Scheduled),
            Meaning::StatementLost | Meaning::StalePlan => Retry::SameConnection(OnceReprepared),
            Meaning::Conflict => Retry::SameConnection(Scheduled),
            Meaning::Ambiguous => Retry::SameConnection(IfIdempotent),
            Meaning::OutOfResources | Meaning::InUse => Retry::SameConnection(Limited),
            Meaning::System => Retry::SameConnection(IfIdempotent),
            Meaning::AlreadyFailed
            | Meaning::TransactionTimeout
            | Meaning::Cancelled
            | Meaning::Refused
            | Meaning::Internal
            | Meaning::Request
            | Meaning::Driver => Retry::Never,
        };
        let retry = match retry {
            Retry::SameConnection(condition) if self.ends_session() => Retry::NewConnection(condition),
            retry => retry,
        };
        match (self.effect(), retry) {
            // A procedure may have committed before it failed, and the client cannot see that. Only an explicit
            // transaction is known to be rolled back.
            (Effect::NotApplied, Retry::SameConnection(Scheduled | Limited))
                if self.phase == StatementPhase::Autocommit =>
            {
                Retry::SameConnection(IfIdempotent)
            }
            (Effect::NotApplied, retry) if self.phase == StatementPhase::Autocommit && self.is_from_within() => {
                retry.if_idempotent()
            }
            (Effect::NotApplied, retry) => retry,
            (Effect::Unknown, _) if self.phase == StatementPhase::Commit => Retry::Never,
            (Effect::Unknown, retry) => retry.if_idempotent(),
        }
    }

    /// Returns what the failure means to the breaker. An error that the session survives shows that the server is
    /// alive. It counts as a failure only if the server lacks a resource.
    pub(crate) fn counts_as(&self) -> CountsAs {
        match self.meaning() {
            Meaning::System | Meaning::Internal if !self.ends_session() => CountsAs::Success,
            Meaning::Protocol if !self.ends_session() => CountsAs::Nothing,
            Meaning::Unreachable
            | Meaning::Lost
            | Meaning::Protocol
            | Meaning::NotForwarded
            | Meaning::OutOfResources
            | Meaning::TooManyClients
            | Meaning::Crash
            | Meaning::NotReady
            | Meaning::System
            | Meaning::Internal => CountsAs::Failure,
            Meaning::AlreadyFailed
            | Meaning::StatementLost
            | Meaning::StalePlan
            | Meaning::Conflict
            | Meaning::InUse
            | Meaning::Request => CountsAs::Success,
            Meaning::KilledIdle | Meaning::Ambiguous | Meaning::Cancelled | Meaning::Driver => CountsAs::Nothing,
            Meaning::ReadOnly => CountsAs::WrongHost,
            Meaning::TransactionTimeout => CountsAs::Slow,
            Meaning::Shutdown => CountsAs::FailureIfShutdown,
            Meaning::Refused => CountsAs::Config,
        }
    }

    /// Returns whether the server was not reached or gave no answer, so that it may be gone.
    pub(crate) fn is_unreachable(&self) -> bool {
        use Meaning::{Crash, Lost, NotReady, Shutdown, Unreachable};
        matches!(self.meaning(), Unreachable | Lost | Crash | NotReady | Shutdown)
    }

    /// Returns what happens to the connection.
    #[cfg(test)]
    pub(crate) fn fate(&self) -> Fate {
        match self.meaning() {
            _ if self.ends_session() => Fate::Discard,
            // The transaction is still open, a second cancel may be under way, or a pooler is about to hang up.
            Meaning::AlreadyFailed | Meaning::Cancelled | Meaning::Protocol => Fate::Settle,
            _ => Fate::Keep,
        }
    }

    /// Returns what the pool has to prepare again before another try. Statements that a function or procedure has
    /// prepared are outside the pool's control.
    pub(crate) fn reprepare(&self) -> Option<Reprepare> {
        match self.meaning() {
            _ if self.is_from_within() => None,
            Meaning::StatementLost => Some(Reprepare::Statement),
            Meaning::StalePlan => Some(Reprepare::StatementEverywhere),
            _ => None,
        }
    }

    /// Returns whether the server does not have the prepared statement, and probably none of the others.
    pub(crate) fn is_statement_missing(&self) -> bool {
        matches!(self.event, Occurrence::Answer(answer) if answer.state == "26000") && self.reprepare().is_some()
    }

    /// Returns whether the prepared statement may be outdated. A type or function may have been replaced since it was
    /// prepared, or may be another one in this search path. The server reports this before it runs anything, and the
    /// statement may succeed once it is prepared again.
    pub(crate) fn may_be_outdated(&self) -> bool {
        let Occurrence::Answer(answer) = self.event else { return false };
        // The server does not translate internal errors.
        let is_lookup = answer.state == "XX000" && answer.message.starts_with("cache lookup failed");
        !answer.is_from_within && (is_lookup || matches!(answer.state, "42804" | "42846" | "42883" | "42704" | "42P18"))
    }

    /// Returns whether another transaction was in the way. Then this one may succeed if it runs again as a whole.
    pub(crate) fn is_conflict(&self) -> bool {
        self.meaning() == Meaning::Conflict
    }

    /// Returns whether the server accepts no more connections. It still serves the existing ones.
    pub(crate) fn is_full(&self) -> bool {
        self.meaning() == Meaning::TooManyClients
    }

    /// Returns whether the server itself stopped the statement, for a cancel request or a timeout. Only the message, in
    /// the server's language, says which. A function may raise the same SQLSTATE.
    pub(crate) fn is_cancel(&self) -> bool {
        let Occurrence::Answer(answer) = self.event else { return false };
        self.meaning() == Meaning::Cancelled && answer.routine.is_none_or(|routine| routine == "ProcessInterrupts")
    }

    /// Returns whether the server is read-only although the transaction is not.
    pub(crate) fn is_read_only(&self) -> bool {
        self.meaning() == Meaning::ReadOnly
    }

    /// Returns whether an administrator ended the server or this session.
    pub(crate) fn is_shutdown(&self) -> bool {
        self.meaning() == Meaning::Shutdown
    }

    /// Returns whether a process of the server crashed. That ends all sessions.
    pub(crate) fn is_crash(&self) -> bool {
        self.meaning() == Meaning::Crash
    }

    /// Returns whether the server's message may quote values of the statement. Other messages only name tables, columns
    /// and constraints.
    pub(crate) fn may_quote_values(&self) -> bool {
        matches!(self.event, Occurrence::Answer(answer) if answer.class() == "22")
    }
}
