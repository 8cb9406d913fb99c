//! A connection in use.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::core::Held;
use super::{Connection, Dial, Slots};
use crate::clock::now;

/// A connection, and whom to give it back to.
type Owned<D> = (Held<<D as Dial>::Conn>, Arc<Slots<D>>);

/// Dropping it gives the connection to the first waiter, or back to the idle ones; an unusable one is closed.
pub(crate) struct Lease<D: Dial> {
    held: Option<Owned<D>>,
}

/// Why it is never `None`: it is taken where the lease itself ends, and nowhere else.
const HELD: &str = "a lease holds its connection until it ends";

impl<D: Dial> Lease<D> {
    pub(super) fn new(slots: Arc<Slots<D>>, held: Held<D::Conn>) -> Self {
        Self { held: Some((held, slots)) }
    }

    /// Whether the connection is alive, what it was, and young enough.
    pub(crate) fn is_usable(&self) -> bool {
        let (held, _) = self.held.as_ref().expect(HELD);
        !held.is_expired() && held.conn.is_usable()
    }

    /// The connection is good.
    pub(super) fn prove(&mut self) {
        let (held, slots) = self.held.as_mut().expect(HELD);
        if held.is_unproven() {
            slots.lock().core.prove(held);
            slots.dial_what_is_wanted();
        }
    }

    /// Ends the connection instead of giving it back.
    pub(crate) fn discard(mut self) {
        let (held, slots) = self.end().expect(HELD);
        slots.retire(held);
    }

    /// Takes the connection out of the pool, whose slot is free at once.
    pub(crate) fn detach(mut self) -> D::Conn {
        let (held, slots) = self.end().expect(HELD);
        slots.lock().core.detach(now());
        slots.dial_what_is_wanted();
        slots.notify_watchers();
        held.conn
    }

    fn end(&mut self) -> Option<Owned<D>> {
        self.held.as_mut()?.0.conn.was_used();
        self.held.take()
    }
}

impl<D: Dial> Deref for Lease<D> {
    type Target = D::Conn;

    fn deref(&self) -> &D::Conn {
        &self.held.as_ref().expect(HELD).0.conn
    }
}

impl<D: Dial> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Conn {
        &mut self.held.as_mut().expect(HELD).0.conn
    }
}

impl<D: Dial> Drop for Lease<D> {
    fn drop(&mut self) {
        if let Some((held, slots)) = self.end() {
            slots.release(held);
        }
    }
}

impl<D: Dial> fmt::Debug for Lease<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
