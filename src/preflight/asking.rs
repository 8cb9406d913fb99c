//! Asks the server, each question in a read-only transaction of its own.
//!
//! The limits are a part of each question, because behind a pooler the next question may reach another session. What a
//! question sets ends with it.

use std::time::Duration;

use crate::conn::{Dialer, Scouting};
use crate::error::ConnectError;

/// One row of an answer, as text.
pub(super) type Row = Vec<Option<String>>;

/// Asks one question after the other.
pub(super) struct Asking<'a> {
    dialer: &'a Dialer,
    limit: Duration,
    connection: Option<Scouting>,
    /// Why there is no connection. Then no other is tried.
    failed: Option<ConnectError>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(dialer: &'a Dialer, limit: Duration) -> Self {
        let limit = limit.clamp(Duration::from_millis(1), Duration::from_secs(3600));
        Self { dialer, limit, connection: None, failed: None }
    }

    /// Why no connection could be made.
    pub(super) fn connect_error(&self) -> Option<&ConnectError> {
        self.failed.as_ref()
    }

    /// Asks a question, and returns the first row of the answer, or why there is none.
    pub(super) async fn ask(&mut self, question: &str) -> Result<Row, String> {
        let limit = self.limit;
        let limited = format!(
            "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {0}; SET LOCAL lock_timeout = {0}; {question}",
            limit.as_millis()
        );
        // The server's limit comes first: its error says what happened, and the connection is not lost.
        let answer = self.connection().await?.ask(&limited, limit + limit / 4).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// The process of the connection, as the driver was told.
    pub(super) async fn process(&mut self) -> Result<Option<i32>, String> {
        Ok(self.connection().await?.process_id())
    }

    async fn connection(&mut self) -> Result<&Scouting, String> {
        if self.connection.is_none() && self.failed.is_none() {
            match self.dialer.dial_to_ask().await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => self.failed = Some(error),
            }
        }
        let failed = &self.failed;
        let why = || format!("not connected: {}", failed.as_ref().map(ToString::to_string).unwrap_or_default());
        self.connection.as_ref().ok_or_else(why)
    }
}

/// A text as an SQL literal, whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The number in a column.
pub(super) fn number(row: &[Option<String>], column: usize) -> Option<f64> {
    row.get(column)?.as_deref()?.parse().ok()
}

/// The count in a column.
pub(super) fn count(row: &[Option<String>], column: usize) -> Option<i64> {
    row.get(column)?.as_deref()?.parse().ok()
}

/// The text in a column.
pub(super) fn text(row: &[Option<String>], column: usize) -> Option<&str> {
    row.get(column)?.as_deref()
}

/// The duration in a column, in seconds.
pub(super) fn seconds(row: &[Option<String>], column: usize) -> Option<Duration> {
    Duration::try_from_secs_f64(number(row, column)?.max(0.0)).ok()
}

/// Whether a column says "true".
pub(super) fn is_true(row: &[Option<String>], column: usize) -> bool {
    text(row, column) == Some("t")
}

/// A row as a test writes it.
#[cfg(test)]
pub(super) fn row(texts: &[&str]) -> Row {
    texts.iter().map(|text| (*text != "NULL").then(|| (*text).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_end_early() {
        assert_eq!(literal("orders"), "E'orders'");
        assert_eq!(literal(r"a'; DROP TABLE b; --\'"), r"E'a''; DROP TABLE b; --\\'''");
    }
}
