//! Records a pool's metrics with the recorder of the `metrics` crate. Feature `metrics`; without it, `unmetered`
//! replaces this module.
//!
//! Each pool makes its handles once, when there is a recorder: a handle that was made before would be silent for ever.
//! Until then nothing is measured. The background task records counts and gauges once a round ([`Meter::look`]).
//! Callers record only durations of their own: of operations, waits and leases.
//!
//! A recorder is foreign code, so it is never called under a lock.

#[cfg(feature = "fleet")]
mod adaptive;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "fleet")]
mod fleet;
mod handles;
mod operations;

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics::Gauge;
use parking_lot::Mutex;

#[cfg(feature = "fleet")]
use self::adaptive::AdaptiveHandles;
#[cfg(feature = "cluster")]
pub(crate) use self::cluster::ClusterMeter;
#[cfg(feature = "fleet")]
use self::fleet::FleetHandles;
pub(crate) use self::handles::Given;
use self::handles::{Handles, Source};
use self::operations::Operations;
use super::{Fault, Observer};
use crate::clock::now;
use crate::event::{Event, EventKind};
use crate::metrics::{
    BREAKER_TRANSITIONS, EVENT, EVENTS, FROM, HOLD_INFLATION, OPERATION, REASON, RETRIES, SEVERITY, TO,
};
use crate::operation::Operation;
use crate::policy::{RefusalCounts, Transition};
use crate::status::Status;

/// The number of operations that have a series of inflated lease durations.
const MOST_INFLATED: usize = 64;

/// When something began. `None` if nothing is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stamp(Option<Instant>);

/// Records the metrics of one pool. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Inner>);

struct Inner {
    source: Source,
    min_idle: usize,
    handles: OnceLock<Handles>,
    operations: Operations,
    /// Made if the pool is a member of a fleet.
    #[cfg(feature = "fleet")]
    fleet: OnceLock<FleetHandles>,
    /// Made if the limit follows the database.
    #[cfg(feature = "fleet")]
    adaptive: OnceLock<AdaptiveHandles>,
    /// The counts at the last record: refused callers, and callers that found a connection idle.
    counted: Mutex<(RefusalCounts, u64)>,
    inflated: Mutex<HashMap<Operation, Gauge>>,
}

impl Meter {
    pub(crate) fn new(pool: Arc<str>, min_idle: usize, given: Given) -> Self {
        let meter = Self(Arc::new(Inner {
            source: Source::new(pool, given),
            min_idle,
            handles: OnceLock::new(),
            operations: Operations::default(),
            #[cfg(feature = "fleet")]
            fleet: OnceLock::new(),
            #[cfg(feature = "fleet")]
            adaptive: OnceLock::new(),
            counted: Mutex::default(),
            inflated: Mutex::default(),
        }));
        meter.find_recorder();
        meter
    }

    #[inline]
    fn handles(&self) -> Option<&Handles> {
        self.0.handles.get()
    }

    /// Makes the handles if a recorder was installed since the last time.
    fn find_recorder(&self) -> Option<&Handles> {
        let Inner { source, handles, .. } = &*self.0;
        if handles.get().is_none() && source.is_there() {
            let _ = handles.set(Handles::new(source));
        }
        handles.get()
    }

    /// Returns whether there is a recorder.
    pub(crate) fn is_recorded(&self) -> bool {
        self.handles().is_some()
    }

    /// Something begins now.
    #[inline]
    pub(crate) fn start(&self) -> Stamp {
        Stamp(self.handles().map(|_| now()))
    }

    /// A caller got a connection after a wait.
    pub(crate) fn waited(&self, wait: impl FnOnce() -> Duration) {
        if let Some(handles) = self.handles() {
            handles.wait_time.record(wait());
        }
    }

    /// A caller has given its connection back.
    #[inline]
    pub(crate) fn used(&self, since: Stamp) {
        if let Some(since) = since.0 {
            self.record_use(since);
        }
    }

    fn record_use(&self, since: Instant) {
        let Some(handles) = self.handles() else { return };
        // If the recorder panics, the panic hook reports it, and the connection is returned all the same.
        let _ = catch_unwind(AssertUnwindSafe(|| handles.use_time.record(now().saturating_duration_since(since))));
    }

    pub(crate) fn connected(&self, took: Duration) {
        if let Some(handles) = self.handles() {
            handles.create_time.record(took);
        }
    }

    pub(crate) fn connect_failed(&self) {
        if let Some(handles) = self.handles() {
            handles.connect_failures.increment(1);
        }
    }

    pub(crate) fn lost(&self) {
        if let Some(handles) = self.handles() {
            handles.connections_lost.increment(1);
        }
    }

    pub(crate) fn settle_failed(&self) {
        if let Some(handles) = self.handles() {
            handles.settle_failures.increment(1);
        }
    }

    /// An operation has ended. `fault` is its error, if it failed.
    pub(crate) fn operated(&self, name: Option<&'static str>, took: Duration, fault: Option<Fault>) {
        if self.handles().is_some() {
            self.0.operations.record(&self.0.source, name, fault, took);
        }
    }

    /// An operation that began at `since` has ended.
    pub(crate) fn operated_since(&self, since: Stamp, name: Option<&'static str>, fault: Option<Fault>) {
        if let Some(since) = since.0 {
            self.operated(name, now().saturating_duration_since(since), fault);
        }
    }

    /// A fallback has answered an operation that began at `since`. `fault` is why the database gave no answer.
    pub(crate) fn fell_back(&self, since: Stamp, name: Option<&'static str>, fault: Fault) {
        self.operated_since(since, name, None);
        if self.handles().is_some() {
            self.0.operations.count_fallback(&self.0.source, name, fault);
        }
    }

    /// A call runs again.
    pub(crate) fn retried(&self, reason: &str) {
        if self.handles().is_some() {
            self.0.source.counter(&RETRIES, [(REASON, reason.to_owned().into())]).increment(1);
        }
    }

    /// A call that was safe to retry is not retried.
    pub(crate) fn gave_up(&self) {
        if let Some(handles) = self.handles() {
            handles.retry_exhausted.increment(1);
        }
    }

    /// The circuit has changed its state. `is_open`: the pool is not closed, so the gauges show the new state.
    pub(crate) fn follow(&self, transition: &Transition, is_open: bool) {
        let Some(handles) = self.handles() else { return };
        let labels = [(FROM, transition.from.as_str().into()), (TO, transition.to.as_str().into())];
        self.0.source.counter(&BREAKER_TRANSITIONS, labels).increment(1);
        if is_open {
            handles.show_state(Some(transition.to));
        }
    }

    /// Records the pool's status once a round. `counted` returns the callers that were refused since the pool began,
    /// and those that found a connection idle.
    pub(crate) fn look(&self, status: &Status, counted: impl FnOnce() -> (RefusalCounts, u64)) {
        let was_there = self.handles().is_some();
        let Some(handles) = self.find_recorder() else { return };
        handles.look(&self.0.source, status, self.0.min_idle);
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &status.fleet {
            self.0.fleet.get_or_init(|| FleetHandles::new(&self.0.source)).look(fleet);
        }
        #[cfg(feature = "fleet")]
        if let Some(adaptive) = &status.adaptive {
            self.0.adaptive.get_or_init(|| AdaptiveHandles::new(&self.0.source)).look(adaptive);
        }
        self.count(handles, was_there, counted);
    }

    /// Takes the counts under the lock. Otherwise a thread that took them earlier could store them later, and the
    /// difference would be recorded twice.
    fn count(&self, handles: &Handles, was_there: bool, counted: impl FnOnce() -> (RefusalCounts, u64)) {
        let ((before, at_once_before), (refused, at_once)) = {
            let mut before = self.0.counted.lock();
            let counted = counted();
            (mem::replace(&mut *before, counted), counted)
        };
        // Refusals from before the recorder are recorded. Waits of zero are not: there may be millions.
        let at_once = if was_there { at_once.saturating_sub(at_once_before) } else { 0 };
        handles.count(refused - before, at_once);
    }

    /// The pool has ended: the gauges become 0, and what was counted since the last round is recorded.
    pub(crate) fn end(&self, counted: Option<impl FnOnce() -> (RefusalCounts, u64)>) {
        if let Some(handles) = self.handles() {
            if let Some(counted) = counted {
                self.count(handles, true, counted);
            }
            handles.end();
        }
        #[cfg(feature = "fleet")]
        if let Some(fleet) = self.0.fleet.get() {
            fleet.end();
        }
        #[cfg(feature = "fleet")]
        if let Some(adaptive) = self.0.adaptive.get() {
            adaptive.end();
        }
        let inflated = mem::take(&mut *self.0.inflated.lock());
        inflated.values().for_each(|gauge| gauge.set(0.0));
    }

    /// Counts events, and records inflated lease durations and unusual traffic.
    #[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(self.clone()))
    }

    /// The gauge of an operation; `None` if there are too many already.
    fn inflation(&self, operation: Operation) -> Option<Gauge> {
        let (known, count) = {
            let inflated = self.0.inflated.lock();
            (inflated.get(&operation).cloned(), inflated.len())
        };
        if known.is_some() || count >= MOST_INFLATED {
            return known;
        }
        let gauge = self.0.source.gauge(&HOLD_INFLATION, [(OPERATION, operation.to_string().into())]);
        Some(self.0.inflated.lock().entry(operation).or_insert(gauge).clone())
    }
}

impl Observer for Meter {
    fn on_event(&self, event: &Event) {
        let Some(handles) = self.handles() else { return };
        let labels = [(EVENT, event.kind.as_str().into()), (SEVERITY, event.severity().as_str().into())];
        self.0.source.counter(&EVENTS, labels).increment(1);
        let (operation, ratio) = match event.kind {
            EventKind::LeasesInflated { operation, from, to, .. } => (operation, to.as_secs_f64() / from.as_secs_f64()),
            EventKind::LeasesNormal { operation, .. } => (operation, 0.0),
            EventKind::TrafficAnomaly { calls_per_minute, usual, .. } => {
                return handles.traffic.set(calls_per_minute as f64 / usual.max(1) as f64);
            }
            EventKind::TrafficNormal { .. } => return handles.traffic.set(0.0),
            _ => return,
        };
        if let Some(gauge) = self.inflation(operation) {
            gauge.set(ratio);
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("is_recorded", &self.handles().is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
