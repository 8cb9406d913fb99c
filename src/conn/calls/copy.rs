//! COPY in both directions, tracked and bounded as every other call.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, Stream};
use parking_lot::Mutex;
use tokio_postgres::{CopyInSink, CopyOutStream};

use super::in_flight::InFlightCall;
use super::reading::Reader;
use super::watcher::{Look, Watched};
use crate::clock::now;
use crate::conn::Client;
use crate::conn::call_options::CallOptions;
use crate::error::Error;

/// The data of a `COPY ... FROM STDIN`, from [`Client::copy_in`]. Dropped before [`finish`](Self::finish) has returned, it aborts the copy;
/// so does a step that fails, or whose future is dropped. At the call's deadline the pool aborts the copy, also if nobody sends anything.
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
    copy: Handle<T>,
    options: CallOptions,
    client: PhantomData<&'a Client>,
}

/// The caller's. Dropping it aborts the copy. (`CopyIn` itself has no `Drop`: with one it would keep the client borrowed to the end of its scope.)
struct Handle<T>(Arc<Copying<T>>);

/// A copy between two steps, which the connection's watcher can end.
struct Copying<T> {
    rest: Mutex<Rest<T>>,
    /// Of the call.
    deadline: Option<Instant>,
}

enum Rest<T> {
    Open(Open<T>),
    /// A step is under way, or the copy is over or aborted.
    Closed,
    /// The watcher has aborted it, and this is for the next step.
    TimedOut(Error),
}

/// Between two looks at a copy whose deadline has passed, until its last step has ended.
const SECOND: Duration = Duration::from_secs(1);

/// The driver's end of a copy, and the call.
type Open<T> = (Pin<Box<CopyInSink<T>>>, InFlightCall);

impl<T> CopyIn<'_, T>
where
    T: Buf + Send + 'static,
{
    pub(crate) fn new(sink: CopyInSink<T>, flight: InFlightCall, options: CallOptions) -> Self {
        let link = Arc::clone(&flight.link);
        let deadline = options.deadline.map(|deadline| deadline.instant());
        let rest = Mutex::new(Rest::Open((Box::pin(sink), flight)));
        let copy = Arc::new(Copying { rest, deadline });
        if deadline.is_some() {
            let copy = Arc::downgrade(&copy);
            link.watcher.watch(copy, now(), deadline);
        }
        Self { copy: Handle(copy), options, client: PhantomData }
    }

    /// Sends a piece of data, within the query timeout.
    ///
    /// # Errors
    ///
    /// As every call. [`Error::Busy`] once the copy is over or aborted.
    pub async fn send(&mut self, data: T) -> Result<(), Error> {
        let (mut sink, flight) = self.copy.0.take()?;
        let ((), flight) = flight.bounded(self.options.limit(now()), sink.send(data)).await?;
        self.copy.0.replace(Rest::Open((sink, flight)));
        Ok(())
    }

    /// Ends the copy, and tells how many rows were copied. They are committed then; in a transaction, when that is.
    ///
    /// # Errors
    ///
    /// As every call. [`Error::Busy`] once the copy is over or aborted.
    pub async fn finish(&mut self) -> Result<u64, Error> {
        let (mut sink, flight) = self.copy.0.take()?;
        flight.mark_executing();
        let finishing = async {
            let rows = sink.as_mut().finish().await?;
            // Copied, not yet committed. Asked again, the driver tells what came after: an error, or an end that it does not expect.
            match sink.as_mut().finish().await {
                Err(error) if error.as_db_error().is_some() || error.is_closed() => Err(error),
                _ => Ok(rows),
            }
        };
        let (rows, flight) = flight.bounded(self.options.limit(now()), finishing).await?;
        flight.answered();
        Ok(rows)
    }
}

impl<T> Copying<T> {
    fn take(&self) -> Result<Open<T>, Error> {
        match self.replace(Rest::Closed) {
            Rest::Open(open) => Ok(open),
            Rest::Closed => Err(Error::Busy { waited: Duration::ZERO, process_id: None }),
            Rest::TimedOut(error) => Err(error),
        }
    }

    fn replace(&self, rest: Rest<T>) -> Rest<T> {
        mem::replace(&mut *self.rest.lock(), rest)
    }
}

impl<T> Watched for Copying<T>
where
    T: Send + 'static,
{
    /// Aborts the copy at the deadline of its call, unless a step is under way: that has the same deadline.
    fn look(&self, now: Instant, _: bool) -> Option<Look> {
        let deadline = self.deadline?;
        if now < deadline {
            return Some(Look { again: deadline, held_until: None });
        }
        let mut rest = self.rest.lock();
        let Rest::Open((sink, flight)) = mem::replace(&mut *rest, Rest::Closed) else {
            return Some(Look { again: now + SECOND, held_until: None });
        };
        drop(rest);
        drop(sink);
        let error = flight.not_in_time();
        self.replace(Rest::TimedOut(error));
        None
    }

    fn is_unread(&self) -> bool {
        false
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        drop(self.0.replace(Rest::Closed));
    }
}

impl<T> fmt::Debug for CopyIn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = matches!(&*self.copy.0.rest.lock(), Rest::Open(_));
        f.debug_struct("CopyIn").field("is_open", &is_open).finish_non_exhaustive()
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
    data: Reader<CopyOutStream>,
    client: PhantomData<&'a Client>,
}

impl CopyOut<'_> {
    pub(crate) fn new(data: CopyOutStream, flight: InFlightCall) -> Self {
        Self { data: Reader::new(data, flight), client: PhantomData }
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
