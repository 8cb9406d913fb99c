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

/// An answer of the scout, compared with what is known of its host.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) now: Instant,
    /// The server that has answered was started at this time.
    pub(super) started: i64,
    /// It is another server than before, or was restarted.
    pub(super) is_other: bool,
    /// It had answered before the one of before.
    pub(super) has_returned: bool,
    /// The scout has connected anew.
    pub(super) is_new_session: bool,
    pub(super) dialed: Dialed,
}

impl Sessions {
    pub(super) fn is_several(self) -> bool {
        matches!(self, Self::Several(_))
    }

    /// What follows from an answer, and whether the pool has to replace its connections.
    pub(super) fn after(self, answer: &Compared) -> (Self, bool) {
        let &Compared { now, started, is_other, has_returned, is_new_session, dialed } = answer;
        match self {
            // One session leads to one server, unless a pooler is in between. Its server was restarted, it leads to
            // another one from now on, or it has several. The pool's connections lead where this session does.
            Self::Same | Self::Doubted(_) if is_other && !is_new_session => {
                (if has_returned { Self::Several(now) } else { Self::Doubted(started) }, false)
            }
            // An older session says nothing about where new ones lead.
            Self::Doubted(dialed) if is_new_session && dialed != started => (Self::Several(now), false),
            // Connections of before may still lead to the other server. The new ones are compared.
            Self::Doubted(_) if is_new_session => (Self::Same, true),
            Self::Same => (Self::Same, is_other || dialed.is_elsewhere(started)),
            // Perhaps the name leads to one server by now. The pool replaces all connections, and each is compared.
            Self::Several(since) if now.saturating_duration_since(since) >= BALANCES => (Self::Same, true),
            Self::Doubted(_) | Self::Several(_) => (self, false),
        }
    }
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
