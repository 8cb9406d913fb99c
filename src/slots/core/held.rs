//! A connection in use, as the core hands it out and gets it back.

use crate::policy::{Lane, Time};

/// What is fixed when a connection is dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) generation: u32,
    /// The moment at which the connection is too old.
    pub(super) expires: u32,
}

/// What a caller has done with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The lease has no caller yet.
    None,
    Used,
    /// A call on the connection was abandoned, so the lease would have lasted longer.
    Cancelled,
}

/// A lease that ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// As in [`Held`].
    pub(super) lane: Option<Lane>,
    pub(super) since: Option<Time>,
    pub(super) used: Use,
}

/// A connection in use. It has to be given back to the core.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held<C> {
    pub(crate) conn: C,
    /// When the lease began. `None` if nobody read the clock then.
    pub(super) since: Option<Time>,
    /// The moment in which the lease began.
    pub(super) moment: u32,
    pub(super) birth: Birth,
    /// The lane of the caller. `None` if the pool itself uses the connection.
    pub(super) lane: Option<Lane>,
    pub(super) used: Use,
    /// The connection is new and was not used yet.
    pub(super) is_unproven: bool,
    /// The connection was too old when it was taken.
    pub(super) is_expired: bool,
}

impl<C> Held<C> {
    pub(super) fn new(conn: C, since: Option<Time>, moment: u32, birth: Birth, lane: Option<Lane>) -> Self {
        Self { conn, since, moment, birth, lane, used: Use::None, is_unproven: false, is_expired: false }
    }

    /// The moment in which the lease began. [`Life::since`](super::Life::since) makes an age of it.
    #[inline]
    pub(crate) fn moment(&self) -> u32 {
        self.moment
    }

    /// How many seconds the lease has lasted, if its beginning is known.
    pub(crate) fn lasted(&self, now: Time) -> Option<f64> {
        self.since.map(|since| now.since(since))
    }

    /// Returns whether the beginning of the lease is unknown.
    pub(crate) fn is_untimed(&self) -> bool {
        self.since.is_none()
    }

    pub(crate) fn is_unproven(&self) -> bool {
        self.is_unproven
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// What the core has to know of a lease that ends.
    pub(crate) fn ended(&self) -> Ended {
        Ended { lane: self.lane, since: self.since, used: self.used }
    }

    /// Notes that the lease has a caller. One that was dropped before says nothing about lease durations of its lane.
    #[inline]
    pub(crate) fn mark_used(&mut self) {
        self.used = Use::Used;
    }

    /// Notes that a call on the connection was abandoned.
    pub(crate) fn mark_cancelled(&mut self) {
        self.used = Use::Cancelled;
    }
}
