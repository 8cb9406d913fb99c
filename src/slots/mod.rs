//! Who has a connection: the shell around [`core`].
//!
//! [`Slots`] locks the core for a few instructions at a time. After unlock it does what the transition asked for: it
//! hands a connection to a waiter, spawns a dial, or closes a connection. Every right is a value that gives itself back
//! when it is dropped: a [`Lease`], a place in the queue (`waiting`), the slot of a background task (`tasks`). So any
//! future here may be dropped at any await, by its caller or by a runtime that ends.
//!
//! A waiter's answer lies in a `mailbox` until the waiter fetches it, so no answer is lost. A `clock` wakes the waiters
//! whose time is up. Dials belong to the pool: dropping a caller's future never cancels one.

mod changes;
mod clock;
mod clocks;
mod core;
mod deadlines;
mod dials;
mod lanes;
mod lease;
mod mailbox;
mod maintenance;
mod queue;
mod server_check;
mod settling;
mod state;
mod tasks;
mod traits;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use coarsetime::Instant as CoarseInstant;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub(crate) use self::core::{
    Ages, LaneCounts, Life, Limits, MOST_CONNECTIONS, MOST_WAITING, Refusal, SlotCounts, default_max_waiting,
};
use self::core::{Core, Ended, Held, Place, Placed};
use self::lease::Lender;
use self::mailbox::Mailbox;
pub(crate) use self::server_check::ServerCheck;
use self::state::Locked;
pub(crate) use self::traits::{Connection, Dial};
use crate::clock::now;
use crate::policy::{Lane, Time};

pub(crate) struct Slots<D: Dial> {
    dial: D,
    state: Mutex<Locked<D, Waiter<D>>>,
    hints: Hints,
    /// Notifies the watchers of every change. A change happens under the lock, and then the changing thread reads
    /// `hints.watchers`. A watcher counts itself before it looks under the lock. So a watcher misses no change.
    changed: Notify,
    /// The origin of the core's times.
    origin: Instant,
    /// The origin of ages. The exact clock takes a third of the time of `get`.
    begun: CoarseInstant,
}

/// A connection in use.
pub(crate) type Lease<D> = lease::Lease<Slots<D>>;

/// What a waiter gets.
type Answer<D> = Result<Lease<D>, Refusal<<D as Dial>::Error>>;

/// The way to reach a waiter.
type Waiter<D> = Arc<Mailbox<Answer<D>>>;

type DialCore<D> = Core<<D as Dial>::Conn, Waiter<D>>;

/// Where a connection goes, and which waiters are refused on the way. To be done after unlock.
#[must_use = "the waiters have to be answered"]
struct Delivery<D: Dial> {
    to: Place<D::Conn, Waiter<D>>,
    refused: Vec<(Waiter<D>, Refusal<D::Error>)>,
    /// Idle connections or free slots may be owed to other waiters.
    may_owe: bool,
}

/// What threads read without the lock, on a cache line of its own: contended locking leaves it alone.
#[repr(align(128))]
#[derive(Default)]
struct Hints {
    /// Whether a connection was idle when one was last taken or given back.
    has_idle: AtomicBool,
    /// How many tasks watch for changes.
    watchers: AtomicUsize,
}

impl<D: Dial> Slots<D> {
    /// `runtime`: where dials run. `None`: on that of the latest caller that wanted one.
    pub(crate) fn new(dial: D, limits: Limits, runtime: Option<Handle>) -> Arc<Self> {
        let origin = now();
        Arc::new(Self {
            dial,
            state: Mutex::new(Locked::new(origin, limits, runtime)),
            hints: Hints::default(),
            changed: Notify::new(),
            origin,
            begun: CoarseInstant::now(),
        })
    }

    /// Makes the connections of this pool.
    pub(crate) fn dialer(&self) -> &D {
        &self.dial
    }

    /// Takes an idle connection if there is one for this lane. Never waits, and needs no runtime while the connection
    /// is alive.
    pub(crate) fn try_acquire(self: &Arc<Self>, lane: Lane) -> Option<Lease<D>> {
        loop {
            // Under contention most callers find nothing idle, and need no lock to know.
            if !self.hints.has_idle.load(Relaxed) {
                return None;
            }
            // `elapsed` would also store the time, in a place that all threads share.
            let life = CoarseInstant::now_without_cache_update().duration_since(self.begun).as_millis();
            let mut state = self.lock();
            let fast = if lane == Lane::Normal { state.core.take_fast(life) } else { None };
            let taken = fast.or_else(|| state.core.take(now(), lane));
            self.hints.has_idle.store(state.core.idle() > 0, Relaxed);
            drop(state);
            let held = taken?;
            let lease = Lease::new(Arc::clone(self), held);
            if lease.is_usable() {
                return Some(lease);
            }
            // Dropping an unusable lease retires its connection. The next one may be alive.
            self.lock().core.on_dead_at_hand_out();
        }
    }

    /// Takes an idle connection for the pool itself, which does not count as a caller.
    pub(crate) fn borrow(self: &Arc<Self>) -> Option<Lease<D>> {
        loop {
            let held = self.lock().core.borrow(now())?;
            let mut lease = Lease::new(Arc::clone(self), held);
            if lease.is_usable() {
                lease.on_maintenance();
                return Some(lease);
            }
        }
    }

    /// The runtime for background work of callers that have none.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.lock().runtime.clone()
    }

    /// The runtime that the owner has named for dials, unless it is known to have ended.
    pub(crate) fn fixed_runtime(&self) -> Option<Handle> {
        self.lock().fixed_runtime()
    }

    pub(crate) fn counts(&self) -> SlotCounts {
        self.lock().core.counts()
    }

    /// The error of the latest failed dial, if none has succeeded since.
    pub(crate) fn last_error(&self) -> Option<D::Error> {
        self.lock().known_error()
    }

    /// How long until the next dial may begin.
    pub(crate) fn next_dial_in(&self) -> Duration {
        self.lock().core.unreachable_for(now()).unwrap_or_default()
    }

    /// Makes a transition that places a connection. Returns what is left to do: usually nothing.
    fn place(&self, transition: impl FnOnce(&mut DialCore<D>) -> Placed<D::Conn, Waiter<D>>) -> Option<Delivery<D>> {
        let mut state = self.lock();
        let placed = transition(&mut state.core);
        self.placed(&mut state, placed)
    }

    #[inline(always)] // for `place`; lanes alone have another caller
    fn placed(
        &self,
        state: &mut Locked<D, Waiter<D>>,
        Placed { to, refused }: Placed<D::Conn, Waiter<D>>,
    ) -> Option<Delivery<D>> {
        let may_owe = state.core.may_owe();
        if matches!(to, Place::Idle) {
            self.hints.has_idle.store(true, Relaxed);
            if refused.is_empty() && !may_owe {
                return None;
            }
        }
        if state.core.waiting() == 0 {
            state.tidy_clocks();
        }
        let explain = |(_, waiter, why)| (waiter, state.explain(why));
        let refused = if refused.is_empty() { Vec::new() } else { refused.into_iter().map(explain).collect() };
        Some(Delivery { to, refused, may_owe })
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
            waiter.put_answer(Err(refusal));
        }
        self.notify_watchers();
        let ower = delivery.may_owe.then(|| Arc::clone(&self));
        match delivery.to {
            Place::Idle => {}
            Place::Closing(conn) => self.spawn_close(conn),
            Place::Waiter(_, waiter, held) => waiter.put_answer(Ok(Lease::new(self, held))),
        }
        if let Some(slots) = ower {
            slots.dial_what_is_wanted();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locked<D, Waiter<D>>> {
        self.state.lock()
    }

    #[inline]
    fn notify_watchers(&self) {
        if self.hints.watchers.load(Relaxed) > 0 {
            self.changed.notify_waiters();
        }
    }
}

impl<D: Dial> Lender for Slots<D> {
    type Conn = D::Conn;

    fn release(self: Arc<Self>, mut held: Held<D::Conn>) {
        if held.is_expired() || !held.conn.is_usable() {
            return self.retire(held);
        }
        if held.conn.needs_settling() {
            let is_cut = held.conn.has_abandoned_call();
            report_duration(&held, Time::of(now(), self.origin), is_cut);
            if is_cut {
                held.mark_cancelled();
            }
            return self.settle(held);
        }
        if held.is_untimed() {
            match self.lock().core.release_fast(held) {
                None => return self.notify_watchers(),
                Some(timed) => held = timed,
            }
        }
        let now = now();
        let time = Time::of(now, self.origin);
        report_duration(&held, time, false);
        let delivery = self.place(|core| core.release(now, time, held));
        self.deliver(delivery);
    }

    fn retire(self: &Arc<Self>, held: Held<D::Conn>) {
        self.lock().core.retire(now(), held.ended());
        if held.is_unproven() {
            self.fail(D::failed_before_first_use(), |core| core.on_failed_before_first_use(now(), fastrand::f64()));
        }
        self.spawn_close(held.conn);
        self.dial_what_is_wanted();
    }

    fn detach(self: &Arc<Self>, ended: Ended) {
        self.lock().core.detach(now(), ended);
        self.dial_what_is_wanted();
        self.notify_watchers();
    }

    fn prove(self: &Arc<Self>, held: &mut Held<D::Conn>) {
        self.lock().core.prove(held);
        self.dial_what_is_wanted();
    }
}

fn report_duration<C: Connection>(held: &Held<C>, time: Time, is_cut: bool) {
    if let Some(seconds) = held.lasted(time) {
        held.conn.on_lease_duration(seconds, is_cut);
    }
}

impl<D: Dial> fmt::Debug for Slots<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
