//! How a connection was lost.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use super::outside::one_line;
use crate::policy::Failure;

/// How a connection was lost: what the driver, which only says "connection closed", does not tell.
///
/// `Display` is one line for a log, without detail that may quote values.
#[derive(Debug)]
pub struct Lost {
    how: How,
    source: Option<tokio_postgres::Error>,
}

#[derive(Debug)]
enum How {
    /// The server gave a reason.
    Told(SqlState, String),
    /// It gave none.
    Closed,
    Socket,
    /// What it said could not be understood, answered nothing that was asked, or was too much.
    Garbled,
    Sealed,
    Abandoned,
}

impl Lost {
    /// What the server said last counts, if it said anything; else what ended the driver.
    pub(crate) fn new(last_words: Option<(SqlState, String)>, error: tokio_postgres::Error) -> Self {
        let how = match (last_words, io_kind(&error)) {
            (Some((state, message)), _) => How::Told(state, message),
            // TLS misses the other side's goodbye.
            (None, Some(io::ErrorKind::UnexpectedEof)) => How::Closed,
            (None, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) => How::Garbled,
            (None, Some(_)) => How::Socket,
            (None, None) if error.is_closed() => How::Closed,
            (None, None) => How::Garbled,
        };
        Self { how, source: Some(error) }
    }

    /// The pool had given it up.
    pub(crate) fn sealed() -> Self {
        Self { how: How::Sealed, source: None }
    }

    /// Nobody was left to drive it.
    pub(crate) fn abandoned() -> Self {
        Self { how: How::Abandoned, source: None }
    }

    fn told(&self) -> Option<&str> {
        self.sqlstate().map(SqlState::code)
    }

    /// The server, or this process of it, was told to stop.
    pub(crate) fn is_shutdown(&self) -> bool {
        self.told().is_some_and(|state| Failure::after_last_words(state).is_shutdown())
    }

    /// A process of the server crashed, which takes all of them along.
    pub(crate) fn is_crash(&self) -> bool {
        self.told().is_some_and(|state| Failure::after_last_words(state).is_crash())
    }

    /// The pool gave it up, or nobody was left to drive it.
    pub(crate) fn is_our_doing(&self) -> bool {
        matches!(self.how, How::Sealed | How::Abandoned)
    }

    /// The SQLSTATE, if the server gave a reason: 57P01 for a shutdown or a terminated session, 57P02 for a crash ...
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match &self.how {
            How::Told(state, _) => Some(state),
            _ => None,
        }
    }

    /// The last of the causes says most.
    fn root_cause(&self) -> String {
        let causes = std::iter::successors(self.source(), |error| (*error).source());
        causes.last().map(|cause| one_line(&cause.to_string()).into_owned()).unwrap_or_default()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Told(state, message) => {
                let end = Failure::after_last_words(state.code());
                let what = if end.is_crash() {
                    "the server crashed"
                } else if end.is_shutdown() {
                    "the server was shut down, or an administrator ended the connection"
                } else {
                    "the server ended the connection"
                };
                write!(f, "{what} ({}: {})", one_line(state.code()), one_line(message))
            }
            How::Closed => f.write_str("the server closed the connection"),
            How::Socket => write!(f, "the socket failed: {}", self.root_cause()),
            How::Garbled => write!(f, "the server was not understood: {}", self.root_cause()),
            How::Sealed => f.write_str("the pool gave the connection up"),
            How::Abandoned => f.write_str("the runtime that drove the connection ended"),
        }
    }
}

impl StdError for Lost {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

fn io_kind(error: &tokio_postgres::Error) -> Option<io::ErrorKind> {
    Some(error.source()?.downcast_ref::<io::Error>()?.kind())
}
