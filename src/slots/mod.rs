//! Who holds a connection: the shell around [`core`].
//!
//! [`Slots`] locks the core for a few instructions at a time and does, after unlock, what a transition asked for: it hands a
//! connection to a waiter, spawns a dial, closes a connection. Every right is a value that gives itself back when it is dropped:
//! [`Lease`] (a connection in use), `Waiting` (a place in the queue), `Dialing` and `Closing` (slots of background tasks). So any
//! future here may be dropped at any await, by a caller that lost interest or by a runtime that ends.
//!
//! Dials belong to the pool: a caller whose future is dropped never cancels one.

mod core;
mod queue;

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};

use self::core::{Core, Entered, Place, Placed, Refused};
pub(crate) use self::core::{Counts, Limits};
use self::queue::WaiterId;
use crate::policy::Deadline;

/// A connection that is not gone after this long is cut off.
const LONGEST_CLOSE: Duration = Duration::from_secs(1);

/// What the slots need to know of a connection.
pub(crate) trait Connection: Send + Sized + 'static {
    /// Whether it may be handed to the next caller.
    fn is_usable(&self) -> bool;

    /// Ends it. Resolves when the other side can be taken to know; dropping the future cuts it off.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// How the slots get connections.
pub(crate) trait Dial: Send + Sync + 'static {
    type Conn: Connection;
    type Error: Clone + Send + Sync + 'static;

    /// Makes one connection. Bounded in time by itself.
    fn dial(&self) -> impl Future<Output = Result<Self::Conn, Self::Error>> + Send;

    /// The error for a dial that came to no end: its runtime was shut down, or it panicked.
    fn abandoned() -> Self::Error;
}

/// Why a caller got no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal<E> {
    Closed,
    QueueFull,
    TimedOut,
    /// Nothing is connected and dials fail, with this error; the next begins after this long.
    Unreachable(E, Duration),
}

pub(crate) struct Slots<D: Dial> {
    dial: D,
    state: Mutex<State<D>>,
}

/// The way to reach a waiter.
type Waiter<D> = oneshot::Sender<Result<Lease<D>, Refusal<<D as Dial>::Error>>>;

struct State<D: Dial> {
    core: Core<D::Conn, Waiter<D>>,
    /// Since the last success.
    last_error: Option<D::Error>,
    /// Where background work is spawned: the runtime of the latest caller that found no idle connection.
    runtime: Option<Handle>,
}

impl<D: Dial> State<D> {
    fn remember_runtime(&mut self) {
        let Ok(current) = Handle::try_current() else { return };
        if self.runtime.as_ref().is_none_or(|known| known.id() != current.id()) {
            self.runtime = Some(current);
        }
    }
}

impl<D: Dial> Slots<D> {
    pub(crate) fn new(dial: D, limits: Limits) -> Arc<Self> {
        let state = State {
            core: Core::new(limits),
            last_error: None,
            runtime: None,
        };
        Arc::new(Self {
            dial,
            state: Mutex::new(state),
        })
    }

    /// An idle connection if there is one. Never waits; needs no runtime while connections are alive.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Lease<D>> {
        loop {
            let conn = self.lock().core.take()?;
            let lease = self.lease(conn);
            if lease.is_usable() {
                return Some(lease);
            }
            // Dropping an unusable one retires it; the next may be alive.
        }
    }

    /// An idle connection, or the first that is released or dialed for this caller, in order of arrival.
    ///
    /// Dropping the future gives the place in the queue up; a connection that was just handed over comes back.
    pub(crate) async fn acquire(self: &Arc<Self>, deadline: Deadline) -> Result<Lease<D>, Refusal<D::Error>> {
        if let Some(lease) = self.try_acquire() {
            return Ok(lease);
        }
        loop {
            let lease = match self.enter(deadline)? {
                Entry::Took(lease) => lease,
                Entry::Waits(waiting) => waiting.served_by(deadline).await?,
            };
            if lease.is_usable() {
                return Ok(lease);
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().core.counts()
    }

    pub(crate) fn last_error(&self) -> Option<D::Error> {
        self.lock().last_error.clone()
    }

    /// Refuses everybody from now on, waiters included. Idle connections end now, leases when they are returned.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut state = self.lock();
        let (idle, waiters) = state.core.close();
        let runtime = Handle::try_current().ok().or_else(|| state.runtime.clone());
        drop(state);
        for waiter in waiters {
            let _ = waiter.send(Err(Refusal::Closed));
        }
        for conn in idle {
            self.spawn_close(runtime.as_ref(), conn);
        }
    }

    fn enter(self: &Arc<Self>, deadline: Deadline) -> Result<Entry<D>, Refusal<D::Error>> {
        let now = Instant::now().into_std();
        let mut answer = None;
        let mut state = self.lock();
        let entered = state.core.enter(now, deadline, || {
            let (waiter, receiver) = oneshot::channel();
            answer = Some(receiver);
            waiter
        });
        match (entered, answer) {
            (Ok(Entered::Took(conn)), _) => {
                drop(state);
                Ok(Entry::Took(self.lease(conn)))
            }
            (Ok(Entered::Waits(id)), Some(answer)) => {
                state.remember_runtime();
                drop(state);
                self.dial_what_is_wanted();
                Ok(Entry::Waits(Waiting {
                    id: Some(id),
                    answer,
                    slots: Arc::clone(self),
                }))
            }
            (Err(Refused::QueueFull), _) => Err(Refusal::QueueFull),
            (Err(Refused::Unreachable(wait)), _) => {
                let error = state.last_error.clone().unwrap_or_else(D::abandoned);
                Err(Refusal::Unreachable(error, wait))
            }
            (Err(Refused::Closed) | Ok(Entered::Waits(_)), _) => Err(Refusal::Closed),
        }
    }

    fn lease(self: &Arc<Self>, conn: D::Conn) -> Lease<D> {
        Lease {
            conn: Some(conn),
            slots: Arc::clone(self),
        }
    }

    fn release(self: &Arc<Self>, conn: D::Conn) {
        if !conn.is_usable() {
            let mut state = self.lock();
            state.core.retire();
            let runtime = state.runtime.clone();
            drop(state);
            self.spawn_close(runtime.as_ref(), conn);
            self.dial_what_is_wanted();
            return;
        }
        let placed = self.lock().core.release(Instant::now().into_std(), conn);
        self.deliver(placed);
    }

    /// Hands over what a transition placed, and places again what its taker no longer wanted.
    fn deliver(self: &Arc<Self>, mut placed: Placed<D::Conn, Waiter<D>>) {
        loop {
            for waiter in placed.expired {
                let _ = waiter.send(Err(Refusal::TimedOut));
            }
            match placed.to {
                Place::Idle => return,
                Place::Closing(conn) => {
                    let runtime = self.lock().runtime.clone();
                    return self.spawn_close(runtime.as_ref(), conn);
                }
                Place::Waiter(waiter, conn) => match waiter.send(Ok(self.lease(conn))) {
                    Err(Ok(lease)) => {
                        let conn = lease.into_conn();
                        placed = self.lock().core.release(Instant::now().into_std(), conn);
                    }
                    _ => return,
                },
            }
        }
    }

    fn dial_what_is_wanted(self: &Arc<Self>) {
        let mut state = self.lock();
        let Some(runtime) = state.runtime.clone() else { return };
        let dials = state.core.begin_dials(Instant::now().into_std());
        drop(state);
        for _ in 0..dials.begin {
            let dialing = Dialing {
                slots: Some(Arc::clone(self)),
                runtime: runtime.clone(),
            };
            runtime.spawn(dialing.run());
        }
        if let Some(instant) = dials.ask_again {
            runtime.spawn(AskAgain(Arc::clone(self)).at(instant.into()));
        }
    }

    fn dialed(self: &Arc<Self>, conn: D::Conn) {
        let mut state = self.lock();
        state.last_error = None;
        let placed = state.core.dialed(Instant::now().into_std(), conn);
        drop(state);
        self.deliver(placed);
        self.dial_what_is_wanted();
    }

    fn dial_failed(self: &Arc<Self>, error: D::Error) {
        let now = Instant::now().into_std();
        let mut state = self.lock();
        state.last_error = Some(error.clone());
        let waiters = state.core.dial_failed(now, fastrand::f64());
        let wait = state.core.unreachable_for(now).unwrap_or_default();
        drop(state);
        for waiter in waiters {
            let _ = waiter.send(Err(Refusal::Unreachable(error.clone(), wait)));
        }
        self.dial_what_is_wanted();
    }

    fn spawn_close(self: &Arc<Self>, runtime: Option<&Handle>, conn: D::Conn) {
        let closing = Closing(Arc::clone(self));
        // Without a runtime there is nobody who could wait: dropping the connection cuts it off, and frees its slot.
        if let Some(runtime) = runtime {
            runtime.spawn(async move {
                let _ = time::timeout(LONGEST_CLOSE, conn.close()).await;
                drop(closing);
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Dial> fmt::Debug for Slots<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// A connection in use. Dropping it gives the connection to the first waiter, or back to the idle ones.
pub(crate) struct Lease<D: Dial> {
    conn: Option<D::Conn>,
    slots: Arc<Slots<D>>,
}

impl<D: Dial> Lease<D> {
    /// Without giving it back: the slot stays in use.
    fn into_conn(mut self) -> D::Conn {
        self.conn.take().expect(HELD)
    }
}

/// Why `conn` is never `None`: it is taken where the lease itself ends, and nowhere else.
const HELD: &str = "a lease holds its connection until it ends";

impl<D: Dial> Deref for Lease<D> {
    type Target = D::Conn;

    fn deref(&self) -> &D::Conn {
        self.conn.as_ref().expect(HELD)
    }
}

impl<D: Dial> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Conn {
        self.conn.as_mut().expect(HELD)
    }
}

impl<D: Dial> Drop for Lease<D> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.slots.release(conn);
        }
    }
}

impl<D: Dial> fmt::Debug for Lease<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// What became of a caller that found no idle connection.
enum Entry<D: Dial> {
    Took(Lease<D>),
    Waits(Waiting<D>),
}

/// A place in the queue.
struct Waiting<D: Dial> {
    /// `None` once answered.
    id: Option<WaiterId>,
    answer: oneshot::Receiver<Result<Lease<D>, Refusal<D::Error>>>,
    slots: Arc<Slots<D>>,
}

impl<D: Dial> Waiting<D> {
    async fn served_by(mut self, deadline: Deadline) -> Result<Lease<D>, Refusal<D::Error>> {
        if let Ok(Ok(answer)) = time::timeout_at(deadline.instant().into(), &mut self.answer).await {
            self.id = None;
            return answer;
        }
        self.leave();
        // Handed over in the very instant in which the deadline passed: better served than refused.
        self.answer.try_recv().unwrap_or(Err(Refusal::TimedOut))
    }

    fn leave(&mut self) {
        if let Some(id) = self.id.take() {
            let waiter = self.slots.lock().core.leave(id);
            drop(waiter);
        }
    }
}

impl<D: Dial> Drop for Waiting<D> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The slot of a dial under way on `runtime`.
struct Dialing<D: Dial> {
    /// `None` once the dial has come to an end.
    slots: Option<Arc<Slots<D>>>,
    runtime: Handle,
}

impl<D: Dial> Dialing<D> {
    async fn run(mut self) {
        let Some(slots) = self.slots.clone() else { return };
        let result = slots.dial.dial().await;
        self.slots = None;
        match result {
            Ok(conn) => slots.dialed(conn),
            Err(error) => slots.dial_failed(error),
        }
    }
}

impl<D: Dial> Drop for Dialing<D> {
    fn drop(&mut self) {
        let Some(slots) = self.slots.take() else { return };
        let mut state = slots.lock();
        if state
            .runtime
            .as_ref()
            .is_none_or(|latest| latest.id() == self.runtime.id())
        {
            drop(state);
            return slots.dial_failed(D::abandoned());
        }
        // The runtime has ended, but callers are alive on another: dial there.
        state.core.dial_abandoned();
        drop(state);
        slots.dial_what_is_wanted();
    }
}

/// The slot of a connection that is being closed.
struct Closing<D: Dial>(Arc<Slots<D>>);

impl<D: Dial> Drop for Closing<D> {
    fn drop(&mut self) {
        self.0.lock().core.closed();
        self.0.dial_what_is_wanted();
    }
}

/// The promise to ask the core again for dials. Broken when its runtime ends; whoever enters next is promised anew.
struct AskAgain<D: Dial>(Arc<Slots<D>>);

impl<D: Dial> AskAgain<D> {
    async fn at(self, instant: Instant) {
        time::sleep_until(instant).await;
        let slots = Arc::clone(&self.0);
        drop(self);
        slots.dial_what_is_wanted();
    }
}

impl<D: Dial> Drop for AskAgain<D> {
    fn drop(&mut self) {
        self.0.lock().core.asking_again();
    }
}

#[cfg(test)]
mod tests;
