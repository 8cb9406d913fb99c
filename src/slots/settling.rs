//! The clean-up of a connection between two leases, in the background. The caller that gave it back does not wait.
//!
//! A connection keeps its slot while it is being settled. The pool closes it if settling fails or if the runtime of the
//! clean-up ends.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Slots;
use super::core::Held;
use super::lease::Lender as _;
use super::traits::{Connection, Dial};
use crate::clock::now;
use crate::policy::Time;

impl<D: Dial> Slots<D> {
    /// Settles the connection in a task. Without a runtime the pool closes the connection.
    pub(super) fn settle(self: &Arc<Self>, held: Held<D::Conn>) {
        let runtime = Handle::try_current().ok().or_else(|| self.lock().runtime.clone());
        let Some(runtime) = runtime else { return self.retire(held) };
        self.lock().core.settle();
        held.conn.on_settle();
        let settling = Settling { held: Some(held), slots: Arc::clone(self) };
        runtime.spawn(settling.run());
    }
}

/// A connection that is being settled. Dropping the value retires the connection.
struct Settling<D: Dial> {
    /// `None` once the clean-up has ended.
    held: Option<Held<D::Conn>>,
    slots: Arc<Slots<D>>,
}

impl<D: Dial> Settling<D> {
    async fn run(mut self) {
        let is_settled = match &mut self.held {
            Some(held) => held.conn.settle().await && held.conn.is_usable(),
            None => false,
        };
        if let Some(mut held) = self.held.take_if(|_| is_settled) {
            held.conn.on_maintenance();
            let now = now();
            let time = Time::of(now, self.slots.origin);
            let delivery = self.slots.place(|core| {
                core.on_settled();
                core.release(now, time, held)
            });
            Arc::clone(&self.slots).deliver(delivery);
        }
    }
}

impl<D: Dial> Drop for Settling<D> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.slots.lock().core.on_settled();
            self.slots.retire(held);
        }
    }
}
