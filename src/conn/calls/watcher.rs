//! The task that looks after the streams of one connection whose readers may have stopped reading.
//!
//! The task starts with the first stream, looks at each stream several times in each limit, and ends when no stream is
//! left. A look ends the stream if its time is up. A look also finds readers that are far behind the server. While such
//! readers hold all connections, none is given back soon, so the pool refuses newcomers at once.

use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::select;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time;

use crate::clock::now;
use crate::conn::{ConnectionEvent, OutcomeRecorder};

/// How many looks there are in a limit. So a stream ends late by at most that part of its limit.
pub(super) const LOOKS: u32 = 8;
/// The watcher looks at most this often, because a look costs a wake-up. That delays the end of a stream, and nothing
/// else.
const SHORTEST_PACE: Duration = Duration::from_millis(10);
/// From this many streams on, the watcher removes ended streams.
const TIDY: usize = 8;

/// How long a reader may pause, and how often the watcher looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadingLimits {
    pub(super) idle: Duration,
    pub(super) pace: Duration,
    /// How long a reader whose time is up has to notice that itself.
    pub(super) grace: Duration,
}

impl ReadingLimits {
    /// `idle` is `stream_idle_timeout`. Newcomers wait for `acquire_timeout`, so readers that hold them up are found
    /// within a part of that.
    pub(crate) fn new(idle: Duration, acquire_timeout: Duration, query_timeout: Duration) -> Self {
        Self {
            idle,
            pace: (idle.min(acquire_timeout).min(query_timeout) / LOOKS).max(SHORTEST_PACE),
            grace: SHORTEST_PACE,
        }
    }
}

/// A stream, as the watcher sees it.
pub(super) trait Watched: Send + Sync {
    /// Ends the stream if its time is up. Returns `None` if the stream is over. `is_late`: the look comes much later
    /// than planned. So the process or the runtime stood still, and the reader could not read either.
    fn look(&self, now: Instant, is_late: bool) -> Option<Look>;

    /// Returns whether the stream has unread rows, for which all other calls on the connection wait.
    fn is_unread(&self) -> bool;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// When to look again.
    pub(super) again: Instant,
    /// The reader is behind, and will hold the connection at least until then.
    pub(super) held_until: Option<Instant>,
}

/// The watcher of one connection.
pub(in crate::conn) struct Watcher {
    limits: ReadingLimits,
    /// The number of the connection, for events.
    number: u64,
    recorder: Arc<OutcomeRecorder>,
    /// The runtime of the connection's own task. A reader's runtime may end, or stand still, before its stream is over.
    runtime: Handle,
    streams: Mutex<Streams>,
    /// Wakes the task early, for a new stream.
    bell: Notify,
    /// Whether the watcher has reported that a reader holds the connection up.
    is_held_up: AtomicBool,
    /// Whether the connection was closed or detached.
    has_left: AtomicBool,
}

#[derive(Default)]
struct Streams {
    open: Vec<(Weak<dyn Watched>, Look)>,
    /// When the task wakes; `None` if there is no task.
    wakes_at: Option<Instant>,
}

impl Watcher {
    /// Call this on the runtime that drives the connection.
    pub(in crate::conn) fn new(limits: ReadingLimits, number: u64, recorder: Arc<OutcomeRecorder>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            number,
            recorder,
            runtime: Handle::current(),
            streams: Mutex::default(),
            bell: Notify::new(),
            is_held_up: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        })
    }

    pub(super) fn limits(&self) -> ReadingLimits {
        self.limits
    }

    /// Watches a stream that begins now, and whose deadline is `by`.
    pub(super) fn watch(self: &Arc<Self>, stream: Weak<dyn Watched>, now: Instant, by: Option<Instant>) {
        let first = now + self.limits.pace;
        let again = by.map_or(first, |by| by.min(first));
        let mut streams = self.streams.lock();
        if streams.open.len() >= TIDY {
            streams.open.retain(|(stream, _)| stream.strong_count() > 0);
        }
        streams.open.push((stream, Look { again, held_until: None }));
        let wakes_at = streams.wakes_at.filter(|wakes_at| *wakes_at <= again);
        let had_task = streams.wakes_at.replace(wakes_at.unwrap_or(again)).is_some();
        drop(streams);
        if !had_task {
            let task = Watching { watcher: Arc::clone(self), is_done: false };
            self.runtime.spawn(task.run(again));
        } else if wakes_at.is_none() {
            self.bell.notify_one();
        }
    }

    /// A stream or another call has ended, so its reader no longer holds up other calls.
    pub(super) fn on_end(&self) {
        if self.is_held_up.load(SeqCst) {
            self.hold_up(None);
        }
    }

    /// Returns whether calls on the connection may be late because of a reader.
    pub(in crate::conn) fn has_unread(&self) -> bool {
        let streams: Vec<_> = self.streams.lock().open.iter().map(|(stream, _)| Weak::clone(stream)).collect();
        streams.iter().filter_map(Weak::upgrade).any(|stream| stream.is_unread())
    }

    /// The connection is closed or detached. Its streams no longer hold up other calls.
    fn leave(&self) {
        self.has_left.store(true, SeqCst);
        self.on_end();
    }

    fn hold_up(&self, until: Option<Instant>) {
        let was_held_up = self.is_held_up.swap(until.is_some(), SeqCst);
        if was_held_up || until.is_some() {
            self.report(until);
        }
        // The note may have been withdrawn meanwhile, and the withdrawal have arrived first.
        let is_outdated = || !self.is_held_up.load(SeqCst) || self.has_left.load(SeqCst);
        if until.is_some() && is_outdated() {
            self.is_held_up.store(false, SeqCst);
            self.report(None);
        }
    }

    fn report(&self, until: Option<Instant>) {
        self.recorder.pass_on(ConnectionEvent::HeldUp { connection: self.number, until });
    }

    /// Looks at the streams that are due. Returns when the next look is due.
    fn look(&self, now: Instant) -> Option<Instant> {
        let due: Vec<_> = {
            let mut streams = self.streams.lock();
            let (due, rest) = mem::take(&mut streams.open).into_iter().partition(|(_, look)| look.again <= now);
            streams.open = rest;
            due
        };
        let look = |(stream, look): (Weak<dyn Watched>, Look)| {
            let is_late = now >= look.again + self.limits.pace;
            let look = stream.upgrade()?.look(now, is_late)?;
            Some((stream, look))
        };
        let open: Vec<_> = due.into_iter().filter_map(look).collect();
        let mut streams = self.streams.lock();
        streams.open.extend(open);
        streams.wakes_at = streams.open.iter().map(|(_, look)| look.again).min();
        let held_until = streams.open.iter().filter_map(|(_, look)| look.held_until).max();
        let wakes_at = streams.wakes_at;
        drop(streams);
        self.hold_up(held_until);
        wakes_at
    }
}

/// The connection's part of the watcher. Dropping it reports that the connection was closed or detached.
pub(in crate::conn) struct Presence(Arc<Watcher>);

impl Presence {
    pub(in crate::conn) fn of(watcher: &Arc<Watcher>) -> Self {
        Self(Arc::clone(watcher))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The task. If its runtime ends, the connection ends, too.
struct Watching {
    watcher: Arc<Watcher>,
    is_done: bool,
}

impl Watching {
    async fn run(mut self, mut wakes_at: Instant) {
        while !self.is_done {
            select(pin!(time::sleep_until(wakes_at.into())), pin!(self.watcher.bell.notified())).await;
            match self.watcher.look(now()) {
                Some(next) => wakes_at = next,
                None => self.is_done = true,
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if !self.is_done {
            self.watcher.streams.lock().wakes_at = None;
            self.watcher.on_end();
        }
    }
}
