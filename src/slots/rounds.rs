//! The rounds of upkeep: idle connections that are too old are closed, those that have ended are found, those that nobody has used for long are
//! checked, and so many as are wanted are kept ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time;

use super::core::Check;
use super::{Connection, Dial, Slots};
use crate::clock::now;

impl<D: Dial> Slots<D> {
    /// Closes the idle connections that are too old or have been idle for too long.
    pub(crate) fn reap(self: &Arc<Self>) {
        let old = self.lock().core.reap(now());
        if !old.is_empty() {
            self.close_all(old);
        }
    }

    /// Closes the idle connections that have ended. When one has, the others are to be checked: they may be as dead.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let mut state = self.lock();
        let ended = state.core.sweep(now(), D::Conn::is_usable);
        if ended.is_empty() {
            return;
        }
        state.core.mistrust();
        drop(state);
        self.close_all(ended);
    }

    /// Tells the idle connections that they were seen.
    pub(crate) fn look_at_idle(&self) {
        self.lock().core.each_idle(D::Conn::rests);
    }

    /// How long the next caller would wait, if nothing is idle and anybody knows.
    pub(crate) fn predicted_wait(&self) -> Option<Duration> {
        self.lock().core.predicted_wait(now())
    }

    pub(crate) fn waiters(&self) -> (u64, u64) {
        self.lock().core.waiters()
    }

    /// Whether the server takes a connection now: one beyond the limit, closed at once.
    pub(crate) async fn dial_aside(&self) -> bool {
        if self.lock().core.dials_are_held_off(now()) {
            return false;
        }
        match self.dial.dial(|| {}).await {
            Ok(conn) => {
                conn.close().await;
                true
            }
            Err(_) => false,
        }
    }

    /// Those of the idle connections that are to be checked now. Meanwhile nobody gets them.
    pub(crate) fn begin_checks(self: &Arc<Self>) -> Vec<Checking<D>> {
        let checks = self.lock().core.begin_checks(now());
        checks.into_iter().map(|check| self.checking(check)).collect()
    }

    /// Checks a connection for somebody who waits. Without a runtime it is closed.
    pub(super) fn spawn_check(self: &Arc<Self>, check: Option<Check<D::Conn>>) {
        let Some(check) = check else { return };
        let checking = self.checking(check);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(checking.run());
        }
    }

    fn checking(self: &Arc<Self>, mut check: Check<D::Conn>) -> Checking<D> {
        check.held.conn.was_left();
        Checking { check: Some(check), slots: Arc::clone(self) }
    }
}

/// A connection that is being checked. Dropped, it is closed.
pub(crate) struct Checking<D: Dial> {
    /// `None` once the check has ended.
    check: Option<Check<D::Conn>>,
    slots: Arc<Slots<D>>,
}

impl<D: Dial> Checking<D> {
    /// One round trip, which has as long as a dial may take. Returns whether the server answered: the connection is idle again, or closed.
    pub(crate) async fn run(mut self) -> bool {
        let Some(check) = &self.check else { return false };
        let (conn, within) = (&check.held.conn, self.slots.dial.answer_limit());
        let answers = time::timeout(within, conn.ping()).await == Ok(true) && conn.is_usable();
        if let Some(check) = self.check.take_if(|_| answers) {
            let delivery = self.slots.place(|core| {
                core.end_check();
                core.checked(now(), check)
            });
            Arc::clone(&self.slots).deliver(delivery);
        }
        answers
    }
}

impl<D: Dial> Drop for Checking<D> {
    fn drop(&mut self) {
        let Some(check) = self.check.take() else { return };
        let mut state = self.slots.lock();
        state.core.end_check();
        let as_old = state.core.found_silent(now(), &check);
        drop(state);
        self.slots.retire(check.held);
        self.slots.close_all(as_old);
    }
}
