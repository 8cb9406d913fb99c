//! An order of the owner to a cluster, with a reason.

use std::panic::Location;
use std::sync::Arc;

use super::core::Core;

/// An order to a [`Cluster`](crate::Cluster), with a reason. [`Cluster::because`](crate::Cluster::because) returns it.
#[derive(Debug)]
#[must_use = "a reason alone does nothing"]
pub struct ClusterOrder<'a> {
    core: &'a Core,
    reason: Option<Arc<str>>,
}

impl<'a> ClusterOrder<'a> {
    pub(super) fn new(core: &'a Core, reason: Option<Arc<str>>) -> Self {
        Self { core, reason }
    }

    /// As [`Cluster::forget_timeline`](crate::Cluster::forget_timeline).
    #[track_caller]
    pub fn forget_timeline(self) {
        self.core.forget_timeline(Location::caller(), self.reason);
    }
}
