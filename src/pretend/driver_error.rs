//! Errors of the driver, made by the driver itself.
//!
//! The driver's errors have no public constructor. So the driver begins a session on a stream that a test has written:
//! with the bytes of an error of the server, or with none. Nothing of this waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error, NoTls};

/// An error that the server answers in a test, with the fields that [`DbError`] has.
///
/// ```
/// use failfast::testing::ServerError;
/// use failfast::tokio_postgres::error::SqlState;
///
/// let taken = ServerError::new(SqlState::UNIQUE_VIOLATION).table("users").constraint("users_email_key");
/// ```
///
/// [`DbError`]: tokio_postgres::error::DbError
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError {
    /// Pairs of a field's type in the protocol and its text.
    fields: Vec<(u8, String)>,
}

impl ServerError {
    /// An error of the severity ERROR with this SQLSTATE.
    pub fn new(state: SqlState) -> Self {
        let fields = [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', state.code()), (b'M', "pretended by a test")];
        Self { fields: fields.map(|(field, text)| (field, text.to_owned())).into() }
    }

    /// Sets the message. Default: `pretended by a test`.
    #[must_use]
    pub fn message(self, message: impl Into<String>) -> Self {
        self.with(b'M', message.into())
    }

    /// Sets the DETAIL. Default: none.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        self.with(b'D', detail.into())
    }

    /// Sets the name of the constraint. Default: none.
    #[must_use]
    pub fn constraint(self, name: impl Into<String>) -> Self {
        self.with(b'n', name.into())
    }

    /// Sets the name of the table. Default: none.
    #[must_use]
    pub fn table(self, name: impl Into<String>) -> Self {
        self.with(b't', name.into())
    }

    /// Sets the name of the column. Default: none.
    #[must_use]
    pub fn column(self, name: impl Into<String>) -> Self {
        self.with(b'c', name.into())
    }

    /// The error's SQLSTATE.
    pub(crate) fn state(&self) -> &str {
        self.fields.iter().find(|(field, _)| *field == b'C').map_or("", |(_, state)| state)
    }

    /// The error as a message of the protocol: ErrorResponse.
    pub(crate) fn to_message(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (field, text) in &self.fields {
            body.push(*field);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
        [&b"E"[..], &length, &body].concat()
    }

    /// The error as the driver returns it.
    pub(crate) fn to_driver(&self) -> Error {
        after(&self.to_message())
    }

    fn with(mut self, field: u8, text: String) -> Self {
        self.fields.retain(|(other, _)| *other != field);
        self.fields.push((field, text));
        self
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ServerError");
        for (field, text) in &self.fields {
            let name = match field {
                b'S' => "severity",
                b'C' => "sqlstate",
                b'M' => "message",
                b'D' => "detail",
                b'n' => "constraint",
                b't' => "table",
                b'c' => "column",
                // `V` is the severity again, never translated.
                _ => continue,
            };
            shown.field(name, text);
        }
        shown.finish()
    }
}

/// The driver's error for a connection that has ended.
pub(crate) fn closed() -> Error {
    after(&[])
}

/// The driver's error after it has read these bytes, which begin no session.
fn after(bytes: &[u8]) -> Error {
    let mut config = Config::new();
    config.user("nobody");
    match config.connect_raw(Written(bytes), NoTls).now_or_never() {
        Some(Err(error)) => error,
        Some(Ok(_)) | None => unreachable!("the bytes begin no session, and nothing of the stream waits"),
    }
}

/// A stream that returns these bytes and then its end, and takes everything.
struct Written<'a>(&'a [u8]);

impl AsyncRead for Written<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Written<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_error_is_the_error_of_a_server() {
        let error = ServerError::new(SqlState::UNIQUE_VIOLATION).message("taken\0").message("twice").table("users");
        let error = error.constraint("users_email_key").column("email").detail("Key (email)=(a) already exists.");
        let (state, error) = (error.state().to_owned(), error.to_driver());
        let db = error.as_db_error().unwrap();
        assert_eq!((error.code(), &*state), (Some(&SqlState::UNIQUE_VIOLATION), "23505"));
        assert_eq!((db.message(), db.severity()), ("twice", "ERROR"));
        assert_eq!(db.parsed_severity(), Some(tokio_postgres::error::Severity::Error));
        assert_eq!((db.table(), db.constraint()), (Some("users"), Some("users_email_key")));
        assert_eq!((db.column(), db.detail()), (Some("email"), Some("Key (email)=(a) already exists.")));
    }

    #[test]
    fn a_written_error_is_shown_by_its_fields() {
        let error = ServerError::new(SqlState::UNIQUE_VIOLATION).constraint("users_email_key");
        let expected = "ServerError { severity: \"ERROR\", sqlstate: \"23505\", message: \"pretended by a test\", \
            constraint: \"users_email_key\" }";
        assert_eq!(format!("{error:?}"), expected);
    }

    #[test]
    fn a_stream_that_ends_at_once_is_a_closed_connection() {
        assert!(closed().is_closed());
    }
}
