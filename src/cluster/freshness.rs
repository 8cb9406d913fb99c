//! What a read asks of the server that serves it: how old its data may be, and what it has to show.

use std::time::{Duration, Instant};

use crate::policy::{Need, Position};

/// How old the data may be that a read sees: [`ClusterCall::read`](crate::ClusterCall::read).
///
/// The bound holds at the moment at which the read gets its connection. It rests on this process's own clock and on
/// places in the write-ahead log, so no clock of a server matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// A replica that shows everything that was committed longer ago than this. Below twice the interval of
    /// [`look_every`](crate::ClusterBuilder::look_every), replicas qualify only for a part of the time.
    Within(Duration),
    /// Any replica that answers, and is not known to be more than [`max_lag`](crate::ClusterBuilder::max_lag) behind what the primary last
    /// answered: 30 s unless the owner has set another bound. Also
    /// served while there is no primary.
    Any,
}

/// What a read has to see: [`ClusterCall::after`](crate::ClusterCall::after) takes a [`Position`] or an [`Instant`].
#[derive(Debug, Clone, Copy)]
pub struct After(pub(super) Need);

impl From<&Position> for After {
    fn from(position: &Position) -> Self {
        Self(Need::Position(*position))
    }
}

impl From<Position> for After {
    fn from(position: Position) -> Self {
        Self(Need::Position(position))
    }
}

/// Everything that was committed before this instant, by whichever process.
impl From<Instant> for After {
    fn from(instant: Instant) -> Self {
        Self(Need::Since(instant))
    }
}

impl From<tokio::time::Instant> for After {
    fn from(instant: tokio::time::Instant) -> Self {
        Self(Need::Since(instant.into_std()))
    }
}

impl From<Freshness> for Need {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Within(bound) => Self::Within(bound),
            Freshness::Any => Self::Any,
        }
    }
}
