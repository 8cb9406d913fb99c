//! What a failure means: the only file that knows SQLSTATEs.
//!
//! This is a table. [`Failure::meaning`] finds the row, which is the kind of the failure. The columns are the questions
//! in `questions.rs`: was anything applied, may the call run again, does it count for the breaker, does the pool keep
//! the connection.

mod objection;
mod questions;

pub(crate) use self::objection::{Objection, is_data_exception};
pub use self::questions::Effect;
#[cfg(test)]
pub(crate) use self::questions::Fate;
pub(crate) use self::questions::{Condition, CountsAs, Reprepare, Retry};

/// The SQLSTATE of a statement that the server does not support.
#[cfg(feature = "testing")]
pub(crate) const NOT_SUPPORTED: &str = "0A000";
/// The SQLSTATE of a statement in a transaction that has failed.
#[cfg(feature = "testing")]
pub(crate) const IN_FAILED_TRANSACTION: &str = "25P02";

/// One failure, and the phase of the call in which it happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) phase: StatementPhase,
    pub(crate) event: Occurrence<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementPhase {
    Connect,
    /// A statement outside an explicit transaction.
    Autocommit,
    /// Outside an explicit transaction, before anything was sent that can change data.
    Preparing,
    /// Inside an explicit transaction, before COMMIT was sent.
    Transaction,
    /// Inside a transaction that was begun READ ONLY, before COMMIT was sent.
    ReadOnlyTransaction,
    Commit,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Occurrence<'a> {
    /// The server was not reached.
    Unreachable,
    /// The connection ended without an answer.
    Lost {
        /// Whether any write was attempted since the call began.
        written: bool,
        /// The SQLSTATE of the last notice or error that answered no request.
        last_words: Option<&'a str>,
    },
    /// The server answered with an error.
    Answer(Answer<'a>),
    /// The driver could not encode a parameter, decode a row, or understand the server's message.
    Driver { written: bool },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// `None` if the severity is none of these three in any known language.
    pub(crate) severity: Option<ServerSeverity>,
    pub(crate) state: &'a str,
    pub(crate) message: &'a str,
    /// The name of the server's own function that raised the error.
    pub(crate) routine: Option<&'a str>,
    /// Whether a function or procedure raised the error. A procedure may have committed before.
    pub(crate) is_from_within: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerSeverity {
    Error,
    Fatal,
    Panic,
}

/// The rows of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Unreachable,
    Lost,
    /// The two sides, or a pooler between them, lost track of each other.
    Protocol,
    /// A pooler had no server for the request.
    NotForwarded,
    ReadOnly,
    AlreadyFailed,
    KilledIdle,
    TransactionTimeout,
    StatementLost,
    StalePlan,
    Conflict,
    Ambiguous,
    OutOfResources,
    TooManyClients,
    InUse,
    Cancelled,
    Shutdown,
    Crash,
    NotReady,
    /// The user or the database is refused or gone.
    Refused,
    System,
    Internal,
    /// The request itself is at fault: data, constraints, syntax, limits.
    Request,
    Driver,
}

impl<'a> Failure<'a> {
    /// Returns the failure of a statement in a transaction, of which only the SQLSTATE is known.
    pub(crate) fn answered(state: &'a str) -> Self {
        let answer =
            Answer { severity: Some(ServerSeverity::Error), state, message: "", routine: None, is_from_within: false };
        Self { phase: StatementPhase::Transaction, event: Occurrence::Answer(answer) }
    }

    /// Returns the failure of a dial that the server or a pooler refused.
    pub(crate) fn at_connect(state: &'a str) -> Self {
        let answer =
            Answer { severity: Some(ServerSeverity::Fatal), state, message: "", routine: None, is_from_within: false };
        Self { phase: StatementPhase::Connect, event: Occurrence::Answer(answer) }
    }

    /// Returns the failure of a connection that ended after this SQLSTATE.
    pub(crate) fn after_last_words(state: &'a str) -> Self {
        Self { phase: StatementPhase::Autocommit, event: Occurrence::Lost { written: true, last_words: Some(state) } }
    }

    fn meaning(&self) -> Meaning {
        match self.event {
            Occurrence::Unreachable => Meaning::Unreachable,
            Occurrence::Driver { .. } => Meaning::Driver,
            Occurrence::Answer(answer) => answer.meaning(self.phase),
            Occurrence::Lost { last_words, .. } => match last_words {
                Some("25P03" | "57P05") => Meaning::KilledIdle,
                Some("57P01") => Meaning::Shutdown,
                Some("57P02") => Meaning::Crash,
                Some("57P03") => Meaning::NotReady,
                Some("57P04") => Meaning::Refused,
                _ => Meaning::Lost,
            },
        }
    }

    fn is_before_commit(&self) -> bool {
        matches!(
            self.phase,
            StatementPhase::Connect
                | StatementPhase::Preparing
                | StatementPhase::Transaction
                | StatementPhase::ReadOnlyTransaction
        )
    }

    /// Returns whether the failure has ended the session, so that the pool closes the connection.
    pub(crate) fn ends_session(&self) -> bool {
        match self.event {
            Occurrence::Unreachable | Occurrence::Lost { .. } => true,
            Occurrence::Answer(answer) => answer.ends_session(self.phase),
            Occurrence::Driver { .. } => false,
        }
    }

    /// Returns whether a function or procedure raised the error. A procedure may have committed before.
    pub(crate) fn is_from_within(&self) -> bool {
        matches!(self.event, Occurrence::Answer(answer) if answer.is_from_within)
    }
}

impl Answer<'_> {
    /// The severity decides before the SQLSTATE, which means something else if the session goes on.
    fn meaning(&self, phase: StatementPhase) -> Meaning {
        if self.ends_session(phase) { self.meaning_of_end(phase) } else { self.meaning_of_error(phase) }
    }

    /// The session goes on, so the server is alive. If the SQLSTATE is one that ends a session, a function raised it or
    /// quoted it from a foreign server.
    fn meaning_of_error(&self, phase: StatementPhase) -> Meaning {
        match (self.state, self.class()) {
            ("08P01", _) => Meaning::Protocol,
            ("0A000", _) if self.is_stale_plan() => Meaning::StalePlan,
            ("25006", _) if phase != StatementPhase::ReadOnlyTransaction => Meaning::ReadOnly,
            ("25P02", _) => Meaning::AlreadyFailed,
            ("26000" | "42P05", _) => Meaning::StatementLost,
            ("40001" | "40P01", _) => Meaning::Conflict,
            ("40003" | "08007", _) => Meaning::Ambiguous,
            ("53400", _) => Meaning::Request,
            ("55006" | "55P03", _) => Meaning::InUse,
            ("57014", _) => Meaning::Cancelled,
            (_, "53") => Meaning::OutOfResources,
            (_, "58" | "F0") => Meaning::System,
            (_, "XX") => Meaning::Internal,
            _ => Meaning::Request,
        }
    }

    /// The session has ended or was never established.
    fn meaning_of_end(&self, phase: StatementPhase) -> Meaning {
        match (self.state, self.class()) {
            ("08P01", _) if self.is_never_forwarded() => Meaning::NotForwarded,
            ("25006", _) => Meaning::ReadOnly,
            ("25P03" | "57P05", _) => Meaning::KilledIdle,
            ("25P04", _) => Meaning::TransactionTimeout,
            ("40001" | "40P01", _) => Meaning::Conflict,
            ("40003" | "08007", _) => Meaning::Ambiguous,
            ("53300", _) => Meaning::TooManyClients,
            ("57P01", _) => Meaning::Shutdown,
            ("57P02", _) => Meaning::Crash,
            ("57P03", _) => Meaning::NotReady,
            ("57P04" | "3D000", _) | (_, "28") => Meaning::Refused,
            (_, "08") => Meaning::Protocol,
            (_, "53") => Meaning::OutOfResources,
            (_, "58" | "F0") => Meaning::System,
            (_, "XX") => Meaning::Internal,
            _ if phase == StatementPhase::Connect => Meaning::Refused,
            _ => Meaning::Lost,
        }
    }

    fn class(&self) -> &str {
        self.state.get(..2).unwrap_or_default()
    }

    /// Any answer to a dial ends the session, because a pooler may refuse with another severity than the server.
    fn ends_session(&self, phase: StatementPhase) -> bool {
        self.severity != Some(ServerSeverity::Error) || phase == StatementPhase::Connect
    }

    /// PgBouncer uses one SQLSTATE for everything. Its messages are always English.
    fn is_never_forwarded(&self) -> bool {
        ["query_wait_timeout", "server login has been failing"].iter().any(|start| self.message.starts_with(start))
    }

    /// The SQLSTATE only means "not supported". The message may be in any language, but the name of the routine is not
    /// translated. An answer without a routine has an English message.
    fn is_stale_plan(&self) -> bool {
        const MESSAGE: &str = "cached plan must not change result type";
        self.routine.map_or(self.message == MESSAGE, |routine| routine == "RevalidateCachedQuery")
    }
}

#[cfg(test)]
mod tests;
