//! The input of the detectors: connections in use, callers, refusals, and leases that have ended.

use std::time::Duration;

use crate::operation::Operation;
use crate::policy::Lane;
use crate::policy::refusals::{RefusalCounts, ShedReason};

/// One look at the pool. The maintenance takes one about every 250 ms.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) in_use: usize,
    pub(crate) limit: usize,
    pub(crate) waiting: usize,
    /// Callers that asked for a connection since the pool began, served or not.
    pub(crate) arrivals: u64,
    /// Refusals since the pool began.
    pub(crate) refused: RefusalCounts,
}

/// A lease that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedLease {
    pub(crate) operation: Operation,
    pub(crate) lane: Lane,
    pub(crate) lasted: Duration,
    /// A call on its connection was abandoned, mostly because its time was up. The lease would have lasted longer.
    #[cfg_attr(not(feature = "fleet"), allow(dead_code, reason = "only a limit that follows the database reads it"))]
    pub(crate) is_cut: bool,
}

impl Reading {
    /// Returns the calls since the pool began: callers that asked for a connection, and those that the open circuit or
    /// a rate refused before they could.
    pub(super) fn calls(&self) -> u64 {
        self.arrivals + self.refused.rejected + self.refused[ShedReason::RateLimited]
    }

    pub(super) fn utilization(&self) -> f64 {
        self.in_use as f64 / self.limit.max(1) as f64
    }
}
