//! The metrics of a cluster: who is the primary, how far the replicas are behind, and where reads went.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge};

use super::handles::{Given, Source};
use super::operations::Operations;
use crate::error::ErrorKind;
use crate::event::{Event, EventKind};
use crate::metrics::{
    CLUSTER_CHANGES, CLUSTER_METRICS, CLUSTER_PRIMARIES, CLUSTER_PRIMARY, CLUSTER_READS, CLUSTER_REFUSED,
    CLUSTER_SILENT, EVENT, EVENTS, FIT_REPLICAS, HOST, REASON, REPLICA_LAG, ROUTE, SEVERITY,
};
use crate::telemetry::{Fault, Observer, REFUSED, ReadRoute};

/// A clone counts into the same series.
#[derive(Clone)]
pub(crate) struct ClusterMeter(Arc<Inner>);

struct Inner {
    source: Source,
    handles: OnceLock<Handles>,
    operations: Operations,
}

/// The handles without a host. They are made at the first look, so that counters stand at 0 before the first change.
struct Handles {
    reads: [Counter; 3],
    refused: [Counter; REFUSED.len()],
    changes: Counter,
    primaries: Gauge,
    fit: Gauge,
}

impl ClusterMeter {
    pub(crate) fn new(cluster: Arc<str>, given: Given) -> Self {
        let (source, handles) = (Source::new(cluster, given), OnceLock::new());
        Self(Arc::new(Inner { source, handles, operations: Operations::default() }))
    }

    /// A host was asked. `lag` is infinite if it cannot be bounded.
    pub(crate) fn look_at(
        &self,
        host: &Arc<str>,
        is_primary: bool,
        is_silent: bool,
        is_replica: bool,
        lag: Option<Duration>,
    ) {
        let source = &self.0.source;
        if !source.is_there() {
            return;
        }
        let gauge = |metric| source.gauge(metric, [(HOST, Arc::clone(host).into())]);
        gauge(&CLUSTER_PRIMARY).set(if is_primary { 1.0 } else { 0.0 });
        gauge(&CLUSTER_SILENT).set(if is_silent { 1.0 } else { 0.0 });
        let lag = lag.map_or(f64::INFINITY, |lag| lag.as_secs_f64());
        gauge(&REPLICA_LAG).set(if is_replica { lag } else { 0.0 });
    }

    /// What is known of all hosts: how many of them are a primary, and how many replicas may serve reads with a bound.
    pub(crate) fn look(&self, primaries: usize, fit_replicas: usize) {
        let Some(handles) = self.handles() else { return };
        handles.primaries.set(primaries as f64);
        handles.fit.set(fit_replicas as f64);
    }

    pub(crate) fn read(&self, route: ReadRoute) {
        if let Some(handles) = self.handles() {
            handles.reads[route as usize].increment(1);
        }
    }

    /// A call was refused before a pool was asked.
    pub(crate) fn refused(&self, kind: ErrorKind) {
        let Some(index) = REFUSED.iter().position(|refused| *refused == kind) else { return };
        if let Some(handles) = self.handles() {
            handles.refused[index].increment(1);
        }
    }

    /// A fallback has answered a call, because of `fault`. The pools of the hosts have counted the attempts.
    pub(crate) fn fell_back(&self, name: Option<&'static str>, fault: Fault) {
        if self.0.source.is_there() {
            self.0.operations.count_fallback(&self.0.source, name, fault);
        }
    }

    /// The hosts are asked no more. A series that nobody writes would keep its last value: nothing is known of a
    /// primary or of replicas, and a host is neither the primary, silent nor behind.
    pub(crate) fn on_end<'a>(&self, hosts: impl Iterator<Item = &'a Arc<str>>) {
        let Some(handles) = self.handles() else { return };
        hosts.for_each(|host| self.look_at(host, false, false, false, None));
        handles.primaries.set(f64::NAN);
        handles.fit.set(f64::NAN);
    }

    /// Counts the cluster's own events. Those of its pools are counted by the pools.
    #[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(self.clone()))
    }

    /// `None` without a recorder.
    fn handles(&self) -> Option<&Handles> {
        let Inner { source, handles, .. } = &*self.0;
        if !source.is_there() {
            return None;
        }
        Some(handles.get_or_init(|| {
            source.describe(CLUSTER_METRICS);
            let read = |route: ReadRoute| source.counter(&CLUSTER_READS, [(ROUTE, route.as_str().into())]);
            Handles {
                reads: ReadRoute::ALL.map(read),
                refused: REFUSED.map(|kind| source.counter(&CLUSTER_REFUSED, [(REASON, kind.as_str().into())])),
                changes: source.counter(&CLUSTER_CHANGES, []),
                primaries: source.gauge(&CLUSTER_PRIMARIES, []),
                fit: source.gauge(&FIT_REPLICAS, []),
            }
        }))
    }
}

impl Observer for ClusterMeter {
    fn on_event(&self, event: &Event) {
        let Some(handles) = self.handles() else { return };
        let labels = [(EVENT, event.kind.as_str().into()), (SEVERITY, event.severity().as_str().into())];
        self.0.source.counter(&EVENTS, labels).increment(1);
        if let EventKind::PrimaryChanged { .. } = event.kind {
            handles.changes.increment(1);
        }
    }
}

impl fmt::Debug for ClusterMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterMeter").finish_non_exhaustive()
    }
}
