//! How long an operation usually holds a connection, for an admin page.

use std::time::Duration;

use crate::operation::Operation;

/// How long an operation usually holds a connection, as the pool has learned it from a sample of its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Baseline {
    /// The operation.
    pub operation: Operation,
    /// The mean lease duration. Leases of the last hour count most.
    pub mean: Duration,
    /// How many leases of the sample the mean is of.
    pub leases: u64,
    /// A lease that lasts longer than this counts as slow. `None` while too little is known.
    pub slow_after: Option<Duration>,
    /// The mean lease duration now, while the operation is much slower than usual:
    /// [`LeasesInflated`](crate::EventKind::LeasesInflated).
    pub inflated_to: Option<Duration>,
}
