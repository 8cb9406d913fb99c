//! The driver's errors: the facts that `policy/classify` needs of each, and its line for a log.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity as Parsed};
use tokio_postgres::types::WrongType;

use super::Lost;
use super::outside::one_line;
use crate::policy::{Answer, Failure, Occurrence, ServerSeverity, StatementPhase};

/// The characters that begin a quotation in the languages of the server's messages.
const QUOTES: [char; 9] = ['"', '\'', '`', '«', '»', '„', '“', '”', '「'];

/// The data of a COPY are not in the binary format.
#[derive(Debug, thiserror::Error)]
#[error("the data of the COPY are not in the binary format: write COPY ... TO STDOUT (FORMAT binary)")]
pub(crate) struct NotBinary;

impl NotBinary {
    fn in_error(error: &Error) -> Option<&Self> {
        error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
    }
}

/// The failure as `policy/classify` knows it. `written`: whether any write was attempted since the call began.
pub(crate) fn failure<'a>(
    error: &'a Error,
    written: bool,
    phase: StatementPhase,
    lost: Option<&'a Lost>,
) -> Failure<'a> {
    let event = match error.as_db_error() {
        // The server sent it before the call began, and the driver took it for the call's answer.
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
    // The context names the procedural language in every language of the server's messages, as in
    // "PL/pgSQL function transfer() line 3 at RAISE".
    let is_from_within = db.where_().is_some_and(|context| context.contains("PL/"));
    Answer {
        severity: severity(db),
        state: db.code().code(),
        message: db.message(),
        routine: db.routine(),
        is_from_within,
    }
}

/// Returns whether the error ended the session.
fn is_an_end(db: &DbError) -> bool {
    matches!(severity(db), Some(ServerSeverity::Fatal | ServerSeverity::Panic))
}

/// A pooler may send only the severity for people, in English.
fn severity(db: &DbError) -> Option<ServerSeverity> {
    match (db.parsed_severity(), db.severity()) {
        (Some(Parsed::Error), _) | (None, "ERROR") => Some(ServerSeverity::Error),
        (Some(Parsed::Fatal), _) | (None, "FATAL") => Some(ServerSeverity::Fatal),
        (Some(Parsed::Panic), _) | (None, "PANIC") => Some(ServerSeverity::Panic),
        _ => None,
    }
}

/// Returns whether the connection ended with the error.
pub(super) fn is_end(error: &Error) -> bool {
    error.is_closed() || error.as_db_error().is_some_and(is_an_end)
}

/// Returns whether the server or the network caused the error, and not the driver itself.
pub(super) fn is_of_the_server(error: &Error, lost: Option<&Lost>) -> bool {
    !matches!(failure(error, true, StatementPhase::Autocommit, lost).event, Occurrence::Driver { .. })
}

/// Describes the error in one line, with the server's message and SQLSTATE. The driver's own `Display` says only "db
/// error".
///
/// The line leaves out the server's DETAIL, which quotes rows, and the cause of a failed conversion, which may quote a
/// parameter.
pub(crate) fn cause(error: &Error, lost: Option<&Lost>) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{}: {} ({})", one_line(db.severity()), message(db), one_line(db.code().code()));
    }
    if let Some(lost) = lost {
        return format!("connection lost: {lost}");
    }
    if let Some(not_binary) = NotBinary::in_error(error) {
        return not_binary.to_string();
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
