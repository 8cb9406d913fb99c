//! What a read needs of the server that serves it: how old its data may be, and which writes it has to show.

use std::time::{Duration, Instant};

use crate::policy::{Need, Position};

/// How old the data of a read may be, for [`ClusterCall::read`](crate::ClusterCall::read).
///
/// The bound holds when the read gets its connection. The cluster measures it by the clock of this process and by
/// places in the write-ahead log. No clock of a server matters.
///
/// Reads are not monotonic: the next one may go to another replica and show an older state within the bound. Pass the
/// end of the last read to [`ClusterCall::after`](crate::ClusterCall::after) to prevent that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// A replica that shows everything committed longer ago than this.
    ///
    /// Use at least twice the interval of [`look_every`](crate::ClusterBuilder::look_every): at least 2 s by default.
    /// With less, replicas qualify only for a part of the time. While no primary answers, the bound of every replica
    /// grows, and these reads end.
    Within(Duration),
    /// Any replica that answers, and is not known to be more than [`max_lag`](crate::ClusterBuilder::max_lag), 30 s by
    /// default, behind the primary's last answer.
    ///
    /// Replicas go on serving these reads while no primary answers, however old their data becomes.
    Any,
}

/// What a read has to see, for [`ClusterCall::after`](crate::ClusterCall::after): made of a [`Position`] or an
/// [`Instant`].
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

/// Everything committed before this instant, by any process.
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
