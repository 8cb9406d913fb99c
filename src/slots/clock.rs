//! One timer for all who wait on a runtime, instead of one for each.
//!
//! A clock is a task on the waiters' own runtime: several may share a pool, and each waiter depends on its own only. It sleeps until the
//! earliest deadline, wakes those whose time is up, and ends when nobody is left. Whoever enters with an earlier deadline tells it.
//!
//! A clock that is lost with its runtime makes everybody enter again, so that those polled elsewhere get one there.

use std::pin::pin;
use std::sync::{Arc, Weak};

use futures_util::future;
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::time::{self, Sleep};

use super::deadlines::Deadlines;
use super::queue::WaiterId;
use super::{Dial, Slots, State};
use crate::clock::now;
use crate::policy::Deadline;

/// What the slots know of a clock. Dropping it, outside the lock, ends the task.
pub(super) struct Clock {
    runtime: Id,
    pub(super) deadlines: Deadlines,
    wakes_at: Deadline,
    bell: Arc<Notify>,
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

/// What is to be done, after unlock, so that a deadline is kept.
pub(super) enum Alarm {
    Already,
    /// Once this is rung.
    Ring(Arc<Notify>),
    /// There is no clock on that runtime.
    NoClock,
}

impl<D: Dial> State<D> {
    pub(super) fn keep(&mut self, runtime: Id, deadline: Deadline, id: WaiterId) -> Alarm {
        let Some(clock) = self.clocks.iter_mut().find(|clock| clock.runtime == runtime) else { return Alarm::NoClock };
        clock.deadlines.push(deadline, id);
        let rings = (deadline < clock.wakes_at).then(|| Arc::clone(&clock.bell));
        clock.wakes_at = clock.wakes_at.min(deadline);
        self.tidy_clocks();
        rings.map_or(Alarm::Already, Alarm::Ring)
    }

    /// To be called when waiters have gone.
    pub(super) fn tidy_clocks(&mut self) {
        let core = &self.core;
        for clock in &mut self.clocks {
            clock.deadlines.tidy(core.waiting(), |id| core.deadline_of(id));
        }
    }
}

impl<D: Dial> Slots<D> {
    /// Begins a clock on the caller's runtime, and tells whether it runs: it does not on one that is shutting down.
    ///
    /// # Panics
    ///
    /// Outside a runtime with timers.
    pub(super) fn begin_clock(self: &Arc<Self>, deadline: Deadline, id: WaiterId) -> bool {
        let runtime = Handle::current();
        let sleep = time::sleep_until(deadline.instant().into());
        let bell = Arc::new(Notify::new());
        let mut state = self.lock();
        match state.keep(runtime.id(), deadline, id) {
            Alarm::Already => return true,
            Alarm::Ring(bell) => {
                drop(state);
                bell.notify_one();
                return true;
            }
            Alarm::NoClock => {}
        }
        let mut clock = Clock {
            runtime: runtime.id(),
            deadlines: Deadlines::default(),
            wakes_at: deadline,
            bell: Arc::clone(&bell),
        };
        clock.deadlines.push(deadline, id);
        state.clocks.push(clock);
        drop(state);
        let task = Task { slots: Arc::downgrade(self), runtime: runtime.id(), bell: Arc::clone(&bell) };
        runtime.spawn(task.run(sleep));
        self.lock().clocks.iter().any(|clock| Arc::ptr_eq(&clock.bell, &bell))
    }

    /// Wakes those whose time is up: out of the queue, without an answer, past their deadline. Tells when to come again.
    fn tick(&self, bell: &Arc<Notify>) -> Option<Deadline> {
        let now = now();
        let mut state = self.lock();
        let State { core, clocks, .. } = &mut *state;
        let index = clocks.iter().position(|clock| Arc::ptr_eq(&clock.bell, bell))?;
        let deadlines = &mut clocks[index].deadlines;
        let mut late = Vec::new();
        while let Some(id) = deadlines.pop(now, |id| core.deadline_of(id)) {
            late.extend(core.leave(id));
        }
        let next = deadlines.first(|id| core.deadline_of(id));
        let ended = match next {
            Some(deadline) => {
                clocks[index].wakes_at = deadline;
                None
            }
            None => Some(clocks.swap_remove(index)),
        };
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
        let is_lost = slots.lock().clocks.iter().any(|clock| Arc::ptr_eq(&clock.bell, &self.bell));
        if is_lost {
            slots.lose(self.runtime);
        }
    }
}
