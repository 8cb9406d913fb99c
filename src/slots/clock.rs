//! One timer for all waiters of a runtime, instead of one timer for each waiter.
//!
//! A clock is a task on the waiters' own runtime. Several runtimes may share a pool, and each waiter depends on its own
//! runtime only. The clock sleeps until the earliest deadline and wakes the waiters whose time is up. It ends when it
//! has no waiter left. A waiter that enters with an earlier deadline rings the clock's bell.
//!
//! If a clock is lost with its runtime, all waiters enter again. Those that another runtime polls get a clock there.

use std::pin::pin;
use std::sync::{Arc, Weak};

use futures_util::future;
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::time::{self, Sleep};

use super::Slots;
use super::clocks::Alarm;
use super::queue::WaiterId;
use super::state::Locked;
use super::traits::Dial;
use crate::clock::now;
use crate::policy::Deadline;

impl<D: Dial> Slots<D> {
    /// Begins a clock on the caller's runtime. Returns whether it runs: it does not on a runtime that is shutting down.
    ///
    /// # Panics
    ///
    /// Outside a runtime with timers.
    pub(super) fn begin_clock(self: &Arc<Self>, deadline: Deadline, id: WaiterId) -> bool {
        let runtime = Handle::current();
        let sleep = time::sleep_until(deadline.instant().into());
        let bell = Arc::new(Notify::new());
        let mut state = self.lock();
        match state.add_deadline(runtime.id(), deadline, id) {
            Alarm::Set => return true,
            Alarm::Ring(bell) => {
                drop(state);
                bell.notify_one();
                return true;
            }
            Alarm::NoClock => {}
        }
        state.clocks.begin(runtime.id(), Arc::clone(&bell), deadline, id);
        drop(state);
        let task = Task { slots: Arc::downgrade(self), runtime: runtime.id(), bell: Arc::clone(&bell) };
        runtime.spawn(task.run(sleep));
        self.lock().clocks.contains(&bell)
    }

    /// Takes the waiters whose time is up out of the queue and wakes them. Returns when the clock has to look again.
    fn tick(&self, bell: &Arc<Notify>) -> Option<Deadline> {
        let now = now();
        let mut state = self.lock();
        let Locked { core, clocks, .. } = &mut *state;
        let deadlines = clocks.deadlines(bell)?;
        let mut late = Vec::new();
        while let Some(id) = deadlines.pop(now, |id| core.deadline_of(id)) {
            late.extend(core.leave(id));
        }
        let next = deadlines.first(|id| core.deadline_of(id));
        let ended = clocks.set(bell, next);
        drop(state);
        drop(ended);
        for waiter in late {
            waiter.dismiss();
        }
        self.notify_watchers();
        next
    }
}

struct Task<D: Dial> {
    slots: Weak<Slots<D>>,
    runtime: Id,
    bell: Arc<Notify>,
}

impl<D: Dial> Task<D> {
    async fn run(self, sleep: Sleep) {
        let mut sleep = pin!(sleep);
        loop {
            future::select(sleep.as_mut(), pin!(self.bell.notified())).await;
            let next = self.slots.upgrade().and_then(|slots| slots.tick(&self.bell));
            let Some(next) = next else { return };
            sleep.as_mut().reset(next.instant().into());
        }
    }
}

impl<D: Dial> Drop for Task<D> {
    fn drop(&mut self) {
        let Some(slots) = self.slots.upgrade() else { return };
        let is_lost = slots.lock().clocks.contains(&self.bell);
        if is_lost {
            slots.on_runtime_lost(self.runtime);
        }
    }
}
