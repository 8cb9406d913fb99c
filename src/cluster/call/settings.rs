//! The settings of one call on a cluster.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Until;
use crate::cluster::core::Core;
use crate::conn::TransactionOptions;
use crate::policy::{Lane, Need, Shedding};

/// What the caller has set, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClusterCallOptions<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) taken: &'static Location<'static>,
    /// `None`: the primary.
    pub(super) need: Option<Need>,
    pub(super) across_failover: bool,
    /// How long the call may wait for a connection, if it has no deadline. `None`: as the pools say.
    pub(super) wait: Option<Duration>,
    pub(super) until: Option<Until>,
    pub(super) timeout: Option<Duration>,
    pub(super) operation: Option<&'static str>,
    pub(super) lane: Option<Lane>,
    pub(super) is_uncached: bool,
    pub(super) is_idempotent: bool,
    pub(super) options: Option<TransactionOptions>,
    pub(super) shedding: Option<Shedding>,
}

impl<'a> ClusterCallOptions<'a> {
    pub(super) fn new(core: &'a Arc<Core>, taken: &'static Location<'static>) -> Self {
        Self {
            core,
            taken,
            need: None,
            across_failover: false,
            wait: None,
            until: None,
            timeout: None,
            operation: None,
            lane: None,
            is_uncached: false,
            is_idempotent: false,
            options: None,
            shedding: None,
        }
    }
}
