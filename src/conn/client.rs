//! The guard that a caller holds.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::Instant;

use super::Dialer;
use crate::policy::Deadline;
use crate::slots::Lease;

/// A connection on loan from a [`Pool`](crate::Pool), given back when dropped.
///
/// It derefs to [`deadpool_postgres::Client`], so code written for that works on `&*client` and `&mut *client`.
///
/// Dropping it never blocks and works outside a runtime: the connection goes to the caller that has waited longest, or to the idle
/// ones; one that has been closed by the server is replaced when it is next needed.
#[must_use = "dropping a client gives its connection back"]
pub struct Client {
    lease: Lease<Dialer>,
    /// Of the call that it was taken for.
    deadline: Option<Deadline>,
}

impl Client {
    pub(crate) fn new(lease: Lease<Dialer>, deadline: Option<Deadline>) -> Self {
        Self { lease, deadline }
    }

    /// What is left of the call's [`deadline`](crate::Call::deadline), if it has one.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.left(Instant::now().into_std()))
    }

    /// Closes the connection instead of giving it back: for one that you have reason to mistrust.
    pub fn discard(self) {
        self.lease.discard();
    }

    /// Takes the connection out of the pool for good: it is yours, and its slot is free for another. It ends when you drop it.
    pub fn detach(self) -> deadpool_postgres::ClientWrapper {
        self.lease.detach().detach()
    }
}

impl Deref for Client {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.lease.object
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Object {
        self.lease.object_mut()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
