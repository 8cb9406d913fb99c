//! A stream of rows or of COPY data, which its reader shares with the pool.
//!
//! The reader polls the stream. While it waits for the server, a timer ends the wait at the query timeout. But a reader
//! may also keep the stream and never poll it again. So the connection's [`Watcher`](super::watcher::Watcher) looks at
//! the stream several times in each limit, and ends it at the deadline of the call, or after `stream_idle_timeout`
//! without a poll.
//!
//! The reader registers its waker under the lock of its stream, because another lock would double the cost of a row.
//! Only the reader and the watcher take that lock. The watcher holds no other lock then, and wakes the reader only
//! after it unlocks.
//!
//! The end of a stream drops three things in this order: the driver's stream, because its unread rows block the
//! connection; the call, which stops the statement on the server; the lease, which settles the connection.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use futures_util::{Stream, TryStream};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::{Handle, Id};
use tokio::time::{self, Sleep};

use super::in_flight::InFlightCall;
use super::watcher::{LOOKS, Look, Watched};
use crate::clock::now;
use crate::conn::Client;
use crate::error::Error;
use crate::telemetry::{Fault, Stamp};

/// Over how many looks the pace of a reader is measured. They take half an acquire timeout.
const PACES: usize = LOOKS as usize / 2;

/// The reader's end of the stream. Dropping it ends the stream.
pub(super) struct Reader<S>(Arc<Reading<S>>);

struct Reading<S>(Mutex<StreamState<S>>);

enum StreamState<S> {
    Open(Box<Open<S>>),
    /// The watcher is ending the stream, without the lock.
    Ending(Arc<Signal>),
    /// The watcher has found the stream complete, and the reader has not polled since.
    Complete(Pin<Box<S>>),
    /// If the watcher ended the stream, the reader's next poll returns the error.
    Over(Option<Error>),
}

struct Open<S> {
    // Dropped in this order.
    items: Pin<Box<S>>,
    call: InFlightCall,
    lease: Option<Client>,
    /// Ends the reader's wait for the next item. `None` while the reader has an item and has not asked for the next.
    timer: Option<Timer>,
    signal: Arc<Signal>,
    /// The same signal, as a waker for the driver's stream.
    waker: Waker,
    progress: Progress,
    seen: LastLook,
    /// How many items the reader had got at each of the last looks. Empty unless it always had something to read.
    paces: VecDeque<(Instant, u64)>,
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// The timer goes off only on this runtime.
    runtime: Id,
}

/// What the reader has done since the stream began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Polls that returned an item.
    items: u64,
    /// Polls that found no item.
    waits: u64,
}

/// What the watcher found when it last looked.
#[derive(Debug, Clone, Copy)]
struct LastLook {
    at: Instant,
    progress: Progress,
    /// The reader has made no progress since then.
    since: Instant,
    /// The reader was waiting for the server.
    was_waiting: bool,
}

/// Why a stream ends.
enum End {
    Complete,
    Failed(tokio_postgres::Error),
    /// The server sent nothing for too long.
    TimedOut,
    /// The deadline passed while the reader had something to read.
    NotReadInTime,
    /// The reader has dropped its end, because it has all that it wants.
    Dropped,
    /// The reader did not poll for this long.
    Idle(Duration),
}

impl<S> Reader<S>
where
    S: TryStream<Error = tokio_postgres::Error> + Send + 'static,
{
    /// Begins to read `items`, the answer to `call`. From now on the connection's watcher looks at the stream.
    pub(super) fn new(items: S, call: InFlightCall) -> Self {
        let signal = Arc::new(Signal::default());
        let (now, progress) = (now(), Progress { items: 0, waits: 0 });
        let (options, link) = (call.options, Arc::clone(&call.link));
        let open = Open {
            items: Box::pin(items),
            call,
            lease: None,
            timer: None,
            waker: Arc::clone(&signal).into(),
            signal,
            progress,
            seen: LastLook { at: now, progress, since: now, was_waiting: false },
            paces: VecDeque::new(),
        };
        let reading = Arc::new(Reading(Mutex::new(StreamState::Open(Box::new(open)))));
        let (stream, by) = (Arc::downgrade(&reading), options.deadline.map(|deadline| deadline.instant()));
        link.watcher.watch(stream, now, by);
        Self(reading)
    }

    /// Hands over the connection that the items come from. The stream gives it back at its end. The operation, which
    /// began at `begun`, ends then, too.
    pub(super) fn own(&self, lease: Client, begun: Stamp) {
        let mut state = self.0.lock();
        match &mut *state {
            StreamState::Open(open) => {
                open.call.measure_from(begun);
                open.lease = Some(lease);
            }
            // The watcher has ended the stream already.
            StreamState::Over(Some(error)) => lease.measure_whole(begun, Some(Fault::from(&*error))),
            StreamState::Over(None) | StreamState::Ending(_) | StreamState::Complete(_) => {
                lease.measure_whole(begun, None)
            }
        }
    }

    /// Ends the stream as if its reader had not polled for `idle`.
    #[cfg(feature = "testing")]
    pub(super) fn end_as_idle(&self, idle: Duration) {
        let ended = mem::replace(&mut *self.0.lock(), StreamState::Over(None));
        *self.0.lock() = StreamState::Over(ended.end(End::Idle(idle)));
    }

    pub(super) fn is_over(&self) -> bool {
        !matches!(*self.0.lock(), StreamState::Open(_))
    }

    /// Calls `at_end` with the driver's stream when it is complete.
    pub(super) fn poll_next<T>(&self, cx: &mut Context<'_>, at_end: impl FnOnce(&S)) -> Poll<Option<Result<T, Error>>>
    where
        S: Stream<Item = Result<T, tokio_postgres::Error>>,
    {
        let mut state = self.0.lock();
        let open = match &mut *state {
            StreamState::Open(open) => open,
            StreamState::Ending(signal) => {
                signal.register(cx.waker());
                return Poll::Pending;
            }
            StreamState::Complete(items) => {
                at_end(items);
                let items = mem::replace(&mut *state, StreamState::Over(None));
                drop(state);
                drop(items);
                return Poll::Ready(None);
            }
            StreamState::Over(error) => return Poll::Ready(error.take().map(Err)),
        };
        let end = match open.poll_next(cx) {
            Poll::Ready(Ok(item)) => return Poll::Ready(Some(Ok(item))),
            Poll::Ready(Err(end)) => end,
            Poll::Pending => return Poll::Pending,
        };
        if let End::Complete = end {
            at_end(&open.items);
        }
        let ended = mem::replace(&mut *state, StreamState::Over(None));
        drop(state);
        Poll::Ready(ended.end(end).map(Err))
    }
}

impl<S> Drop for Reader<S> {
    fn drop(&mut self) {
        let ended = mem::replace(&mut *self.0.lock(), StreamState::Over(None));
        ended.end(End::Dropped);
    }
}

impl<S> Reading<S> {
    fn lock(&self) -> MutexGuard<'_, StreamState<S>> {
        self.0.lock()
    }
}

impl<S> Watched for Reading<S>
where
    S: TryStream<Error = tokio_postgres::Error> + Send + 'static,
{
    fn look(&self, now: Instant, is_late: bool) -> Option<Look> {
        let mut state = self.lock();
        let StreamState::Open(open) = &mut *state else { return None };
        let end = match open.look(now, is_late) {
            Ok(look) => return Some(look),
            Err(end) => end,
        };
        let signal = Arc::clone(&open.signal);
        let ended = mem::replace(&mut *state, StreamState::Ending(Arc::clone(&signal)));
        drop(state);
        let over = match end {
            End::Complete => ended.complete(),
            end => StreamState::Over(ended.end(end)),
        };
        // If the reader has dropped its end meanwhile, the error is dropped too.
        *self.lock() = over;
        signal.wake();
        None
    }

    fn is_unread(&self) -> bool {
        let mut state = self.lock();
        matches!(&mut *state, StreamState::Open(open) if !open.is_waiting() && open.unread() > 0)
    }
}

impl<S> StreamState<S> {
    /// Gives the connection back. The reader has all items, and does not know yet that there are no more.
    fn complete(self) -> Self {
        let Self::Open(open) = self else { return self };
        let Open { items, call, lease, .. } = *open;
        call.answered();
        drop(lease);
        Self::Complete(items)
    }

    /// Ends the stream. Returns the error for its reader, if there is one.
    fn end(self, end: End) -> Option<Error> {
        let Self::Open(open) = self else { return None };
        let Open { items, call, lease, .. } = *open;
        drop(items);
        let error = match end {
            End::Complete => {
                call.answered();
                None
            }
            End::Failed(error) => Some(call.explain_now(error)),
            End::TimedOut => Some(call.timed_out()),
            End::Dropped => {
                call.dropped();
                None
            }
            End::NotReadInTime => Some(call.caller_timed_out()),
            End::Idle(idle) => Some(call.reader_was_idle(idle)),
        };
        drop(lease);
        error
    }
}

impl<S> Open<S> {
    fn poll_next<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, End>>
    where
        S: Stream<Item = Result<T, tokio_postgres::Error>>,
    {
        let mut step = self.items.as_mut().poll_next(&mut Context::from_waker(&self.waker));
        if step.is_pending() {
            // Polled again, because an item may have come before the waker was registered.
            self.signal.register(cx.waker());
            step = self.items.as_mut().poll_next(&mut Context::from_waker(&self.waker));
        }
        match step {
            Poll::Ready(Some(Ok(item))) => {
                self.progress.items += 1;
                self.timer = None;
                Poll::Ready(Ok(item))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(End::Failed(error))),
            Poll::Ready(None) => Poll::Ready(Err(End::Complete)),
            Poll::Pending => {
                self.progress.waits += 1;
                let limit = self.timer.as_ref().map(Timer::ends_at);
                let limit = limit.unwrap_or_else(|| self.call.options.limit(now()).instant());
                let runtime = Handle::current().id();
                let timer = self.timer.take_if(|timer| timer.runtime == runtime);
                let timer = self.timer.insert(timer.unwrap_or_else(|| Timer::new(limit, runtime)));
                timer.sleep.as_mut().poll(cx).map(|()| Err(End::TimedOut))
            }
        }
    }

    /// Returns how the stream ended, if the reader has all items and has not read the end. `None` while other calls
    /// have rows on the connection, because the end is unknown then.
    fn unread_end(&mut self) -> Option<End>
    where
        S: TryStream<Error = tokio_postgres::Error>,
    {
        if self.is_waiting() || self.call.link.wire.unanswered() > 0 || self.unread() > 0 {
            return None;
        }
        match self.items.as_mut().try_poll_next(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(None) => Some(End::Complete),
            Poll::Ready(Some(Err(error))) => Some(End::Failed(error)),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => None,
        }
    }

    /// Returns whether the reader has polled, and nothing has come since.
    fn is_waiting(&self) -> bool {
        self.timer.is_some() && !self.signal.was_woken()
    }

    /// Items in memory, including those of later calls.
    fn unread(&self) -> u64 {
        (self.call.link.wire.items() - self.call.before.items).saturating_sub(self.progress.items)
    }

    /// Looks at the reader's progress. Returns how the stream ends, if a limit has passed and the reader has not
    /// noticed.
    fn look(&mut self, now: Instant, is_late: bool) -> Result<Look, End>
    where
        S: TryStream<Error = tokio_postgres::Error>,
    {
        if let Some(end) = self.unread_end() {
            return Err(end);
        }
        let limits = self.call.link.watcher.limits();
        let next_item_by = self.timer.as_ref().map(Timer::ends_at);
        let is_waiting = self.is_waiting();
        let deadline = self.call.options.deadline.map(|deadline| deadline.instant());
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Err(if is_waiting { End::TimedOut } else { End::NotReadInTime });
        }
        // If the reader polls, its own timer ends the wait before this.
        let next_item_by = next_item_by.filter(|_| is_waiting).map(|by| by + limits.grace);
        if next_item_by.is_some_and(|by| now >= by) {
            return Err(End::TimedOut);
        }
        let seen = self.seen;
        // If the reader was waiting at the last look, the time of the next item is unknown.
        let has_moved = is_late || is_waiting || seen.was_waiting || self.progress != seen.progress;
        let since = if has_moved { now } else { seen.since };
        let idle = now.saturating_duration_since(since);
        if idle >= limits.idle {
            return Err(End::Idle(idle));
        }
        self.seen = LastLook { at: now, progress: self.progress, since, was_waiting: is_waiting };
        let cut = since + limits.idle;
        let cut = deadline.map_or(cut, |deadline| deadline.min(cut));
        let had_always_something =
            !is_late && !is_waiting && !seen.was_waiting && self.progress.waits == seen.progress.waits;
        if !had_always_something {
            self.paces.clear();
        } else if self.paces.is_empty() {
            self.paces.push_back((seen.at, seen.progress.items));
        }
        let held_until = if had_always_something { self.held_until(now, idle) } else { None };
        let again = next_item_by.unwrap_or(cut).min(cut).min(now + limits.pace);
        Ok(Look { again, held_until: held_until.map(|until| until.min(cut)) })
    }

    /// Returns until when the reader needs at least for the items in memory, at the pace of the last looks. A reader
    /// that has read nothing in that time is expected to pause for as long again. `None` while there were too few
    /// looks, because readers pause, and read in bursts.
    fn held_until(&mut self, now: Instant, idle: Duration) -> Option<Instant> {
        self.paces.push_back((now, self.progress.items));
        if self.paces.len() <= PACES {
            return None;
        }
        let (begun, items) = self.paces.pop_front()?;
        // The unread rows may belong to other calls on the connection.
        if !self.call.is_alone() {
            return None;
        }
        let unread = self.unread();
        let read = self.progress.items - items;
        let needs = if read == 0 {
            idle
        } else {
            let took = now.saturating_duration_since(begun).as_secs_f64();
            Duration::try_from_secs_f64(took * unread as f64 / read as f64).ok()?
        };
        now.checked_add(needs).filter(|_| unread > 0)
    }
}

impl Timer {
    fn new(ends_at: Instant, runtime: Id) -> Self {
        Self { sleep: Box::pin(time::sleep_until(ends_at.into())), runtime }
    }

    fn ends_at(&self) -> Instant {
        self.sleep.deadline().into_std()
    }
}

/// Passes the driver's wake-ups on to the reader, and remembers them.
#[derive(Default)]
struct Signal {
    reader: AtomicWaker,
    was_woken: AtomicBool,
}

impl Signal {
    /// The reader begins to wait.
    fn register(&self, waker: &Waker) {
        self.was_woken.store(false, Relaxed);
        self.reader.register(waker);
    }

    /// Returns whether the reader was woken and has not waited since.
    fn was_woken(&self) -> bool {
        self.was_woken.load(Relaxed)
    }

    fn wake(&self) {
        self.was_woken.store(true, Relaxed);
        self.reader.wake();
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        Self::wake(&self);
    }
}
