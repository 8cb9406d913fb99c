//! A lease: a connection in use by one caller.
//!
//! Dropping a lease gives the connection back to its lender, the slots. The trait keeps this file below the slots,
//! which answer their waiters with leases.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::core::{Ended, Held};
use super::traits::Connection;

/// Lends connections and takes them back.
pub(crate) trait Lender {
    type Conn: Connection;

    /// A lease ends. The connection goes to the first waiter or to the idle stack, or is closed if it is unusable.
    fn release(self: Arc<Self>, held: Held<Self::Conn>);

    /// A lease ends, and the lender closes the connection.
    fn retire(self: &Arc<Self>, held: Held<Self::Conn>);

    /// A lease ends, and the connection leaves the pool. Its slot is free at once.
    fn detach(self: &Arc<Self>, ended: Ended);

    /// The connection, if it is a new one, works.
    fn prove(self: &Arc<Self>, held: &mut Held<Self::Conn>);
}

/// A connection in use, and its lender. Dropping the lease gives the connection back.
pub(crate) struct Lease<L: Lender> {
    lent: Option<(Held<L::Conn>, Arc<L>)>,
}

/// Why `lent` is never `None`: only what ends the lease takes it.
const LENT: &str = "a lease has its connection until it ends";

impl<L: Lender> Lease<L> {
    pub(super) fn new(lender: Arc<L>, held: Held<L::Conn>) -> Self {
        Self { lent: Some((held, lender)) }
    }

    /// Returns whether the connection is alive, still what was dialed, and young enough.
    #[inline]
    pub(crate) fn is_usable(&self) -> bool {
        let (held, _) = self.lent.as_ref().expect(LENT);
        !held.is_expired() && held.conn.is_usable()
    }

    /// The moment in which the lease began: see [`Held::moment`].
    #[inline]
    pub(crate) fn moment(&self) -> u32 {
        let (held, _) = self.lent.as_ref().expect(LENT);
        held.moment()
    }

    /// The lease has a caller: see [`Held::mark_used`].
    #[inline]
    pub(crate) fn mark_used(&mut self) {
        self.lent.as_mut().expect(LENT).0.mark_used();
    }

    /// Reports that the connection works.
    pub(super) fn prove(&mut self) {
        let (held, lender) = self.lent.as_mut().expect(LENT);
        if held.is_unproven() {
            lender.prove(held);
        }
    }

    /// Closes the connection instead of giving it back.
    pub(crate) fn discard(mut self) {
        let (held, lender) = self.end().expect(LENT);
        lender.retire(held);
    }

    /// Takes the connection out of the pool. Its slot is free at once.
    pub(crate) fn detach(mut self) -> L::Conn {
        let (held, lender) = self.end().expect(LENT);
        lender.detach(held.ended());
        held.conn
    }

    fn end(&mut self) -> Option<(Held<L::Conn>, Arc<L>)> {
        self.lent.as_mut()?.0.conn.on_lease_end();
        self.lent.take()
    }
}

impl<L: Lender> Deref for Lease<L> {
    type Target = L::Conn;

    fn deref(&self) -> &L::Conn {
        &self.lent.as_ref().expect(LENT).0.conn
    }
}

impl<L: Lender> DerefMut for Lease<L> {
    fn deref_mut(&mut self) -> &mut L::Conn {
        &mut self.lent.as_mut().expect(LENT).0.conn
    }
}

impl<L: Lender> Drop for Lease<L> {
    fn drop(&mut self) {
        if let Some((held, lender)) = self.end() {
            lender.release(held);
        }
    }
}

impl<L: Lender> fmt::Debug for Lease<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
