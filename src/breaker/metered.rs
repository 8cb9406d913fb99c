//! The metrics of a breaker that has a name. Feature `metrics`.
//!
//! The breaker makes its handles once, when the process has a recorder; an earlier handle would stay silent for ever. A
//! recorder is foreign code, so it is called like a hook: without a lock.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, Label, Recorder, with_recorder};

use parking_lot::Mutex;

use super::hooks::{CallEvent, CallOutcome, Hooks};
use crate::metrics::{
    BREAKER, BREAKER_METRICS, CALL_DURATION, CALLS_REFUSED, CIRCUIT_STATE, CIRCUIT_TRANSITIONS, FROM, METADATA, Metric,
    OUTCOME, REASON, STATE, TO, is_recorded,
};
use crate::policy::{State, Transition};

/// Adds the hooks that record, if the breaker has a name.
pub(super) fn add_to(mut hooks: Hooks, name: Option<&Arc<str>>) -> Hooks {
    if let Some(name) = name {
        let meter = Arc::new(Meter { name: Arc::clone(name), handles: OnceLock::new(), latest: Mutex::default() });
        meter.handles();
        let of_calls = Arc::clone(&meter);
        hooks.on_call(move |event| of_calls.call(event));
        hooks.on_transition(move |transition| meter.change(transition));
    }
    hooks
}

struct Meter {
    name: Arc<str>,
    handles: OnceLock<Handles>,
    /// The number of the latest change of state, and the state.
    latest: Mutex<(u64, State)>,
}

impl Meter {
    /// Returns `None` while the process has no recorder.
    fn handles(&self) -> Option<&Handles> {
        if self.handles.get().is_none() && is_recorded() {
            let is_new = self.handles.set(Handles::new(&self.name)).is_ok();
            if is_new {
                self.show_state();
            }
        }
        self.handles.get()
    }

    fn call(&self, event: &CallEvent<'_>) {
        let Some(handles) = self.handles() else { return };
        match event.outcome {
            CallOutcome::Success => handles.successes.record(event.took),
            CallOutcome::Failure => handles.failures.record(event.took),
            CallOutcome::Timeout => handles.timeouts.record(event.took),
            CallOutcome::Ignored => handles.ignored.record(event.took),
            CallOutcome::Rejected => handles.rejected.increment(1),
            CallOutcome::Busy => handles.busy.increment(1),
        }
    }

    fn change(&self, transition: &Transition) {
        let latest = (transition.number, transition.to);
        self.latest(|known| {
            if known.0 < latest.0 {
                *known = latest
            }
        });
        if self.handles().is_some() {
            changes(&self.name, transition.from, transition.to).increment(1);
            self.show_state();
        }
    }

    /// Sets the gauges to the latest state. Two threads may change the state at almost the same time, so this repeats
    /// until no change has come in between.
    fn show_state(&self) {
        let Some(handles) = self.handles.get() else { return };
        loop {
            let latest = self.latest(|latest| *latest);
            for (state, gauge) in &handles.states {
                gauge.set(if *state == latest.1 { 1.0 } else { 0.0 });
            }
            if latest == self.latest(|latest| *latest) {
                return;
            }
        }
    }

    fn latest<R>(&self, look: impl FnOnce(&mut (u64, State)) -> R) -> R {
        look(&mut self.latest.lock())
    }
}

struct Handles {
    successes: Histogram,
    failures: Histogram,
    timeouts: Histogram,
    ignored: Histogram,
    rejected: Counter,
    busy: Counter,
    states: [(State, Gauge); 7],
}

impl Handles {
    fn new(name: &Arc<str>) -> Self {
        with_recorder(|recorder| BREAKER_METRICS.iter().for_each(|metric| metric.describe(recorder)));
        // The counters begin at 0, so that the first change is an increase.
        for (from, to) in State::USUAL_CHANGES {
            changes(name, from, to).increment(0);
        }
        let with = |metric, label, value: &'static str| key(name, metric, [(label, value)]);
        let duration = |outcome: CallOutcome| {
            let key = with(&CALL_DURATION, OUTCOME, outcome.as_str());
            with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
        };
        let refused = |outcome: CallOutcome| counter(&with(&CALLS_REFUSED, REASON, outcome.as_str()));
        let gauge = |state: State| {
            let key = with(&CIRCUIT_STATE, STATE, state.as_str());
            (state, with_recorder(|recorder| recorder.register_gauge(&key, &METADATA)))
        };
        Self {
            successes: duration(CallOutcome::Success),
            failures: duration(CallOutcome::Failure),
            timeouts: duration(CallOutcome::Timeout),
            ignored: duration(CallOutcome::Ignored),
            rejected: refused(CallOutcome::Rejected),
            busy: refused(CallOutcome::Busy),
            states: State::ALL.map(gauge),
        }
    }
}

/// Registers the counter each time, because a change of state is rare.
fn changes(name: &Arc<str>, from: State, to: State) -> Counter {
    counter(&key(name, &CIRCUIT_TRANSITIONS, [(FROM, from.as_str()), (TO, to.as_str())]))
}

fn counter(key: &Key) -> Counter {
    with_recorder(|recorder: &dyn Recorder| recorder.register_counter(key, &METADATA))
}

fn key<const N: usize>(name: &Arc<str>, metric: &Metric, labels: [(&'static str, &'static str); N]) -> Key {
    let name = Label::new(BREAKER, Arc::clone(name));
    let labels = labels.into_iter().map(|(label, value)| Label::from_static_parts(label, value));
    Key::from_parts(metric.name, [name].into_iter().chain(labels).collect::<Vec<_>>())
}
