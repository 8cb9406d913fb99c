//! The handles of a pool's series. They are made once, because making one takes long.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, Label, Recorder, SharedString};

use crate::metrics::{self as ours, METADATA, METRICS, Metric, POOL, is_recorded};
use crate::policy::{Lane, PerLane, PerReason, RefusalCounts, ShedReason, State};
use crate::status::{LaneStatus, Status};

/// The pool's own recorder, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Given(Option<Arc<dyn Recorder + Send + Sync>>);

impl Given {
    pub(crate) fn new(recorder: impl Recorder + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(recorder)))
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a recorder" } else { "the global recorder" })
    }
}

/// Makes handles, with the pool's own recorder or with that of the process.
pub(super) struct Source {
    pool: Arc<str>,
    given: Given,
}

impl Source {
    pub(super) fn new(pool: Arc<str>, given: Given) -> Self {
        Self { pool, given }
    }

    /// Returns whether there is a recorder.
    pub(super) fn is_there(&self) -> bool {
        self.given.0.is_some() || is_recorded()
    }

    pub(super) fn counter(
        &self,
        metric: &Metric,
        labels: impl IntoIterator<Item = (&'static str, SharedString)>,
    ) -> Counter {
        let key = self.key(metric, labels);
        self.with(|recorder| recorder.register_counter(&key, &METADATA))
    }

    pub(super) fn gauge<const N: usize>(&self, metric: &Metric, labels: [(&'static str, SharedString); N]) -> Gauge {
        let key = self.key(metric, labels);
        self.with(|recorder| recorder.register_gauge(&key, &METADATA))
    }

    pub(super) fn histogram(
        &self,
        metric: &Metric,
        labels: impl IntoIterator<Item = (&'static str, SharedString)>,
    ) -> Histogram {
        let key = self.key(metric, labels);
        self.with(|recorder| recorder.register_histogram(&key, &METADATA))
    }

    fn key(&self, metric: &Metric, labels: impl IntoIterator<Item = (&'static str, SharedString)>) -> Key {
        let pool = Label::new(POOL, Arc::clone(&self.pool));
        let labels = labels.into_iter().map(|(label, value)| Label::new(label, value));
        Key::from_parts(metric.name, [pool].into_iter().chain(labels).collect::<Vec<_>>())
    }

    pub(super) fn describe(&self, metrics: &[Metric]) {
        self.with(|recorder| metrics.iter().for_each(|metric| metric.describe(recorder)));
    }

    fn with<T>(&self, work: impl FnOnce(&dyn Recorder) -> T) -> T {
        match &self.given.0 {
            Some(recorder) => work(recorder),
            None => metrics::with_recorder(work),
        }
    }
}

/// The handles that need no label of their own, or whose labels are known in advance.
pub(super) struct Handles {
    pub(super) create_time: Histogram,
    pub(super) wait_time: Histogram,
    pub(super) use_time: Histogram,
    pub(super) connect_failures: Counter,
    pub(super) connections_lost: Counter,
    pub(super) settle_failures: Counter,
    pub(super) retry_exhausted: Counter,
    /// The gauges of idle, used, settling, dialing and closing connections.
    connections: [Gauge; 5],
    max: Gauge,
    idle_min: Gauge,
    idle_max: Gauge,
    pending: Gauge,
    utilization: Gauge,
    demand: Gauge,
    predicted_wait: Gauge,
    time_to_exhaustion: Gauge,
    background_share: Gauge,
    pub(super) traffic: Gauge,
    breaker: [(State, Gauge); 7],
    timeouts: Counter,
    rejected: Counter,
    /// The counters of each [`ShedReason`], in the order of `ShedReason::ALL`.
    shed: PerReason<Counter>,
    /// Made when the pool begins to use lanes.
    lanes: OnceLock<PerLane<LaneHandles>>,
}

/// The handles of one lane.
struct LaneHandles {
    connections: Gauge,
    max: Gauge,
    pending: Gauge,
    refused: Counter,
    /// What `refused` has counted.
    counted: AtomicU64,
}

impl LaneHandles {
    fn new(source: &Source, lane: Lane) -> Self {
        let gauge = |metric| source.gauge(metric, [(ours::LANE, lane.as_str().into())]);
        Self {
            connections: gauge(&ours::LANE_CONNECTIONS),
            max: gauge(&ours::LANE_MAX),
            pending: gauge(&ours::LANE_PENDING),
            refused: source.counter(&ours::LANE_REFUSED, [(ours::LANE, lane.as_str().into())]),
            counted: AtomicU64::new(0),
        }
    }

    fn look(&self, status: &LaneStatus) {
        self.connections.set(status.in_use as f64);
        self.max.set(status.at_most as f64);
        self.pending.set(status.waiting as f64);
        let before = self.counted.fetch_max(status.refused, Relaxed);
        self.refused.increment(status.refused.saturating_sub(before));
    }
}

impl Handles {
    pub(super) fn new(source: &Source) -> Self {
        source.describe(METRICS);
        // These series begin at 0. Otherwise Prometheus would not see the first change as an increase.
        for (from, to) in State::USUAL_CHANGES {
            let labels = [(ours::FROM, from.as_str().into()), (ours::TO, to.as_str().into())];
            source.counter(&ours::BREAKER_TRANSITIONS, labels).increment(0);
        }
        let gauge = |metric| source.gauge(metric, []);
        let counter = |metric| source.counter(metric, []);
        let histogram = |metric| source.histogram(metric, []);
        let connections =
            |state: &'static str| source.gauge(&ours::CONNECTIONS, [(ours::CONNECTION_STATE, state.into())]);
        let breaker =
            |state: State| (state, source.gauge(&ours::BREAKER_STATE, [(ours::STATE, state.as_str().into())]));
        Self {
            create_time: histogram(&ours::CREATE_TIME),
            wait_time: histogram(&ours::WAIT_TIME),
            use_time: histogram(&ours::USE_TIME),
            connect_failures: counter(&ours::CONNECT_FAILURES),
            connections_lost: counter(&ours::CONNECTIONS_LOST),
            settle_failures: counter(&ours::SETTLE_FAILURES),
            retry_exhausted: counter(&ours::RETRY_EXHAUSTED),
            connections: ["idle", "used", "settling", "dialing", "closing"].map(connections),
            max: gauge(&ours::MAX),
            idle_min: gauge(&ours::IDLE_MIN),
            idle_max: gauge(&ours::IDLE_MAX),
            pending: gauge(&ours::PENDING),
            utilization: gauge(&ours::UTILIZATION),
            demand: gauge(&ours::DEMAND),
            predicted_wait: gauge(&ours::PREDICTED_WAIT),
            time_to_exhaustion: gauge(&ours::TIME_TO_EXHAUSTION),
            background_share: gauge(&ours::BACKGROUND_SHARE),
            traffic: gauge(&ours::TRAFFIC),
            breaker: State::ALL.map(breaker),
            timeouts: counter(&ours::TIMEOUTS),
            rejected: counter(&ours::BREAKER_REJECTED),
            shed: ShedReason::ALL.map(|reason| source.counter(&ours::SHED, [(ours::REASON, reason.as_str().into())])),
            lanes: OnceLock::new(),
        }
    }

    pub(super) fn look(&self, source: &Source, status: &Status, min_idle: usize) {
        let counts = [status.idle, status.in_use, status.settling, status.dialing, status.closing];
        for (gauge, count) in self.connections.iter().zip(counts) {
            gauge.set(count as f64);
        }
        self.max.set(status.max_size as f64);
        self.idle_min.set(min_idle as f64);
        self.idle_max.set(status.max_size as f64);
        self.pending.set(status.waiting as f64);
        self.utilization.set(status.utilization());
        self.demand.set(status.demand.unwrap_or(0.0));
        self.predicted_wait.set(status.predicted_wait.unwrap_or_default().as_secs_f64());
        self.time_to_exhaustion.set(status.time_to_exhaustion.map_or(f64::INFINITY, |left| left.as_secs_f64()));
        self.background_share.set(status.background_share);
        self.show_state(Some(status.breaker));
        if let Some(lanes) = &status.lanes {
            let handles = self.lanes.get_or_init(|| Lane::ALL.map(|lane| LaneHandles::new(source, lane)));
            handles.iter().zip(lanes).for_each(|(handles, lane)| handles.look(lane));
        }
    }

    /// Shows the state of the circuit breaker; `None` after the pool has ended.
    pub(super) fn show_state(&self, now: Option<State>) {
        for (state, gauge) in &self.breaker {
            gauge.set(if Some(*state) == now { 1.0 } else { 0.0 });
        }
    }

    /// Adds the callers that were refused since the last time, and a wait of zero for each that found a connection
    /// idle.
    pub(super) fn count(&self, refused: RefusalCounts, at_once: u64) {
        self.timeouts.increment(refused.timed_out);
        self.rejected.increment(refused.rejected);
        for (counter, reason) in self.shed.iter().zip(ShedReason::ALL) {
            counter.increment(refused[reason]);
        }
        self.wait_time.record_many(0.0, usize::try_from(at_once).unwrap_or(usize::MAX));
    }

    pub(super) fn end(&self) {
        let now = [&self.max, &self.idle_min, &self.idle_max, &self.pending, &self.utilization, &self.demand];
        for gauge in self.connections.iter().chain(now).chain([&self.predicted_wait, &self.traffic]) {
            gauge.set(0.0);
        }
        for LaneHandles { connections, max, pending, .. } in self.lanes.get().into_iter().flatten() {
            [connections, max, pending].into_iter().for_each(|gauge| gauge.set(0.0));
        }
        self.background_share.set(1.0);
        self.time_to_exhaustion.set(f64::INFINITY);
        self.show_state(None);
    }
}
