//! COPY to the server. Each step has the limits of a call. `out.rs` is the other direction, and `binary.rs` has rows in
//! the binary format.
//!
//! The driver aborts a COPY when its sink is dropped: it sends a CopyFail without a text.
//!
//! A copy to the server is polled by its owner, and looked at by the connection's watcher. Each takes the copy out of
//! its lock before it does anything with it. So no lock is held while a waker is called or the copy is dropped. While
//! the watcher aborts the copy, a step of the owner waits, as a reader does in `reading.rs`.

pub(in crate::conn) mod binary;
mod confirmed;
mod not_binary;
pub(in crate::conn) mod out;
mod unconverted;
mod watched;

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Buf;
use futures_util::Sink;
use parking_lot::Mutex;
use tokio_postgres::CopyInSink;

use self::unconverted::EncodeError;
use super::in_flight::InFlightCall;
use super::timer::Timer;
use crate::clock::now;
use crate::conn::Client;
use crate::conn::link::Link;
use crate::error::{BusyReason, Error};
use crate::telemetry::{Fault, Stamp};

/// The sink for the data of a `COPY ... FROM STDIN`, from [`Client::copy_in`]. From
/// [`Pool::copy_in`](crate::Pool::copy_in) it owns its connection, and gives it back when the copy ends.
///
/// The query timeout bounds each step, and the call's deadline the whole copy. At the deadline the pool aborts the
/// copy, even if no step is under way. The error of a step ends the copy.
///
/// The pool cannot end a wait of your own. If the data come from the body of a request, code that waits for the next
/// piece goes on waiting after the deadline. Put [`timeout_at`](tokio::time::timeout_at) with the same deadline around
/// it. The guide has a complete handler for an upload.
///
/// Without a deadline, nothing bounds the pauses between the steps:
/// [`stream_idle_timeout`](crate::PoolBuilder::stream_idle_timeout) is for readers. So give the call a
/// [`deadline`](crate::Call::deadline) if the data come from a client that may be slow.
///
/// Dropping it before the copy was [finished](Self::finish) aborts the copy, and the server applies nothing of it. The
/// metrics do not count such a copy, like a call whose future is dropped.
///
/// It is also a [`Sink`], so that a stream can be [forwarded](futures_util::StreamExt::forward) to it. Closing the sink
/// finishes the copy. Dropping a future of [`SinkExt`](futures_util::SinkExt) does not abort it: the next step goes on
/// where that future stopped.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// let mut copy = pool.copy_in("COPY items (id, name) FROM STDIN").await?;
/// copy.send(&b"1\tapple\n2\tpear\n"[..]).await?;
/// println!("{} rows", copy.finish().await?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a copy that is not finished is aborted"]
pub struct CopyIn<'a, T> {
    copy: Handle<T>,
    /// `None` if the copy owns its connection.
    client: Option<&'a Client>,
    /// How many rows were copied, once the copy is finished.
    copied: Option<u64>,
}

/// The caller's handle. Dropping it aborts the copy. (`CopyIn` itself has no `Drop`, because it would then keep the
/// client borrowed to the end of its scope.)
struct Handle<T>(Arc<Copying<T>>);

/// A copy between two steps, which the connection's watcher can end.
struct Copying<T> {
    state: Mutex<State<T>>,
    /// The deadline of the call.
    deadline: Option<Instant>,
    link: Arc<Link>,
    /// How many errors the server had reported when it began to take data.
    errors: u64,
}

enum State<T> {
    Open(Box<Open<T>>),
    /// A step is being polled.
    Taken,
    /// A step has failed, and the reason is awaited.
    Failing(Pin<Box<dyn Future<Output = Error> + Send>>),
    /// The watcher is aborting the copy, without the lock. Then it wakes the step that waits.
    Ending(Option<Waker>),
    /// The watcher has aborted the copy. The next step returns the error.
    TimedOut(Error),
    /// The copy has ended. Its connection may be somebody else's by now.
    Over,
}

struct Open<T> {
    // Dropped in this order.
    sink: Pin<Box<CopyInSink<T>>>,
    call: InFlightCall,
    /// The connection, if the copy owns it.
    lease: Option<Client>,
    ending: Ending,
    /// When the step that waits has to be over, and whom to wake. `None` if no step waits.
    wait: Option<(Instant, Waker)>,
    timer: Option<Timer>,
}

/// What a step returned, and the copy.
type Done<R, T> = (R, Box<Open<T>>);

/// How far the end of the copy is.
#[derive(Debug, Clone, Copy)]
enum Ending {
    NotBegun,
    Begun,
    /// The server has copied so many rows, and has not committed them yet.
    Copied(u64),
}

impl<'a, T> CopyIn<'a, T>
where
    T: Buf + Send + 'static,
{
    pub(super) fn new(sink: CopyInSink<T>, call: InFlightCall, client: &'a Client) -> Self {
        let link = Arc::clone(&call.link);
        let deadline = call.options.deadline.map(|deadline| deadline.instant());
        let ending = Ending::NotBegun;
        let open = Open { sink: Box::pin(sink), call, lease: None, ending, wait: None, timer: None };
        let (state, errors) = (Mutex::new(State::Open(Box::new(open))), link.wire.errors());
        let copy = Arc::new(Copying { state, deadline, link: Arc::clone(&link), errors });
        link.calls.set_awaits_copy_data(true);
        if deadline.is_some() {
            let copy = Arc::downgrade(&copy);
            link.watcher.watch(copy, now(), deadline);
        }
        Self { copy: Handle(copy), client: Some(client), copied: None }
    }

    /// Returns a copy that no longer borrows its client. Call [`owning`](CopyIn::owning) next, with that client.
    pub(crate) fn unbound(self) -> CopyIn<'static, T> {
        CopyIn { copy: self.copy, client: None, copied: self.copied }
    }

    /// Returns whether the server has reported an error since the copy began. The end of the copy returns it.
    fn is_refused(&self) -> bool {
        self.copy.0.link.wire.errors() != self.copy.0.errors
    }

    /// Aborts the copy, because a value could not be converted. Returns the driver's error for that.
    async fn unconverted(&mut self, column: usize, cause: EncodeError) -> Error {
        let open = match poll_fn(|cx| self.copy.0.poll_take(cx)).await {
            State::Open(open) => open,
            state => return self.copy.0.over(state.refusal()),
        };
        let Some(client) = open.lease.as_ref().or(self.client) else { return ended() };
        let error = match unconverted::error(client.driver(), column, cause).await {
            Some(error) => open.ended(|call| call.explain_now(error)),
            None => ended(),
        };
        self.copy.0.over(error)
    }

    /// Sends a piece of data, within the query timeout and the call's deadline. If the future is dropped, the copy is
    /// aborted.
    ///
    /// # Errors
    ///
    /// As [`Client::query`]. After any error the copy has ended. Each later step then returns [`Error::Busy`].
    pub async fn send(&mut self, data: T) -> Result<(), Error> {
        let step = Unfinished(&self.copy.0);
        poll_fn(|cx| self.copy.0.poll_ready(cx)).await?;
        self.copy.0.start_send(data)?;
        poll_fn(|cx| self.copy.0.poll_flush(cx)).await?;
        mem::forget(step);
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
        let step = Unfinished(&self.copy.0);
        let rows = poll_fn(|cx| self.copy.0.poll_finish(cx)).await?;
        mem::forget(step);
        self.copied = Some(rows);
        Ok(rows)
    }
}

impl<T> CopyIn<'static, T> {
    /// Owns the connection that the data go to, and gives it back at the end. The operation, which began at `begun`,
    /// ends then, too.
    pub(crate) fn owning(self, lease: Client, begun: Stamp) -> Self {
        let ended = match &mut *self.copy.0.state.lock() {
            State::Open(open) => {
                open.call.measure_from(begun);
                open.lease = Some(lease);
                None
            }
            // The watcher has aborted the copy already.
            State::TimedOut(error) => Some((lease, Some(Fault::from(&*error)))),
            State::Taken | State::Failing(_) | State::Ending(_) | State::Over => Some((lease, None)),
        };
        if let Some((lease, fault)) = ended {
            lease.measure_whole(begun, fault);
        }
        self
    }
}

impl<T> CopyIn<'_, T> {
    /// Returns how many rows were copied. `None` before the copy was finished.
    pub fn rows_affected(&self) -> Option<u64> {
        self.copied
    }
}

impl<T> Sink<T> for CopyIn<'_, T>
where
    T: Buf + Send + 'static,
{
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.copy.0.poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, data: T) -> Result<(), Error> {
        self.copy.0.start_send(data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.copy.0.poll_flush(cx)
    }

    /// Finishes the copy, as [`finish`](CopyIn::finish) does.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.copied.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.copy.0.poll_finish(cx).map_ok(|rows| self.copied = Some(rows))
    }
}

impl<T> Copying<T>
where
    T: Buf + Send + 'static,
{
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_step(cx, |open, cx| open.sink.as_mut().poll_ready(cx)).map_ok(|((), open)| self.go_on(open))
    }

    /// Passes data to the driver. If the watcher is aborting the copy, the data are dropped, and the next step returns
    /// the error.
    fn start_send(&self, data: T) -> Result<(), Error> {
        let mut open = match self.take(|| None) {
            Some(State::Open(open)) => open,
            Some(state) => return Err(self.over(state.refusal())),
            None => return Ok(()),
        };
        match open.sink.as_mut().start_send(data) {
            Ok(()) => {
                self.go_on(open);
                Ok(())
            }
            Err(error) => Err(self.over(open.ended(|call| call.explain_now(error)))),
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_step(cx, |open, cx| open.sink.as_mut().poll_flush(cx)).map_ok(|((), open)| self.go_on(open))
    }

    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<u64, Error>> {
        self.poll_step(cx, Open::poll_finish).map_ok(|(rows, open)| {
            let Open { sink, call, lease, .. } = *open;
            drop(sink);
            call.answered();
            self.replace(State::Over);
            drop(lease);
            rows
        })
    }

    /// Polls one step of the copy. If it is done, the copy is still taken out: see [`go_on`](Self::go_on). Ends the
    /// copy if the step fails, or is not over within its limit.
    fn poll_step<R>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Open<T>, &mut Context<'_>) -> Poll<Result<R, tokio_postgres::Error>>,
    ) -> Poll<Result<Done<R, T>, Error>> {
        let mut open = match ready!(self.poll_take(cx)) {
            State::Open(open) => open,
            State::Failing(failing) => return self.poll_failing(cx, failing),
            state => return Poll::Ready(Err(self.over(state.refusal()))),
        };
        match poll(&mut open, cx) {
            Poll::Ready(Ok(done)) => {
                open.wait = None;
                Poll::Ready(Ok((done, open)))
            }
            Poll::Ready(Err(error)) => self.poll_failing(cx, Box::pin(open.failed(error))),
            Poll::Pending if open.poll_limit(cx).is_ready() => {
                Poll::Ready(Err(self.over(open.ended(InFlightCall::timed_out))))
            }
            Poll::Pending => {
                self.go_on(open);
                Poll::Pending
            }
        }
    }

    fn poll_failing<R>(
        &self,
        cx: &mut Context<'_>,
        mut failing: Pin<Box<dyn Future<Output = Error> + Send>>,
    ) -> Poll<Result<R, Error>> {
        let polled = failing.as_mut().poll(cx);
        self.replace(if polled.is_pending() { State::Failing(failing) } else { State::Over });
        polled.map(Err)
    }
}

impl<T> Copying<T> {
    /// Changes the facts about the connection only while the copy is open. Otherwise the connection may be somebody
    /// else's.
    fn replace(&self, next: State<T>) -> State<T> {
        self.replace_in(&mut self.state.lock(), next)
    }

    fn replace_in(&self, state: &mut State<T>, next: State<T>) -> State<T> {
        let awaits_data = matches!(&next, State::Open(open) if open.wait.is_none());
        if awaits_data || matches!(*state, State::Open(_)) {
            self.link.calls.set_awaits_copy_data(awaits_data);
        }
        mem::replace(state, next)
    }

    /// The copy has ended with this error.
    fn over(&self, error: Error) -> Error {
        self.replace(State::Over);
        error
    }

    /// Takes the copy out, for a step or for its end. Is pending while the watcher aborts the copy.
    fn poll_take(&self, cx: &Context<'_>) -> Poll<State<T>> {
        self.take(|| Some(cx.waker().clone())).map_or(Poll::Pending, Poll::Ready)
    }

    /// As [`poll_take`](Self::poll_take): `None` while the watcher aborts the copy. It then wakes the new `waker`.
    fn take(&self, waker: impl FnOnce() -> Option<Waker>) -> Option<State<T>> {
        let mut state = self.state.lock();
        let State::Ending(waiting) = &mut *state else { return Some(self.replace_in(&mut state, State::Taken)) };
        let former = match waker() {
            Some(waker) => waiting.replace(waker),
            None => None,
        };
        drop(state);
        drop(former);
        None
    }

    /// Puts the copy back after a step.
    fn go_on(&self, open: Box<Open<T>>) {
        self.replace(State::Open(open));
    }
}

impl<T> State<T> {
    /// The error of a step that finds the copy in this state.
    fn refusal(self) -> Error {
        match self {
            Self::TimedOut(error) => error,
            _ => ended(),
        }
    }
}

fn ended() -> Error {
    Error::Busy { reason: BusyReason::CopyEnded, waited: Duration::ZERO, process_id: None }
}

impl<T> Open<T>
where
    T: Buf + Send + 'static,
{
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, tokio_postgres::Error>> {
        if let Ending::NotBegun = self.ending {
            self.call.mark_executing();
            self.ending = Ending::Begun;
        }
        loop {
            let Poll::Ready(polled) = self.sink.as_mut().poll_finish(cx) else { return Poll::Pending };
            match (self.ending, polled) {
                // The rows are copied, and not yet committed. The second `poll_finish` returns what the server sent
                // next: an error, or an end that the driver does not expect.
                (Ending::Copied(_), Err(error)) if error.as_db_error().is_some() || error.is_closed() => {
                    return Poll::Ready(Err(error));
                }
                (Ending::Copied(rows), _) => return Poll::Ready(Ok(rows)),
                (_, polled) => self.ending = Ending::Copied(polled?),
            }
        }
    }
}

impl<T> Open<T> {
    /// The step waits. Is ready if it has waited for too long.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.wait.take().map(|(limit, _)| limit);
        let limit = limit.unwrap_or_else(|| self.call.options.limit(now()).instant());
        self.wait = Some((limit, cx.waker().clone()));
        let timer = Timer::until(limit.into(), self.timer.take());
        self.timer.insert(timer).poll(cx, || limit.into())
    }

    /// Ends the copy, and returns the error. The driver's sink goes first, so that it aborts the copy, and then the
    /// call.
    fn ended(self, error: impl FnOnce(InFlightCall) -> Error) -> Error {
        let Self { sink, call, lease, .. } = self;
        drop(sink);
        let error = error(call);
        drop(lease);
        error
    }

    /// As [`ended`](Self::ended), for an error of the driver. Waits for the reason if the connection was lost.
    async fn failed(self: Box<Self>, error: tokio_postgres::Error) -> Error {
        let Self { sink, call, lease, .. } = *self;
        drop(sink);
        let error = call.explain(error).await;
        drop(lease);
        error
    }
}

/// Aborts the copy when it is dropped. A step that is finished forgets it.
struct Unfinished<'a, T>(&'a Copying<T>);

impl<T> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        drop(self.0.replace(State::Over));
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        drop(self.0.replace(State::Over));
    }
}

impl<T> fmt::Debug for CopyIn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = matches!(&*self.copy.0.state.lock(), State::Open(_));
        f.debug_struct("CopyIn").field("is_open", &is_open).finish_non_exhaustive()
    }
}
