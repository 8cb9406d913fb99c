//! The background tasks of the slots: dials, closes, and asking the core again when a pause between dials is over.
//!
//! The slot of each task is a value that gives the slot back when it is dropped.
//!
//! Dials run on the runtime that the owner named, else on that of the latest caller that wanted one. Several runtimes
//! may share a pool. When one of them ends, the waiters on the others begin the lost work anew.

use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::runtime::{Handle, Id};
use tokio::time::{self, Instant};

use super::clocks::Clocks;
use super::core::{Begin, Refusal};
use super::queue::WaiterId;
use super::state::Locked;
use super::traits::{Connection, Dial};
use super::{DialCore, Slots, Waiter};
use crate::clock::now;

/// The pool cuts off a connection that has not ended after this long.
pub(super) const LONGEST_CLOSE: Duration = Duration::from_secs(1);

impl<D: Dial> Slots<D> {
    /// Begins the dials that the core wants now. To be called when slots may have become free.
    pub(crate) fn dial_what_is_wanted(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.core.may_owe() {
            // What is idle needs no dial.
            drop(state);
            self.hand_idle();
            state = self.lock();
        }
        let begin = state.begin_dials(now());
        drop(state);
        self.dial(begin);
    }

    /// Begins the dials that [`Locked::begin_dials`] returned. Must be called without the lock.
    pub(super) fn dial(self: &Arc<Self>, begin: Option<(Begin, Handle)>) {
        let Some((begin, runtime)) = begin else { return };
        for number in begin.dials {
            let dialing = Dialing { number, slots: Some(Arc::clone(self)), runtime: runtime.id() };
            let task = runtime.spawn(dialing.run());
            let mut state = self.lock();
            if state.core.is_dialing(number) {
                state.dial_tasks.insert(number, task.abort_handle());
            }
        }
        if let Some(instant) = begin.ask_again {
            let ask_again = AskAgain { slots: Arc::downgrade(self), runtime: runtime.id() };
            runtime.spawn(ask_again.at(instant.into()));
        }
    }

    /// Closes the connection in a task. While the pool is open, the slot is free as soon as the server can be assumed
    /// to know: a server that is dead would keep it from the next caller for longer.
    pub(super) fn spawn_close(self: &Arc<Self>, mut conn: D::Conn) {
        conn.on_maintenance();
        if !self.counts().is_open {
            conn.follow_to_end();
        }
        let closing = Closing(Arc::clone(self));
        let runtime = Handle::try_current().ok().or_else(|| self.lock().runtime.clone());
        // Without a runtime nothing can wait for the end: dropping the connection cuts it off and frees its slot.
        if let Some(runtime) = runtime {
            runtime.spawn(async move {
                let _ = time::timeout(LONGEST_CLOSE, conn.close()).await;
                drop(closing);
            });
        }
    }

    /// Background work was lost with its runtime. The pool spawns nothing more there. All waiters enter again, and each
    /// dials from its own runtime. Nothing polls the waiters of the runtime that ended.
    pub(super) fn on_runtime_lost(&self, runtime: Id) {
        let mut state = self.lock();
        let forgotten = state.runtime.take_if(|known| known.id() == runtime);
        let waiters = state.core.dismiss();
        let clocks = mem::take(&mut state.clocks);
        drop(state);
        drop((forgotten, clocks));
        for (_, waiter) in waiters {
            waiter.dismiss();
        }
        self.notify_watchers();
    }

    fn on_dialed(self: &Arc<Self>, number: u64, conn: D::Conn) {
        let delivery = self.place(|core| core.on_dialed(now(), number, conn));
        self.lock().dial_tasks.remove(&number);
        Arc::clone(self).deliver(delivery);
        self.dial_what_is_wanted();
    }

    fn on_dial_quiet(self: &Arc<Self>, number: u64) {
        self.lock().core.on_dial_quiet(number);
        self.dial_what_is_wanted();
    }

    fn on_dial_failed(self: &Arc<Self>, number: u64, error: D::Error) {
        self.lock().dial_tasks.remove(&number);
        let trouble = self.dial.trouble(&error);
        self.fail(error, |core| core.on_dial_failed(now(), number, trouble, fastrand::f64()));
        self.notify_watchers();
        self.dial_what_is_wanted();
    }

    /// Makes a transition after a failed dial, and refuses the waiters that it returns.
    pub(super) fn fail(
        &self,
        error: D::Error,
        transition: impl FnOnce(&mut DialCore<D>) -> Vec<(WaiterId, Waiter<D>)>,
    ) {
        let mut state = self.lock();
        let former = state.last_error.replace(error.clone());
        let waiters = transition(&mut state.core);
        let wait = state.core.unreachable_for(now()).unwrap_or_default();
        self.refuse(state, waiters, &Refusal::Unreachable(error, wait));
        drop(former);
    }

    /// Unlocks the state and refuses these waiters, which are no longer in the queue.
    pub(super) fn refuse(
        &self,
        mut state: MutexGuard<'_, Locked<D, Waiter<D>>>,
        waiters: Vec<(WaiterId, Waiter<D>)>,
        refusal: &Refusal<D::Error>,
    ) {
        let clocks = if state.core.waiting() == 0 { mem::take(&mut state.clocks) } else { Clocks::default() };
        drop(state);
        drop(clocks);
        for (_, waiter) in waiters {
            waiter.put_answer(Err(refusal.clone()));
        }
    }
}

/// The slot of a dial that runs on `runtime`.
struct Dialing<D: Dial> {
    number: u64,
    /// `None` once the dial has ended.
    slots: Option<Arc<Slots<D>>>,
    runtime: Id,
}

impl<D: Dial> Dialing<D> {
    async fn run(mut self) {
        let Some(slots) = self.slots.clone() else { return };
        let result = slots.dial.dial(|| slots.on_dial_quiet(self.number)).await;
        self.slots = None;
        match result {
            Ok(conn) => slots.on_dialed(self.number, conn),
            Err(error) => slots.on_dial_failed(self.number, error),
        }
    }
}

impl<D: Dial> Drop for Dialing<D> {
    fn drop(&mut self) {
        let Some(slots) = self.slots.take() else { return };
        if thread::panicking() {
            return slots.on_dial_failed(self.number, D::abandoned());
        }
        let mut state = slots.lock();
        state.dial_tasks.remove(&self.number);
        let was_given_up = state.core.is_given_up(self.number);
        state.core.on_dial_abandoned(self.number);
        drop(state);
        if was_given_up {
            slots.dial_what_is_wanted();
        } else {
            slots.on_runtime_lost(self.runtime);
        }
    }
}

/// The slot of a connection that is being closed.
struct Closing<D: Dial>(Arc<Slots<D>>);

impl<D: Dial> Drop for Closing<D> {
    fn drop(&mut self) {
        self.0.lock().core.on_closed();
        self.0.notify_watchers();
        self.0.dial_what_is_wanted();
    }
}

/// Asks the core again for dials at an instant. The task is lost if its runtime ends first.
struct AskAgain<D: Dial> {
    /// Empty once the core was asked.
    slots: Weak<Slots<D>>,
    runtime: Id,
}

impl<D: Dial> AskAgain<D> {
    async fn at(mut self, instant: Instant) {
        time::sleep_until(instant).await;
        if let Some(slots) = mem::take(&mut self.slots).upgrade() {
            slots.lock().core.on_asked_again();
            slots.dial_what_is_wanted();
        }
    }
}

impl<D: Dial> Drop for AskAgain<D> {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.upgrade() {
            slots.lock().core.on_asked_again();
            slots.on_runtime_lost(self.runtime);
        }
    }
}
