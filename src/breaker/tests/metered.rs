//! The metrics of a breaker that has a name.

use std::collections::BTreeMap;

use metrics::with_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;
use crate::metrics::{BREAKER, BREAKER_METRICS};

/// Returns each series as `name{labels}` with its value. The value of a histogram is the number of its samples.
fn recorded(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let (_, key) = key.into_parts();
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (format!("{}{{{}}}", key.name(), labels.join(",")), value)
    });
    series.collect()
}

fn of(series: &BTreeMap<String, f64>, name: &str, label: &str) -> f64 {
    let key = format!("failfast.circuit_breaker.{name}{{{BREAKER}=stock,{label}}}");
    series.get(&key).copied().unwrap_or_else(|| panic!("no {key} in {series:?}"))
}

/// Makes one call with each outcome.
fn use_it(breaker: &CircuitBreaker) {
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().ignore();
    breaker.try_acquire().unwrap().failure();
    breaker.try_acquire().unwrap_err();
}

#[test]
fn a_breaker_with_a_name_has_every_metric() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    with_local_recorder(&recorder, || {
        let breaker = CircuitBreaker::new(config().name("stock")).unwrap();
        let series = recorded(&snapshotter);
        assert_eq!(of(&series, "state", "state=closed"), 1.0);
        assert_eq!(of(&series, "state", "state=open"), 0.0);
        assert_eq!(of(&series, "transitions", "from=closed,to=open"), 0.0);
        use_it(&breaker);
    });
    let series = recorded(&snapshotter);
    assert_eq!(of(&series, "call.duration", "outcome=success"), 1.0);
    assert_eq!(of(&series, "call.duration", "outcome=ignored"), 1.0);
    assert_eq!(of(&series, "call.duration", "outcome=failure"), 1.0);
    assert_eq!(of(&series, "refused", "reason=rejected"), 1.0);
    assert_eq!(of(&series, "state", "state=closed"), 0.0);
    assert_eq!(of(&series, "state", "state=open"), 1.0);
    assert_eq!(of(&series, "transitions", "from=closed,to=open"), 1.0);
    for metric in BREAKER_METRICS {
        assert!(series.keys().any(|key| key.starts_with(&format!("{}{{", metric.name))), "{}", metric.name);
    }
    for key in series.keys() {
        assert!(BREAKER_METRICS.iter().any(|metric| key.starts_with(&format!("{}{{", metric.name))), "{key}");
    }
}

/// A service may install its recorder after it has made its breakers.
#[test]
fn a_recorder_that_is_installed_later_gets_the_metrics() {
    let breaker = CircuitBreaker::new(config().name("stock")).unwrap();
    breaker.force_open("no recorder yet");
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    with_local_recorder(&recorder, || breaker.try_acquire().unwrap_err());
    let series = recorded(&snapshotter);
    assert_eq!(of(&series, "state", "state=forced_open"), 1.0);
    assert_eq!(of(&series, "refused", "reason=rejected"), 1.0);
}

#[test]
fn without_a_name_nothing_is_recorded() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    with_local_recorder(&recorder, || {
        let breaker = breaker();
        use_it(&breaker);
        assert!(!breaker.shared.needs_durations(), "the breaker reads no clock without a name");
    });
    assert_eq!(recorded(&snapshotter), BTreeMap::new());
}
