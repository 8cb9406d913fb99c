//! The rows of a tracked query, one by one.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_postgres::Row;

use super::Flight;
use super::pace::Pace;
use super::queries::Terms;
use crate::conn::Client;
use crate::error::Error;

/// A stream of rows, from [`Client::query_raw`] or, with a connection of its own, from [`Pool::query_raw`](crate::Pool::query_raw).
///
/// The query timeout bounds the wait for each row, and the call's deadline, if it has one, the whole. Dropped before its end, it stops the
/// statement on the server.
#[must_use = "rows come only while the stream is polled"]
pub struct RowStream<'a> {
    // Dropped in this order: the driver's end of the rows, the call, the connection.
    /// `None` once the stream is over: while the driver's end is held, nothing else gets through.
    rows: Option<Pin<Box<tokio_postgres::RowStream>>>,
    rows_affected: Option<u64>,
    pace: Pace,
    lease: Option<Client>,
    client: PhantomData<&'a Client>,
}

impl RowStream<'_> {
    pub(crate) fn new(rows: tokio_postgres::RowStream, flight: Flight, terms: Terms) -> Self {
        let rows = Some(Box::pin(rows));
        Self { rows, rows_affected: None, pace: Pace::new(flight, terms), lease: None, client: PhantomData }
    }

    /// No longer bound to the client it comes from: to be given that at once.
    pub(crate) fn unbound(self) -> RowStream<'static> {
        let Self { rows, rows_affected, pace, lease, .. } = self;
        RowStream { rows, rows_affected, pace, lease, client: PhantomData }
    }

    /// With the connection that it comes from, which is given back at the end.
    pub(crate) fn owning(mut self, lease: Client) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How many rows the statement returned or changed, once the stream has ended.
    pub fn rows_affected(&self) -> Option<u64> {
        self.rows_affected
    }
}

impl Stream for RowStream<'_> {
    type Item = Result<Row, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(rows) = &mut this.rows else { return Poll::Ready(None) };
        let step = rows.as_mut().poll_next(cx);
        let step = this.pace.bound(cx, step);
        if this.pace.is_over() {
            this.rows_affected = rows.rows_affected();
            this.rows = None;
            this.lease = None;
        }
        step
    }
}

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").field("is_over", &self.pace.is_over()).finish_non_exhaustive()
    }
}
