//! The metrics of a cluster: who is the primary, how far the replicas are behind, and where reads went.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::Counter;

use super::handles::{Given, Source};
use crate::metrics::{CLUSTER_PRIMARY, CLUSTER_READS, HOST, REPLICA_LAG, ROUTE};
use crate::telemetry::ReadRoute;

pub(crate) struct ClusterMeter {
    source: Source,
    reads: OnceLock<[Counter; 3]>,
}

impl ClusterMeter {
    pub(crate) fn new(cluster: Arc<str>, given: Given) -> Self {
        Self { source: Source::new(cluster, given), reads: OnceLock::new() }
    }

    /// A host was asked. `lag` is infinite if it cannot be bounded.
    pub(crate) fn look(&self, host: &Arc<str>, is_primary: bool, is_replica: bool, lag: Option<Duration>) {
        if !self.source.is_there() {
            return;
        }
        let gauge = |metric| self.source.gauge(metric, [(HOST, Arc::clone(host).into())]);
        gauge(&CLUSTER_PRIMARY).set(if is_primary { 1.0 } else { 0.0 });
        let lag = lag.map_or(f64::INFINITY, |lag| lag.as_secs_f64());
        gauge(&REPLICA_LAG).set(if is_replica { lag } else { 0.0 });
    }

    pub(crate) fn read(&self, route: ReadRoute) {
        if !self.source.is_there() {
            return;
        }
        let counter = |route: ReadRoute| self.source.counter(&CLUSTER_READS, [(ROUTE, route.as_str().into())]);
        self.reads.get_or_init(|| ReadRoute::ALL.map(counter))[route as usize].increment(1);
    }
}

impl fmt::Debug for ClusterMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterMeter").finish_non_exhaustive()
    }
}
