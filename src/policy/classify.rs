//! What a failure means: the only file that knows SQLSTATEs.
//!
//! A table. [`Failure::meaning`] finds the row: the kind of failure, by what is known of it. The columns are the
//! questions that one may ask, in `questions.rs`: was nothing applied, may it run again, does it count for the breaker,
//! what becomes of the connection.

mod questions;

pub use self::questions::Effect;
pub(crate) use self::questions::{Condition, Fate, Reprepare, Retry, Verdict};

/// One failure, and what was being done.
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
    /// The same, and nothing was sent that can have changed anything.
    Preparing,
    /// Inside an explicit transaction, COMMIT not yet sent.
    Transaction,
    /// The same, in one that was begun READ ONLY.
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
        /// The SQLSTATE of the last notice or error that was nobody's answer.
        last_words: Option<&'a str>,
    },
    /// The server answered with an error.
    Answer(Answer<'a>),
    /// The driver could not encode a parameter, decode a row, or make sense of what came.
    Driver { written: bool },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// `None`: neither of the three, in any language we know.
    pub(crate) severity: Option<ServerSeverity>,
    pub(crate) state: &'a str,
    pub(crate) message: &'a str,
    /// The function of the server that raised it.
    pub(crate) routine: Option<&'a str>,
    /// It was raised within a function or procedure, and the latter may have committed before.
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
    /// A pooler had no server to give it to.
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
    /// Who one is, or the database: refused, or gone.
    Refused,
    System,
    Internal,
    /// Data, constraints, syntax, limits, and whatever else the request itself is the reason of.
    Request,
    Driver,
}

impl<'a> Failure<'a> {
    /// A statement in a transaction failed, by its SQLSTATE alone.
    pub(crate) fn answered(state: &'a str) -> Self {
        let answer =
            Answer { severity: Some(ServerSeverity::Error), state, message: "", routine: None, is_from_within: false };
        Self { phase: StatementPhase::Transaction, event: Occurrence::Answer(answer) }
    }

    /// The server, or a pooler, did not let us in.
    pub(crate) fn at_connect(state: &'a str) -> Self {
        let answer =
            Answer { severity: Some(ServerSeverity::Fatal), state, message: "", routine: None, is_from_within: false };
        Self { phase: StatementPhase::Connect, event: Occurrence::Answer(answer) }
    }

    /// A connection ended, and this was the last that was said on it.
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

    fn ends_session(&self) -> bool {
        match self.event {
            Occurrence::Unreachable | Occurrence::Lost { .. } => true,
            Occurrence::Answer(answer) => answer.ends_session(self.phase),
            Occurrence::Driver { .. } => false,
        }
    }

    /// Whether it was raised within a function or procedure, and the latter may have committed before.
    pub(crate) fn is_from_within(&self) -> bool {
        matches!(self.event, Occurrence::Answer(answer) if answer.is_from_within)
    }
}

impl Answer<'_> {
    /// ServerSeverity decides before the code does: the same code means something else in a session that goes on.
    fn meaning(&self, phase: StatementPhase) -> Meaning {
        if self.ends_session(phase) { self.meaning_of_end(phase) } else { self.meaning_of_error(phase) }
    }

    /// The session goes on, so the server is alive. Codes of sessions that end were raised by a function, or quoted
    /// from a foreign server.
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

    /// The session is over, or never came about.
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

    /// A pooler may refuse a connection in other words than the server.
    fn ends_session(&self, phase: StatementPhase) -> bool {
        self.severity != Some(ServerSeverity::Error) || phase == StatementPhase::Connect
    }

    /// PgBouncer has one code for everything. It speaks English only.
    fn is_never_forwarded(&self) -> bool {
        ["query_wait_timeout", "server login has been failing"].iter().any(|start| self.message.starts_with(start))
    }

    /// The code says only "not supported". The server speaks any language, and names its functions in one. Whoever
    /// names none speaks English.
    fn is_stale_plan(&self) -> bool {
        const MESSAGE: &str = "cached plan must not change result type";
        self.routine.map_or(self.message == MESSAGE, |routine| routine == "RevalidateCachedQuery")
    }
}

#[cfg(test)]
mod tests;
