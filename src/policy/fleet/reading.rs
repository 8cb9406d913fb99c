//! What a member has read from the server: the limits, how many connections there are, and the beacons.

use super::beacon::Beacon;

/// A part of the server with a limit of its own: the server itself, a database, or a role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    pub(crate) limit: usize,
    /// The headroom that the owner has set. `None`: the default for this limit.
    pub(crate) headroom: Option<usize>,
    /// The number of client connections within it.
    pub(crate) connections: usize,
}

/// A member as another one sees it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The server's process for the connection that shows the beacon.
    pub(crate) process: u32,
    pub(crate) beacon: Beacon,
    /// Whether the limits of the reader's database and role apply to it.
    pub(crate) is_within: [bool; 2],
}

#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// The server's process for the connection that has read this.
    pub(crate) process: u32,
    pub(crate) peers: Vec<Peer>,
    /// The server, then the database and the role if they have a limit.
    pub(crate) scopes: [Option<Scope>; 3],
}

impl Reading {
    /// Returns the peers within the scope with this number.
    pub(super) fn within(&self, scope: usize) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(move |peer| scope == 0 || peer.is_within[scope - 1])
    }
}

impl Scope {
    pub(super) fn headroom(&self) -> usize {
        self.headroom.unwrap_or_else(|| default_headroom(self.limit))
    }
}

/// A tenth, and at least 5: what newcomers and races take.
pub(crate) fn default_headroom(limit: usize) -> usize {
    (limit / 10).max(5)
}
