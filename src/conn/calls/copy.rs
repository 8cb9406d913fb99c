//! COPY in both directions. Each step has the limits of a call.
//!
//! The driver aborts a COPY when its sink is dropped: it sends a CopyFail without a text.

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
use crate::conn::link::Link;
use crate::error::{BusyReason, Error};

/// The sink for the data of a `COPY ... FROM STDIN`, from [`Client::copy_in`].
///
/// Dropping it before [`finish`](Self::finish) has returned aborts the copy. So does a step that fails, and a step
/// whose future is dropped. At the call's deadline the pool aborts the copy, even if no step is under way.
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

/// The caller's handle. Dropping it aborts the copy. (`CopyIn` itself has no `Drop`, because it would then keep the
/// client borrowed to the end of its scope.)
struct Handle<T>(Arc<Copying<T>>);

/// A copy between two steps, which the connection's watcher can end.
struct Copying<T> {
    link: Arc<Link>,
    next: Mutex<Step<T>>,
    /// The deadline of the call.
    deadline: Option<Instant>,
}

enum Step<T> {
    Open(Open<T>),
    /// A step is under way, or the copy has ended.
    Closed,
    /// The watcher has aborted the copy. The next step returns the error.
    TimedOut(Error),
}

/// How often the watcher looks at a copy whose deadline has passed, until the step under way has ended.
const SECOND: Duration = Duration::from_secs(1);

/// The driver's end of a copy, and the call.
type Open<T> = (Pin<Box<CopyInSink<T>>>, InFlightCall);

impl<T> CopyIn<'_, T>
where
    T: Buf + Send + 'static,
{
    pub(crate) fn new(sink: CopyInSink<T>, call: InFlightCall, options: CallOptions) -> Self {
        let link = Arc::clone(&call.link);
        let deadline = options.deadline.map(|deadline| deadline.instant());
        let copy = Arc::new(Copying { link: Arc::clone(&link), next: Mutex::new(Step::Closed), deadline });
        copy.replace(Step::Open((Box::pin(sink), call)));
        if deadline.is_some() {
            let copy = Arc::downgrade(&copy);
            link.watcher.watch(copy, now(), deadline);
        }
        Self { copy: Handle(copy), options, client: PhantomData }
    }

    /// Sends a piece of data, within the query timeout and the call's deadline. If the future is dropped, the copy is
    /// aborted.
    ///
    /// # Errors
    ///
    /// As [`Client::query`]. After any error the copy has ended. Each later step then returns [`Error::Busy`].
    pub async fn send(&mut self, data: T) -> Result<(), Error> {
        let (mut sink, call) = self.copy.0.take()?;
        let ((), call) = call.bounded(self.options.limit(now()), sink.send(data)).await?;
        self.copy.0.replace(Step::Open((sink, call)));
        Ok(())
    }

    /// Ends the copy, within the query timeout and the call's deadline. Returns how many rows were copied. They are
    /// committed then or, in a transaction, with it. If the future is dropped, the rows may or may not have been
    /// copied.
    ///
    /// # Errors
    ///
    /// As [`Client::query`]. [`Error::Busy`] if the copy has ended already.
    pub async fn finish(&mut self) -> Result<u64, Error> {
        let (mut sink, call) = self.copy.0.take()?;
        call.mark_executing();
        let finishing = async {
            let rows = sink.as_mut().finish().await?;
            // The rows are copied, and not yet committed. The second `finish` returns what the server sent next: an
            // error, or an end that the driver does not expect.
            match sink.as_mut().finish().await {
                Err(error) if error.as_db_error().is_some() || error.is_closed() => Err(error),
                _ => Ok(rows),
            }
        };
        let (rows, call) = call.bounded(self.options.limit(now()), finishing).await?;
        call.answered();
        Ok(rows)
    }
}

impl<T> Copying<T> {
    fn take(&self) -> Result<Open<T>, Error> {
        match self.replace(Step::Closed) {
            Step::Open(open) => Ok(open),
            Step::Closed => {
                Err(Error::Busy { reason: BusyReason::CopyEnded, waited: Duration::ZERO, process_id: None })
            }
            Step::TimedOut(error) => Err(error),
        }
    }

    fn replace(&self, next: Step<T>) -> Step<T> {
        let mut step = self.next.lock();
        self.link.calls.set_awaits_copy_data(matches!(next, Step::Open(_)));
        mem::replace(&mut *step, next)
    }
}

impl<T> Watched for Copying<T>
where
    T: Send + 'static,
{
    /// Aborts the copy at the deadline of its call, unless a step is under way. That has the same deadline.
    fn look(&self, now: Instant, _: bool) -> Option<Look> {
        let deadline = self.deadline?;
        if now < deadline {
            return Some(Look { again: deadline, held_until: None });
        }
        let Step::Open((sink, call)) = self.replace(Step::Closed) else {
            return Some(Look { again: now + SECOND, held_until: None });
        };
        drop(sink);
        let error = call.caller_timed_out();
        self.replace(Step::TimedOut(error));
        None
    }

    fn is_unread(&self) -> bool {
        false
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        drop(self.0.replace(Step::Closed));
    }
}

impl<T> fmt::Debug for CopyIn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = matches!(&*self.copy.0.next.lock(), Step::Open(_));
        f.debug_struct("CopyIn").field("is_open", &is_open).finish_non_exhaustive()
    }
}

/// A stream of the data of a `COPY ... TO STDOUT`, from [`Client::copy_out`]. It has the limits of a
/// [`RowStream`](crate::RowStream). Dropping it before its end stops the statement.
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
    pub(crate) fn new(data: CopyOutStream, call: InFlightCall) -> Self {
        Self { data: Reader::new(data, call), client: PhantomData }
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
