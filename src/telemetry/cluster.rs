//! Where the reads of a cluster went, and why calls were refused before a pool was asked.

use crate::error::ErrorKind;

/// The errors of calls that were refused before a pool was asked.
pub(crate) const REFUSED: [ErrorKind; 4] =
    [ErrorKind::NoPrimary, ErrorKind::TwoPrimaries, ErrorKind::TwoSystems, ErrorKind::NoFreshReplica];

/// Who serves a read that need not see the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadRoute {
    Replica,
    /// No replica could, and the spill budget allowed it.
    Primary,
    Refused,
}

impl ReadRoute {
    #[cfg(feature = "metrics")]
    pub(super) const ALL: [Self; 3] = [Self::Replica, Self::Primary, Self::Refused];

    #[cfg(feature = "metrics")]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Primary => "primary",
            Self::Refused => "refused",
        }
    }
}
