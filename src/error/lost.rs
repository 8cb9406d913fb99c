//! Why a connection was lost.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use super::outside::one_line;
use crate::policy::Failure;

/// Why a connection was lost. The driver itself only reports "connection closed".
///
/// `Display` is one line for a log, without the server's DETAIL, which may quote values.
#[derive(Debug)]
pub struct Lost {
    how: How,
    source: Option<tokio_postgres::Error>,
}

#[derive(Debug)]
enum How {
    /// The server sent this SQLSTATE and message before it closed the connection.
    Announced(SqlState, String),
    /// The server closed the connection without a reason.
    Closed,
    Socket,
    /// The server sent a message that cannot be parsed, answers no request, or exceeds a limit.
    ProtocolError,
    Sealed,
    Abandoned,
}

impl Lost {
    /// The server's last words count, if there are any. Otherwise the driver's error does.
    pub(crate) fn new(last_words: Option<(SqlState, String)>, error: tokio_postgres::Error) -> Self {
        let how = match (last_words, io_kind(&error)) {
            (Some((state, message)), _) => How::Announced(state, message),
            // TLS reports a close without the TLS goodbye that way.
            (None, Some(io::ErrorKind::UnexpectedEof)) => How::Closed,
            (None, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) => How::ProtocolError,
            (None, Some(_)) => How::Socket,
            (None, None) if error.is_closed() => How::Closed,
            (None, None) => How::ProtocolError,
        };
        Self { how, source: Some(error) }
    }

    /// The server closed the connection without a reason.
    #[cfg(feature = "testing")]
    pub(crate) fn closed() -> Self {
        Self { how: How::Closed, source: None }
    }

    /// The pool had sealed the connection.
    pub(crate) fn sealed() -> Self {
        Self { how: How::Sealed, source: None }
    }

    /// The runtime that drove the connection has ended.
    pub(crate) fn abandoned() -> Self {
        Self { how: How::Abandoned, source: None }
    }

    fn code(&self) -> Option<&str> {
        self.sqlstate().map(SqlState::code)
    }

    /// Returns whether the server shuts down, or an administrator ended this session.
    pub(crate) fn is_shutdown(&self) -> bool {
        self.code().is_some_and(|state| Failure::after_last_words(state).is_shutdown())
    }

    /// Returns whether a process of the server crashed, which ends all its sessions.
    pub(crate) fn is_crash(&self) -> bool {
        self.code().is_some_and(|state| Failure::after_last_words(state).is_crash())
    }

    /// Returns whether the pool or the end of its runtime lost the connection, and not the server.
    pub(crate) fn is_our_doing(&self) -> bool {
        matches!(self.how, How::Sealed | How::Abandoned)
    }

    /// The SQLSTATE, if the server gave a reason, such as 57P01 for a shutdown or a terminated session and 57P02 for a
    /// crash.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match &self.how {
            How::Announced(state, _) => Some(state),
            _ => None,
        }
    }

    /// The last of the causes, which says most.
    fn root_cause(&self) -> String {
        let causes = std::iter::successors(self.source(), |error| (*error).source());
        causes.last().map(|cause| one_line(&cause.to_string()).into_owned()).unwrap_or_default()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Announced(state, message) => {
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
            How::ProtocolError => write!(f, "the server violated the protocol: {}", self.root_cause()),
            How::Sealed => f.write_str("the pool closed the connection, because its state was uncertain"),
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
