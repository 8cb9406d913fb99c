//! What the slots do in the background: dials, closes, and asking again. Each holds its slot by a value that gives it back.
//!
//! Dials run on the runtime of the latest caller that wanted one. Several runtimes may share a pool: when one ends, the work lost with it is
//! begun anew by those who wait on the others.

use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::runtime::{Handle, Id};
use tokio::time::{self, Instant};

use super::core::Begin;
use super::mailbox::Mailbox;
use super::queue::WaiterId;
use super::{Connection, Dial, DialCore, Refusal, Slots, State};
use crate::clock::now;

/// A connection that is not gone after this long is cut off.
const LONGEST_CLOSE: Duration = Duration::from_secs(1);

impl<D: Dial> Slots<D> {
    pub(crate) fn dial_what_is_wanted(self: &Arc<Self>) {
        let begin = self.lock().begin_dials(now());
        self.dial(begin);
    }

    /// Begins what [`State::begin_dials`] counted, without the lock.
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
            let promise = AskAgain { slots: Arc::downgrade(self), runtime: runtime.id() };
            runtime.spawn(promise.at(instant.into()));
        }
    }

    pub(super) fn spawn_close(self: &Arc<Self>, mut conn: D::Conn) {
        conn.was_left();
        let closing = Closing(Arc::clone(self));
        let runtime = Handle::try_current().ok().or_else(|| self.lock().runtime.clone());
        // Without a runtime there is nobody who could wait: dropping the connection cuts it off, and frees its slot.
        if let Some(runtime) = runtime {
            runtime.spawn(async move {
                let _ = time::timeout(LONGEST_CLOSE, conn.close()).await;
                drop(closing);
            });
        }
    }

    /// Background work was lost with its runtime. Nothing more is spawned there, and whoever waits enters again, which dials from its own: those on
    /// the runtime that ended are never polled again.
    pub(super) fn lose(&self, runtime: Id) {
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

    fn dialed(self: &Arc<Self>, number: u64, conn: D::Conn) {
        let delivery = self.place(|core| core.dialed(now(), number, conn));
        self.lock().dial_tasks.remove(&number);
        Arc::clone(self).deliver(delivery);
        self.dial_what_is_wanted();
    }

    fn dial_is_quiet(self: &Arc<Self>, number: u64) {
        self.lock().core.dial_is_quiet(number);
        self.dial_what_is_wanted();
    }

    fn dial_failed(self: &Arc<Self>, number: u64, error: D::Error) {
        self.lock().dial_tasks.remove(&number);
        let trouble = self.dial.trouble(&error);
        self.fail(error, |core| core.dial_failed(now(), number, trouble, fastrand::f64()));
        self.notify_watchers();
        self.dial_what_is_wanted();
    }

    /// Makes a transition that leaves some waiters without hope, and tells them why.
    pub(super) fn fail(
        &self,
        error: D::Error,
        transition: impl FnOnce(&mut DialCore<D>) -> Vec<(WaiterId, Arc<Mailbox<D>>)>,
    ) {
        let mut state = self.lock();
        let former = state.last_error.replace(error.clone());
        let waiters = transition(&mut state.core);
        let wait = state.core.unreachable_for(now()).unwrap_or_default();
        self.refuse(state, waiters, &Refusal::Unreachable(error, wait));
        drop(former);
    }

    /// Tells those who were taken out of the queue.
    pub(super) fn refuse(
        &self,
        mut state: MutexGuard<'_, State<D>>,
        waiters: Vec<(WaiterId, Arc<Mailbox<D>>)>,
        refusal: &Refusal<D::Error>,
    ) {
        let clocks = if state.core.waiting() == 0 { mem::take(&mut state.clocks) } else { Vec::new() };
        drop(state);
        drop(clocks);
        for (_, waiter) in waiters {
            waiter.tell(Err(refusal.clone()));
        }
    }
}

/// The slot of a dial under way on `runtime`.
struct Dialing<D: Dial> {
    number: u64,
    /// `None` once the dial has come to an end.
    slots: Option<Arc<Slots<D>>>,
    runtime: Id,
}

impl<D: Dial> Dialing<D> {
    async fn run(mut self) {
        let Some(slots) = self.slots.clone() else { return };
        let result = slots.dial.dial(|| slots.dial_is_quiet(self.number)).await;
        self.slots = None;
        match result {
            Ok(conn) => slots.dialed(self.number, conn),
            Err(error) => slots.dial_failed(self.number, error),
        }
    }
}

impl<D: Dial> Drop for Dialing<D> {
    fn drop(&mut self) {
        let Some(slots) = self.slots.take() else { return };
        if thread::panicking() {
            return slots.dial_failed(self.number, D::abandoned());
        }
        let mut state = slots.lock();
        state.dial_tasks.remove(&self.number);
        let was_given_up = state.core.is_given_up(self.number);
        state.core.dial_abandoned(self.number);
        drop(state);
        if was_given_up {
            slots.dial_what_is_wanted();
        } else {
            slots.lose(self.runtime);
        }
    }
}

/// The slot of a connection that is being closed.
struct Closing<D: Dial>(Arc<Slots<D>>);

impl<D: Dial> Drop for Closing<D> {
    fn drop(&mut self) {
        self.0.lock().core.closed();
        self.0.notify_watchers();
        self.0.dial_what_is_wanted();
    }
}

/// The promise to ask the core again for dials. Broken when its runtime ends.
struct AskAgain<D: Dial> {
    /// Of nothing, once kept.
    slots: Weak<Slots<D>>,
    runtime: Id,
}

impl<D: Dial> AskAgain<D> {
    async fn at(mut self, instant: Instant) {
        time::sleep_until(instant).await;
        if let Some(slots) = mem::take(&mut self.slots).upgrade() {
            slots.lock().core.asking_again();
            slots.dial_what_is_wanted();
        }
    }
}

impl<D: Dial> Drop for AskAgain<D> {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.upgrade() {
            slots.lock().core.asking_again();
            slots.lose(self.runtime);
        }
    }
}
