//! What maintenance does with idle connections, round by round.
//!
//! It closes connections that are too old, finds those that have ended, and checks those that were idle for long. The
//! rules: `core/maintenance.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time;

use super::Slots;
use super::core::{Check, Life};
use super::lease::Lender as _;
use super::traits::{Connection, Dial};
use crate::clock::now;
use crate::policy::Lane;

impl<D: Dial> Slots<D> {
    /// Closes the idle connections that are too old or have been idle for too long. Hands others to waiters to whom
    /// they may be lent by now.
    pub(crate) fn reap(self: &Arc<Self>) {
        let old = self.lock().core.reap(now());
        if !old.is_empty() {
            self.close_all(old);
        }
        self.hand_idle();
    }

    /// Closes the idle connections that have ended. If one has ended, maintenance checks the others soon.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let mut state = self.lock();
        let ended = state.core.sweep(now(), D::Conn::is_usable);
        if ended.is_empty() {
            return;
        }
        state.core.check_all_soon();
        drop(state);
        self.close_all(ended);
    }

    /// Notifies the idle connections that they are idle. Returns the age of the slots in this instant.
    pub(crate) fn look_at_idle(&self, now: Instant) -> Life {
        let core = &mut self.lock().core;
        core.each_idle(D::Conn::on_seen_idle);
        core.life(now)
    }

    /// How long the next caller of this lane would wait. `None` if a connection is idle for it, or if there is no
    /// estimate yet.
    pub(crate) fn predicted_wait(&self, lane: Lane) -> Option<Duration> {
        self.lock().core.predicted_wait(lane, now())
    }

    /// The number of the caller that has waited longest, and the number of the next caller to wait.
    pub(crate) fn waiters(&self) -> (u64, u64) {
        self.lock().core.waiters()
    }

    /// Dials one connection beyond the limit and closes it at once. Returns whether the server accepted it.
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

    /// Takes the idle connections that are due for a check. Callers do not get them until the check has ended.
    pub(crate) fn begin_checks(self: &Arc<Self>) -> Vec<Checking<D>> {
        let checks = self.lock().core.begin_checks(now());
        checks.into_iter().map(|check| self.checking(check)).collect()
    }

    /// Checks a connection on behalf of a waiter. Without a runtime the pool closes the connection.
    pub(super) fn spawn_check(self: &Arc<Self>, check: Option<Check<D::Conn>>) {
        let Some(check) = check else { return };
        let checking = self.checking(check);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(checking.run());
        }
    }

    fn checking(self: &Arc<Self>, mut check: Check<D::Conn>) -> Checking<D> {
        check.held.conn.on_maintenance();
        Checking { check: Some(check), slots: Arc::clone(self) }
    }
}

/// A connection that is being checked. Dropping the value closes the connection.
pub(crate) struct Checking<D: Dial> {
    /// `None` once the check has ended.
    check: Option<Check<D::Conn>>,
    slots: Arc<Slots<D>>,
}

impl<D: Dial> Checking<D> {
    /// Sends one round trip, bounded by [`Dial::answer_limit`]. Afterwards the connection is idle again, or the pool
    /// closes it. Returns whether the server answered.
    pub(crate) async fn run(mut self) -> bool {
        let Some(check) = &self.check else { return false };
        let (conn, within) = (&check.held.conn, self.slots.dial.answer_limit());
        let answers = time::timeout(within, conn.ping()).await == Ok(true) && conn.is_usable();
        if let Some(check) = self.check.take_if(|_| answers) {
            let delivery = self.slots.place(|core| core.on_checked(now(), check));
            Arc::clone(&self.slots).deliver(delivery);
        }
        answers
    }
}

impl<D: Dial> Drop for Checking<D> {
    fn drop(&mut self) {
        let Some(check) = self.check.take() else { return };
        let mut state = self.slots.lock();
        let as_old = state.core.on_silent(now(), &check);
        drop(state);
        self.slots.retire(check.held);
        self.slots.close_all(as_old);
    }
}
