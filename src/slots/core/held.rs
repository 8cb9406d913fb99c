//! A connection in use, as the core hands it out and gets it back.

use std::time::{Duration, Instant};

/// Fixed when a connection is dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) generation: u32,
    /// The moment at which it is too old.
    pub(super) expires: u32,
}

/// Since when, if that is known. To be given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held<C> {
    pub(crate) conn: C,
    pub(super) since: Option<Instant>,
    pub(super) birth: Birth,
    /// Newly dialed, and nobody has looked at it yet.
    pub(super) is_unproven: bool,
    /// It was found to be too old when it was taken.
    pub(super) is_expired: bool,
    /// Its work was given up.
    pub(super) is_given_up: bool,
}

impl<C> Held<C> {
    pub(super) fn new(conn: C, since: Option<Instant>, birth: Birth) -> Self {
        Self { conn, since, birth, is_unproven: false, is_expired: false, is_given_up: false }
    }

    /// How long it has been held, if that is known.
    pub(crate) fn lasted(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// Since when it is held is not known.
    pub(crate) fn is_untimed(&self) -> bool {
        self.since.is_none()
    }

    pub(crate) fn is_unproven(&self) -> bool {
        self.is_unproven
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// It did not come to the end of its work.
    pub(crate) fn give_up(&mut self) {
        self.is_given_up = true;
    }
}
