//! The driver's errors: what `policy/classify` has to know of them, and how they read in one line.

use std::borrow::Cow;
use std::error::Error as StdError;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity as Parsed};
use tokio_postgres::types::WrongType;

use super::Lost;
use super::outside::one_line;
use crate::policy::{Answer, Failure, Occurrence, ServerSeverity, StatementPhase};

/// What begins a quotation in the languages that the server speaks.
const QUOTES: [char; 9] = ['"', '\'', '`', '«', '»', '„', '“', '”', '「'];

/// `written`: whether any write was attempted since the call began.
pub(crate) fn failure<'a>(
    error: &'a Error,
    written: bool,
    phase: StatementPhase,
    lost: Option<&'a Lost>,
) -> Failure<'a> {
    let event = match error.as_db_error() {
        // It was said before, and the driver takes it for an answer.
        Some(db) if !written && is_an_end(db) => Occurrence::Lost { written, last_words: Some(db.code().code()) },
        Some(db) => Occurrence::Answer(answer(db)),
        None if error.is_closed() || lost.is_some() => {
            let last_words = lost.and_then(Lost::sqlstate).map(|state| state.code());
            Occurrence::Lost { written, last_words }
        }
        None => Occurrence::Driver { written },
    };
    Failure { phase, event }
}

fn answer(db: &DbError) -> Answer<'_> {
    // In every language of the server each procedural one has its name in the context: "PL/pgSQL function transfer() line 3 at RAISE".
    let is_from_within = db.where_().is_some_and(|context| context.contains("PL/"));
    Answer {
        severity: severity(db),
        state: db.code().code(),
        message: db.message(),
        routine: db.routine(),
        is_from_within,
    }
}

/// Whether it ended the session.
fn is_an_end(db: &DbError) -> bool {
    matches!(severity(db), Some(ServerSeverity::Fatal | ServerSeverity::Panic))
}

/// Poolers may send only the severity that is for people, in English.
fn severity(db: &DbError) -> Option<ServerSeverity> {
    match (db.parsed_severity(), db.severity()) {
        (Some(Parsed::Error), _) | (None, "ERROR") => Some(ServerSeverity::Error),
        (Some(Parsed::Fatal), _) | (None, "FATAL") => Some(ServerSeverity::Fatal),
        (Some(Parsed::Panic), _) | (None, "PANIC") => Some(ServerSeverity::Panic),
        _ => None,
    }
}

/// Whether it came with the end of the connection.
pub(super) fn is_end(error: &Error) -> bool {
    error.is_closed() || error.as_db_error().is_some_and(is_an_end)
}

/// Whether the server or the network is the reason, and not the driver itself.
pub(super) fn is_of_the_server(error: &Error, lost: Option<&Lost>) -> bool {
    !matches!(failure(error, true, StatementPhase::Autocommit, lost).event, Occurrence::Driver { .. })
}

/// What happened, in one line. The driver's own `Display` says only "db error" where the server's message and SQLSTATE are what one looks
/// for. The server's detail, which quotes rows, is left out, and so is the cause of a failed conversion, which may quote a parameter.
pub(super) fn cause(error: &Error, lost: Option<&Lost>) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{}: {} ({})", one_line(db.severity()), message(db), one_line(db.code().code()));
    }
    if let Some(lost) = lost {
        return format!("connection lost: {lost}");
    }
    match error.source().and_then(|source| source.downcast_ref::<WrongType>()) {
        Some(types) => format!("{error}: {types}"),
        None => one_line(&error.to_string()).into_owned(),
    }
}

fn message(db: &DbError) -> Cow<'_, str> {
    let whole = db.message();
    let failure = Failure { phase: StatementPhase::Autocommit, event: Occurrence::Answer(answer(db)) };
    match whole.find(QUOTES).filter(|_| failure.may_quote_values()) {
        Some(quoted) => format!("{}…", one_line(&whole[..quoted]).trim_end_matches('…')).into(),
        None => one_line(whole),
    }
}
