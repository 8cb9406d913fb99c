//! The pool's questions to a connection: is it fit for the next caller, and must the pool settle it first? This file
//! also settles and closes connections.

use std::mem;

use super::connection::Conn;
use super::settle;
use super::wire::TransactionStatus;
use crate::slots::Connection;

impl Connection for Box<Conn> {
    #[inline]
    fn is_usable(&self) -> bool {
        self.is_fit()
    }

    #[inline]
    fn needs_settling(&self) -> bool {
        self.link.is_used() && self.is_unclean()
    }

    /// Sends a Sync, and waits for its answer.
    async fn ping(&self) -> bool {
        self.object.check_connection().await.is_ok()
    }

    #[inline]
    fn on_lease_end(&mut self) {
        self.handling.meter.used(mem::take(&mut self.since));
    }

    fn on_lease_duration(&self, seconds: f64, is_cut: bool) {
        self.purpose.record_duration(&self.link.lease_info, seconds, is_cut);
    }

    fn on_seen_idle(&self) {
        self.link.lease_info.on_seen_idle();
    }

    fn on_settle(&self) {
        self.link.lease_info.on_settle();
    }

    fn on_maintenance(&mut self) {
        self.purpose.erase(&self.link.lease_info);
    }

    fn has_abandoned_call(&self) -> bool {
        self.link.calls.has_abandoned()
    }

    async fn settle(&mut self) -> bool {
        settle::settle(self).await
    }

    fn follow_to_end(&self) {
        self.link.wire.follow_to_end();
    }

    /// Sends Terminate and waits until the task ends.
    async fn close(self) {
        self.link.record_untracked(self.object.is_closed());
        let Conn { object, task, _presence: presence, .. } = *self;
        drop((presence, object));
        task.ended().await;
    }
}

impl Conn {
    /// Returns whether a lease has left something to clean up. Records what was done through the deref.
    fn is_unclean(&self) -> bool {
        let link = &self.link;
        link.record_untracked(false);
        self.statements.look_for_changes(link);
        if link.is_untracked() {
            self.statements.look_for_losses(link);
        }
        // `unanswered` is read first, so the facts that are read after it are at least as new.
        let is_clean = link.wire.unanswered() == 0
            && link.wire.status() == TransactionStatus::Idle
            && !link.is_untracked()
            && link.calls.is_idle()
            && !link.statement_timeout.is_lifted()
            && !link.has_odd_statements()
            && !self.needs_reset();
        link.set_used(!is_clean);
        if is_clean {
            if link.calls.suspects_statements() {
                link.calls.set_suspects_statements(false);
            }
            link.wire.forget_unused();
        }
        !is_clean
    }
}
