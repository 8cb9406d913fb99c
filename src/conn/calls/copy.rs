//! COPY in both directions, tracked and bounded as every other call.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, Stream};
use tokio_postgres::{CopyInSink, CopyOutStream};

use super::Flight;
use super::pace::Pace;
use super::queries::{Terms, bounded, now};
use crate::conn::Client;
use crate::error::Error;

/// The data of a `COPY ... FROM STDIN`, from [`Client::copy_in`]. Dropped before [`finish`](Self::finish) has returned, it aborts the copy;
/// so does a step that fails, or whose future is dropped.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// let client = pool.get().await?;
/// let mut copy = client.copy_in("COPY items (id, name) FROM STDIN").await?;
/// copy.send(&b"1\tapple\n2\tpear\n"[..]).await?;
/// println!("{} rows", copy.finish().await?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a copy that is not finished is aborted"]
pub struct CopyIn<'a, T> {
    /// `None` once the copy is over or aborted.
    open: Option<Open<T>>,
    terms: Terms,
    client: PhantomData<&'a Client>,
}

/// The driver's end of a copy, and the call.
type Open<T> = (Pin<Box<CopyInSink<T>>>, Flight);

impl<T> CopyIn<'_, T>
where
    T: Buf + Send + 'static,
{
    pub(crate) fn new(sink: CopyInSink<T>, flight: Flight, terms: Terms) -> Self {
        Self { open: Some((Box::pin(sink), flight)), terms, client: PhantomData }
    }

    /// Sends a piece of data, within the query timeout.
    ///
    /// # Errors
    ///
    /// As every call. [`Error::Busy`] once the copy is over or aborted.
    pub async fn send(&mut self, data: T) -> Result<(), Error> {
        let (mut sink, flight) = self.take()?;
        let ((), flight) = bounded(self.terms.limit(now()), flight, sink.send(data)).await?;
        self.open = Some((sink, flight));
        Ok(())
    }

    /// Ends the copy, and tells how many rows were copied. They are committed then; in a transaction, when that is.
    ///
    /// # Errors
    ///
    /// As every call. [`Error::Busy`] once the copy is over or aborted.
    pub async fn finish(&mut self) -> Result<u64, Error> {
        let (mut sink, flight) = self.take()?;
        let finishing = async {
            let rows = sink.as_mut().finish().await?;
            // Copied, not yet committed. Asked again, the driver tells what came after: an error, or an end that it does not expect.
            match sink.as_mut().finish().await {
                Err(error) if error.as_db_error().is_some() || error.is_closed() => Err(error),
                _ => Ok(rows),
            }
        };
        let (rows, flight) = bounded(self.terms.limit(now()), flight, finishing).await?;
        flight.answered();
        Ok(rows)
    }

    fn take(&mut self) -> Result<Open<T>, Error> {
        self.open.take().ok_or_else(|| Error::Busy { waited: Duration::ZERO, process_id: None })
    }
}

impl<T> fmt::Debug for CopyIn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn").field("is_open", &self.open.is_some()).finish_non_exhaustive()
    }
}

/// The data of a `COPY ... TO STDOUT`, from [`Client::copy_out`]. Dropped before its end, it stops the statement.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// use futures_util::TryStreamExt;
///
/// let client = pool.get().await?;
/// let pieces: Vec<_> = client.copy_out("COPY items TO STDOUT").await?.try_collect().await?;
/// println!("{} bytes", pieces.concat().len());
/// # Ok(())
/// # }
/// ```
#[must_use = "data come only while the stream is polled"]
pub struct CopyOut<'a> {
    /// `None` once the stream is over.
    data: Option<Pin<Box<CopyOutStream>>>,
    pace: Pace,
    client: PhantomData<&'a Client>,
}

impl CopyOut<'_> {
    pub(crate) fn new(data: CopyOutStream, flight: Flight, terms: Terms) -> Self {
        Self { data: Some(Box::pin(data)), pace: Pace::new(flight, terms), client: PhantomData }
    }
}

impl Stream for CopyOut<'_> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(data) = &mut this.data else { return Poll::Ready(None) };
        let step = data.as_mut().poll_next(cx);
        let step = this.pace.bound(cx, step);
        if this.pace.is_over() {
            this.data = None;
        }
        step
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut").field("is_over", &self.pace.is_over()).finish_non_exhaustive()
    }
}
