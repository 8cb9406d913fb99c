//! Whether the connections to one host name lead to one server or to several.

use std::time::{Duration, Instant};

/// How long a host that was found to lead to several servers serves no bounded reads.
pub(super) const BALANCES: Duration = Duration::from_secs(600);

/// What comparing the sessions of a host has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sessions {
    /// The scout and the pool are connected to the same server, as far as is known.
    Same,
    /// A connection of the pool has found a server that was started at another time. The scout has to look again.
    Doubted(i64),
    /// The host leads to several servers.
    Several(Instant),
}

/// Where the first connections of a pool lead, before the scout has an answer to compare them with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Dialed {
    #[default]
    Nowhere,
    /// All of them lead to a server that was started at this time.
    One(i64),
    Several,
}

impl Dialed {
    pub(super) fn and(self, started: i64) -> Self {
        match self {
            Self::Nowhere => Self::One(started),
            Self::One(before) if before == started => self,
            Self::One(_) | Self::Several => Self::Several,
        }
    }

    /// Returns whether a connection leads to another server than this one.
    pub(super) fn is_elsewhere(self, started: i64) -> bool {
        !matches!(self, Self::Nowhere) && self != Self::One(started)
    }
}
