//! COPY from the server, as a stream of its data.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio_postgres::CopyOutStream;

use super::confirmed::Confirmed;
use crate::conn::Client;
use crate::conn::calls::in_flight::InFlightCall;
use crate::conn::calls::reading::Reader;
use crate::error::Error;
use crate::telemetry::Stamp;

/// A stream of the data of a `COPY ... TO STDOUT`, from [`Client::copy_out`](crate::Client::copy_out). It has the
/// limits of a [`RowStream`](crate::RowStream). Dropping it before its end stops the statement. From
/// [`Pool::copy_out`](crate::Pool::copy_out) it owns its connection.
///
/// The stream ends when the server has finished the statement. An error that comes after the data, such as that of an
/// AFTER trigger or of a deferred constraint, is its last item.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// use futures_util::TryStreamExt;
///
/// let pieces: Vec<_> = pool.copy_out("COPY items TO STDOUT").await?.try_collect().await?;
/// println!("{} bytes", pieces.concat().len());
/// # Ok(())
/// # }
/// ```
#[must_use = "data come only while the stream is polled"]
pub struct CopyOut<'a> {
    data: Reader<Confirmed<CopyOutStream>>,
    client: PhantomData<&'a Client>,
}

impl CopyOut<'_> {
    pub(in crate::conn::calls) fn new(data: CopyOutStream, call: InFlightCall) -> Self {
        Self { data: Reader::new(Confirmed::of_data(data), call), client: PhantomData }
    }

    /// Returns a stream that no longer borrows its client. Call [`owning`](Self::owning) next, with that client.
    pub(crate) fn unbound(self) -> CopyOut<'static> {
        CopyOut { data: self.data, client: PhantomData }
    }

    /// Owns the connection that the data come from, and gives it back at the end. The operation, which began at
    /// `begun`, ends then, too.
    pub(crate) fn owning(self, lease: Client, begun: Stamp) -> Self {
        self.data.own(lease, begun);
        self
    }
}

impl Stream for CopyOut<'_> {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.data.poll_next(cx, |_| ())
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut").field("is_over", &self.data.is_over()).finish_non_exhaustive()
    }
}
