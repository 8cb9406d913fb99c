//! Who holds a connection: the shell around [`core`].
//!
//! [`Slots`] locks the core for a few instructions at a time and does, after unlock, what a transition asked for: it hands a
//! connection to a waiter, spawns a dial, closes a connection. Every right is a value that gives itself back when it is dropped: a
//! [`Lease`] (a connection in use), a place in the queue (`waiting`), the slots of background tasks (`tasks`). So any future here may be
//! dropped at any await, by a caller that lost interest or by a runtime that ends.
//! What waiters are told lies in a `mailbox` until they fetch it, so nothing is lost on the way; a `clock` wakes those whose time is up.
//!
//! Dials belong to the pool: a caller whose future is dropped never cancels one.

mod clock;
mod core;
mod deadlines;
mod dials;
mod lease;
mod mailbox;
mod probing;
mod queue;
mod rounds;
mod settling;
mod tasks;
mod upkeep;
mod waiting;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use coarsetime::Instant as CoarseInstant;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::clock::Clock;
pub(crate) use self::core::{Ages, Counts, Limits, MOST_WAITING, Refusal, default_max_waiting};
use self::core::{Begin, Core, Held, Place, Placed};
pub(crate) use self::lease::Lease;
use self::mailbox::Mailbox;
pub(crate) use self::probing::Look;
use self::waiting::Waiting;
use crate::clock::now;
use crate::policy::{Trouble, WaitPolicy};

/// What the slots need to know of a connection.
pub(crate) trait Connection: Send + Sync + Sized + 'static {
    /// Whether it is alive, and what it was.
    fn is_usable(&self) -> bool;

    /// Whether it has to be settled before the next caller may have it.
    fn needs_settling(&self) -> bool;

    /// A lease on it ends.
    fn was_used(&mut self);

    /// A lease on it has ended after so long. Told of a fair sample of them.
    fn was_held(&self, hold: Duration);

    /// It was seen to be idle.
    fn rests(&self);

    /// From now on upkeep has it, not whoever took it last.
    fn was_left(&mut self);

    /// Whether work on it was given up before its end.
    fn was_given_up(&self) -> bool;

    /// Cleans up after a lease. Tells whether the next caller may have it. Bounded in time by itself.
    fn settle(&mut self) -> impl Future<Output = bool> + Send;

    /// Whether the server answers on it. Not bounded in time.
    fn ping(&self) -> impl Future<Output = bool> + Send;

    /// Ends it. Resolves when the other side can be taken to know; dropping the future cuts it off.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// How the slots get connections.
pub(crate) trait Dial: Send + Sync + 'static {
    type Conn: Connection;
    type Error: Clone + Send + Sync + 'static;

    /// Makes one connection. Bounded in time by itself. Calls `on_quiet` when the server has taken much longer than for other dials.
    fn dial(&self, on_quiet: impl FnOnce() + Send) -> impl Future<Output = Result<Self::Conn, Self::Error>> + Send;

    /// How long the server may take to answer before a look at it goes another way.
    fn answer_limit(&self) -> Duration;

    /// Whether another try may help soon.
    fn trouble(&self, error: &Self::Error) -> Trouble;

    /// Whatever was refused before may be tried again.
    fn try_at_once(&self);

    /// All connections made so far are retired. Those in use go on until they are given back.
    fn on_flush(&self);

    /// The error for a dial that came to no end: its runtime was shut down, or it panicked.
    fn abandoned() -> Self::Error;

    /// The error for a connection that was dead before anybody had used it.
    fn failed_before_first_use() -> Self::Error;
}

pub(crate) struct Slots<D: Dial> {
    dial: D,
    state: Mutex<State<D>>,
    hints: Hints,
    /// Told of every change while somebody watches. Whoever changes something does so under the lock and looks at `watchers` after; whoever
    /// watches counts itself before it looks under the lock: no change is missed.
    changed: Notify,
    /// For ages. The exact clock takes as long as a third of `get`.
    begun: CoarseInstant,
}

type RefusedWaiter<D> = (Arc<Mailbox<D>>, Refusal<<D as Dial>::Error>);

/// What became of a connection, to be done after unlock.
#[must_use = "a waiter has to be told"]
struct Delivery<D: Dial> {
    to: Place<D::Conn, Arc<Mailbox<D>>>,
    refused: Vec<RefusedWaiter<D>>,
}

/// What is looked at without the lock, on a cache line that contended locking leaves alone.
#[repr(align(128))]
#[derive(Default)]
struct Hints {
    /// Whether a connection was idle when one was last taken or given back.
    has_idle: AtomicBool,
    /// How many watch for changes.
    watchers: AtomicUsize,
}

type DialCore<D> = Core<<D as Dial>::Conn, Arc<Mailbox<D>>>;

struct State<D: Dial> {
    core: DialCore<D>,
    clocks: Vec<Clock>,
    /// How the latest dial failed. Out of date once dials no longer fail.
    last_error: Option<D::Error>,
    /// Where background work is spawned: the runtime of the latest caller that wanted a dial, until it is known to have ended.
    runtime: Option<Handle>,
    dial_tasks: HashMap<u64, AbortHandle>,
    /// Numbers of connections that are wanted though nobody waits for them.
    wishes: Vec<usize>,
}

impl<D: Dial> State<D> {
    /// The dials to begin now, and where: on the runtime of whoever asks, if it has one. Nothing at all is the usual answer, and costs nothing.
    fn begin_dials(&mut self, now: std::time::Instant) -> Option<(Begin, Handle)> {
        if self.runtime.is_none() {
            self.remember_runtime();
        }
        if self.runtime.is_none() || !self.core.has_room() {
            return None;
        }
        let begin = self.core.begin_dials(now);
        if begin.dials.is_empty() && begin.ask_again.is_none() {
            return None;
        }
        self.remember_runtime();
        Some((begin, self.runtime.clone()?))
    }

    fn known_error(&self) -> Option<D::Error> {
        self.last_error.clone().filter(|_| self.core.dials_are_failing())
    }

    fn remember_runtime(&mut self) {
        let Ok(current) = Handle::try_current() else { return };
        if self.runtime.as_ref().is_none_or(|known| known.id() != current.id()) {
            self.runtime = Some(current);
        }
    }

    fn wish(&mut self, connections: usize) {
        self.wishes.push(connections);
        self.core.want(self.wishes.iter().copied().max().unwrap_or(0));
    }

    fn wish_no_more(&mut self, connections: usize) {
        if let Some(index) = self.wishes.iter().position(|wish| *wish == connections) {
            self.wishes.swap_remove(index);
        }
        self.core.want(self.wishes.iter().copied().max().unwrap_or(0));
    }

    fn abort_dials(&mut self, numbers: &[u64]) -> Vec<AbortHandle> {
        numbers.iter().filter_map(|number| self.dial_tasks.remove(number)).collect()
    }
}

impl<D: Dial> Slots<D> {
    pub(crate) fn new(dial: D, limits: Limits) -> Arc<Self> {
        let state = State {
            core: Core::new(now(), limits),
            clocks: Vec::new(),
            last_error: None,
            runtime: None,
            dial_tasks: HashMap::new(),
            wishes: Vec::new(),
        };
        Arc::new(Self {
            dial,
            state: Mutex::new(state),
            hints: Hints::default(),
            changed: Notify::new(),
            begun: CoarseInstant::now(),
        })
    }

    /// An idle connection if there is one. Never waits; needs no runtime while connections are alive.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Lease<D>> {
        loop {
            // Under contention, most come in vain: no need to lock to know that.
            if !self.hints.has_idle.load(Relaxed) {
                return None;
            }
            // `elapsed` would also store the time, in a place that all threads share.
            let life = CoarseInstant::now_without_cache_update().duration_since(self.begun).as_millis();
            let mut state = self.lock();
            let taken = state.core.take_untimed(life).or_else(|| state.core.take(now()));
            self.hints.has_idle.store(state.core.idle() > 0, Relaxed);
            drop(state);
            let held = taken?;
            let lease = Lease::new(Arc::clone(self), held);
            if lease.is_usable() {
                return Some(lease);
            }
            // Dropping an unusable one retires it; the next may be alive.
            self.lock().core.uncount();
        }
    }

    /// The same for the pool's own upkeep, which is no caller.
    pub(crate) fn borrow(self: &Arc<Self>) -> Option<Lease<D>> {
        let mut lease = self.try_acquire()?;
        self.lock().core.uncount();
        lease.was_left();
        Some(lease)
    }

    /// An idle connection, or the first that is released or dialed for this caller, in order of arrival.
    ///
    /// Dropping the future gives the place in the queue up; a connection that was just handed over comes back.
    pub(crate) fn acquire(self: &Arc<Self>, asked: std::time::Instant, wait_policy: WaitPolicy) -> Waiting<'_, D> {
        Waiting::new(self, asked, wait_policy)
    }

    /// Where background work is spawned for those who have no runtime.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.lock().runtime.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().core.counts()
    }

    /// How the latest dial failed, if none has succeeded since.
    pub(crate) fn last_error(&self) -> Option<D::Error> {
        self.lock().known_error()
    }

    /// How long until the next dial may begin.
    pub(crate) fn next_dial_in(&self) -> Duration {
        self.lock().core.unreachable_for(now()).unwrap_or_default()
    }

    fn release(self: Arc<Self>, mut held: Held<D::Conn>) {
        if held.is_expired() || !held.conn.is_usable() {
            return self.retire(held);
        }
        if held.conn.needs_settling() {
            held.tell(held.lasted(now()));
            if held.conn.was_given_up() {
                held.give_up();
            }
            return self.settle(held);
        }
        let held = if held.is_untimed() { self.lock().core.release_untimed(held) } else { Some(held) };
        let delivery = held.and_then(|held| {
            let now = now();
            let lasted = held.lasted(now);
            held.tell(lasted);
            self.place(|core| core.release(now, held, lasted))
        });
        self.deliver(delivery);
    }

    fn retire(self: &Arc<Self>, held: Held<D::Conn>) {
        self.lock().core.retire(now());
        if held.is_unproven() {
            self.fail(D::failed_before_first_use(), |core| core.failed_before_first_use(now(), fastrand::f64()));
        }
        self.spawn_close(held.conn);
        self.dial_what_is_wanted();
    }

    /// Makes a transition that places a connection. What is to be done then has to be delivered: usually nothing.
    fn place(
        &self,
        transition: impl FnOnce(&mut DialCore<D>) -> Placed<D::Conn, Arc<Mailbox<D>>>,
    ) -> Option<Delivery<D>> {
        let mut state = self.lock();
        let Placed { to, refused } = transition(&mut state.core);
        if matches!(to, Place::Idle) {
            self.hints.has_idle.store(true, Relaxed);
            if refused.is_empty() {
                return None;
            }
        }
        if state.core.waiting() == 0 {
            state.tidy_clocks();
        }
        let explain = |(_, waiter, why)| (waiter, state.explain(why));
        Some(Delivery { to, refused: refused.into_iter().map(explain).collect() })
    }

    #[inline]
    fn deliver(self: Arc<Self>, delivery: Option<Delivery<D>>) {
        match delivery {
            Some(delivery) => self.hand_out(delivery),
            None => self.notify_watchers(),
        }
    }

    fn hand_out(self: Arc<Self>, delivery: Delivery<D>) {
        for (waiter, refusal) in delivery.refused {
            waiter.tell(Err(refusal));
        }
        self.notify_watchers();
        match delivery.to {
            Place::Idle => {}
            Place::Closing(conn) => self.spawn_close(conn),
            Place::Waiter(_, waiter, held) => waiter.tell(Ok(Lease::new(self, held))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock()
    }

    #[inline]
    fn notify_watchers(&self) {
        if self.hints.watchers.load(Relaxed) > 0 {
            self.changed.notify_waiters();
        }
    }
}

impl<C: Connection> Held<C> {
    fn tell(&self, lasted: Option<Duration>) {
        if let Some(lasted) = lasted {
            self.conn.was_held(lasted);
        }
    }
}

impl<D: Dial> fmt::Debug for Slots<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
