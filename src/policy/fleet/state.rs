//! How a pool takes part in its fleet, in one word for events, metrics and people.

/// How a pool takes part in its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FleetState {
    /// The pool has not yet seen its own beacon twice. It uses what it has: at first its minimum.
    Joining,
    /// The pool uses its share.
    Sharing,
    /// The pool cannot read the beacons. It uses no more than it has, and after a minute no more than an equal part.
    Blind,
    /// The server has refused a connection (53300) within the last 30 s. The pool does not grow.
    ServerFull,
    /// The pool is being drained, and gives up its share.
    Draining,
    /// A pooler answers in place of the server. There is no budget, and the pool uses all of `max_size`.
    Off,
}

impl FleetState {
    /// The name, which never changes: `joining`, `sharing`, `blind`, `server_full`, `draining`, `off`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Sharing => "sharing",
            Self::Blind => "blind",
            Self::ServerFull => "server_full",
            Self::Draining => "draining",
            Self::Off => "off",
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 6] =
        [Self::Joining, Self::Sharing, Self::Blind, Self::ServerFull, Self::Draining, Self::Off];
}
