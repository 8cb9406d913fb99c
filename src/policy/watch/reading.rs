//! What a detector reads of the pool: connections in use, callers, and how many were refused.

use crate::policy::refusals::Refused;

/// One look at the pool. To be taken every 250 ms, or thereabouts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) in_use: usize,
    pub(crate) limit: usize,
    pub(crate) waiting: usize,
    /// All who asked for a connection, whatever became of them, since the pool began.
    pub(crate) arrivals: u64,
    /// Since the pool began.
    pub(crate) refused: Refused,
}

impl Reading {
    pub(super) fn utilization(&self) -> f64 {
        self.in_use as f64 / self.limit.max(1) as f64
    }
}
