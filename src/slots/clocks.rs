//! Which clock watches whose deadline. There is one clock for each runtime that waiters come from; `clock` has its
//! task.

use std::sync::Arc;

use tokio::runtime::Id;
use tokio::sync::Notify;

use super::deadlines::Deadlines;
use super::queue::WaiterId;
use crate::policy::Deadline;

/// The clocks of a pool.
#[derive(Default)]
pub(super) struct Clocks(Vec<Clock>);

/// What the slots know of a clock. Dropping it ends the clock's task. It has to be dropped outside the lock.
pub(super) struct Clock {
    runtime: Id,
    deadlines: Deadlines,
    wakes_at: Deadline,
    bell: Arc<Notify>,
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

/// What the caller has to do, after unlock, so that a clock watches a deadline.
pub(super) enum Alarm {
    /// Nothing: the clock wakes early enough.
    Set,
    /// Ring this bell, which wakes the clock.
    Ring(Arc<Notify>),
    /// Begin a clock on that runtime, which has none.
    NoClock,
}

impl Clocks {
    /// Adds a waiter's deadline to the clock of its runtime.
    pub(super) fn add(&mut self, runtime: Id, deadline: Deadline, id: WaiterId) -> Alarm {
        let Some(clock) = self.0.iter_mut().find(|clock| clock.runtime == runtime) else { return Alarm::NoClock };
        clock.deadlines.push(deadline, id);
        let is_earlier = deadline < clock.wakes_at;
        clock.wakes_at = clock.wakes_at.min(deadline);
        if is_earlier { Alarm::Ring(Arc::clone(&clock.bell)) } else { Alarm::Set }
    }

    /// Adds a clock with its first deadline. Its task listens to `bell`, which identifies the clock.
    pub(super) fn begin(&mut self, runtime: Id, bell: Arc<Notify>, deadline: Deadline, id: WaiterId) {
        let mut deadlines = Deadlines::default();
        deadlines.push(deadline, id);
        self.0.push(Clock { runtime, deadlines, wakes_at: deadline, bell });
    }

    pub(super) fn contains(&self, bell: &Arc<Notify>) -> bool {
        self.0.iter().any(|clock| Arc::ptr_eq(&clock.bell, bell))
    }

    /// The deadlines that a clock watches. `None` if the clock has ended.
    pub(super) fn deadlines(&mut self, bell: &Arc<Notify>) -> Option<&mut Deadlines> {
        let clock = self.0.iter_mut().find(|clock| Arc::ptr_eq(&clock.bell, bell));
        clock.map(|clock| &mut clock.deadlines)
    }

    /// Notes when a clock wakes next. If it has nothing to wake for, removes the clock and returns it.
    pub(super) fn set(&mut self, bell: &Arc<Notify>, next: Option<Deadline>) -> Option<Clock> {
        let index = self.0.iter().position(|clock| Arc::ptr_eq(&clock.bell, bell))?;
        let Some(deadline) = next else { return Some(self.0.swap_remove(index)) };
        self.0[index].wakes_at = deadline;
        None
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.iter().map(|clock| clock.deadlines.capacity()).sum()
    }

    /// Forgets the deadlines of waiters that have gone, once these outnumber the others.
    pub(super) fn tidy(&mut self, waiting: usize, deadline_of: impl Fn(WaiterId) -> Option<Deadline>) {
        for clock in &mut self.0 {
            clock.deadlines.tidy(waiting, &deadline_of);
        }
    }
}
