//! The rows of a query as a stream.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
#[cfg(feature = "testing")]
use std::time::Duration;

use futures_util::Stream;
use tokio_postgres::Row;

use super::in_flight::InFlightCall;
use super::reading::Reader;
use super::statements::Statements;
use crate::conn::Client;
use crate::error::Error;
use crate::telemetry::Stamp;

/// A stream of rows, from [`Client::query_raw`]. From [`Pool::query_raw`](crate::Pool::query_raw) it owns its
/// connection.
///
/// It has three limits. The query timeout bounds each wait for the server. The call's deadline, if it has one, bounds
/// the whole stream. [`stream_idle_timeout`](crate::PoolBuilder::stream_idle_timeout) bounds each pause of the reader.
/// The last two also hold if the reader does not poll the stream. The pool then stops the statement, drops the rows
/// that were not read, and takes back the connection that the stream owns. The next poll returns
/// [`Error::QueryTimeout`] or [`Error::StreamIdle`], and later polls `None`.
///
/// Dropping a stream before its end stops its statement on the server.
///
/// The metrics count the operation when its stream ends: as failed, if the stream ends with an error after any number
/// of rows; as done, if the stream is complete or dropped.
///
/// A stream holds its connection for as long as its reader takes. To send many rows to a slow client, read them in
/// pages, or give the call a [`deadline`](crate::Call::deadline).
#[must_use = "rows come only while the stream is polled"]
pub struct RowStream<'a> {
    rows: Reader<tokio_postgres::RowStream>,
    rows_affected: Option<u64>,
    /// `None` once the first row was looked at.
    statements: Option<Arc<Statements>>,
    client: PhantomData<&'a Client>,
}

impl RowStream<'_> {
    pub(super) fn new(rows: tokio_postgres::RowStream, call: InFlightCall, statements: Arc<Statements>) -> Self {
        let rows = Reader::new(rows, call);
        Self { rows, rows_affected: None, statements: Some(statements), client: PhantomData }
    }

    /// Ends the stream as if its reader had not polled for `idle`.
    #[cfg(feature = "testing")]
    pub(super) fn end_as_idle(&self, idle: Duration) {
        self.rows.end_as_idle(idle);
    }

    /// Returns a stream that no longer borrows its client. Call [`owning`](Self::owning) next, with that client.
    pub(crate) fn unbound(self) -> RowStream<'static> {
        let Self { rows, rows_affected, statements, .. } = self;
        RowStream { rows, rows_affected, statements, client: PhantomData }
    }

    /// Owns the connection that the rows come from, and gives it back at the end. The operation, which began at
    /// `begun`, ends then, too.
    pub(crate) fn owning(self, lease: Client, begun: Stamp) -> Self {
        self.rows.own(lease, begun);
        self
    }

    /// Returns how many rows the statement returned or changed. `None` before the stream has ended.
    pub fn rows_affected(&self) -> Option<u64> {
        self.rows_affected
    }
}

impl Stream for RowStream<'_> {
    type Item = Result<Row, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { rows, rows_affected, statements, .. } = &mut *self;
        let polled = rows.poll_next(cx, |rows| *rows_affected = rows.rows_affected());
        if let Poll::Ready(Some(Ok(row))) = &polled {
            if let Some(statements) = statements.take() {
                statements.on_row(row);
            }
        }
        polled
    }
}

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").field("is_over", &self.rows.is_over()).finish_non_exhaustive()
    }
}
