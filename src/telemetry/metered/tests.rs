use metrics::with_local_recorder;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::holder::LongestHeld;
use crate::metrics::METRICS;
use crate::policy::{RefusalCounts, ShedReason};
use std::time::SystemTime;

const SECOND: Duration = Duration::from_secs(1);
const SHED: Error = Error::Shed { reason: ShedReason::Hopeless, retry_after: None, longest_held: LongestHeld::NONE };

fn metered() -> (Meter, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    (Meter::new("orders".into(), 2, Given::new(recorder)), snapshotter)
}

/// A series as `name{label=value,...}`, without the pool; gauges and counters with their value, histograms with the
/// number of values.
fn recorded(snapshotter: &Snapshotter) -> HashMap<String, f64> {
    let mut recorded = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let mut labels: Vec<_> = key.key().labels().collect();
        assert_eq!((labels[0].key(), labels[0].value()), ("db.client.connection.pool.name", "orders"));
        labels.remove(0);
        let labels: Vec<_> = labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        recorded.insert(format!("{}{{{}}}", key.key().name(), labels.join(",")), value);
    }
    recorded
}

fn counted() -> RefusalCounts {
    let shed = RefusalCounts::of([(ShedReason::Hopeless, 7), (ShedReason::NoneIdle, 2)]);
    RefusalCounts { timed_out: 3, rejected: 5, ..shed }
}

#[test]
fn counters_grow_by_what_was_counted_since_the_last_round() {
    let (meter, snapshotter) = metered();
    meter.look(&Status::of_19_in_20(), || (counted(), 4));
    let before = recorded(&snapshotter);
    assert_eq!(before["failfast.shed{reason=hopeless}"], 7.0);
    assert_eq!(before["failfast.shed{reason=none_idle}"], 2.0);
    assert_eq!(before["failfast.shed{reason=queue_full}"], 0.0);
    assert_eq!(before["failfast.breaker.rejected{}"], 5.0);
    assert_eq!(before["db.client.connection.timeouts{}"], 3.0);
    assert_eq!(before["db.client.connection.wait_time{}"], 4.0);
    let mut more = counted();
    more[ShedReason::Hopeless] = 9;
    meter.look(&Status::of_19_in_20(), || (more, 6));
    let after = recorded(&snapshotter);
    // The snapshot before took its counts along.
    assert_eq!(after["failfast.shed{reason=hopeless}"], 2.0);
    assert_eq!(after["db.client.connection.wait_time{}"], 2.0);
    assert_eq!(after["failfast.breaker.rejected{}"], 0.0);
    // The end is reported twice: when the pool is dropped, and by its task.
    for (rejected, expected) in [(8, 3.0), (8, 0.0)] {
        meter.end(Some(|| (RefusalCounts { rejected, ..more }, 6)));
        assert_eq!(recorded(&snapshotter)["failfast.breaker.rejected{}"], expected);
    }
}

#[test]
fn gauges_show_the_pool_and_become_0_when_it_ends() {
    let (meter, snapshotter) = metered();
    meter.look(&Status::of_19_in_20(), <(RefusalCounts, u64)>::default);
    let now = recorded(&snapshotter);
    for (series, value) in [
        ("db.client.connection.count{db.client.connection.state=used}", 19.0),
        ("db.client.connection.count{db.client.connection.state=idle}", 1.0),
        ("db.client.connection.count{db.client.connection.state=dialing}", 0.0),
        ("db.client.connection.max{}", 20.0),
        ("db.client.connection.idle.min{}", 2.0),
        ("db.client.connection.idle.max{}", 20.0),
        ("db.client.connection.pending_requests{}", 127.0),
        ("failfast.utilization.ratio{}", 0.95),
        ("failfast.breaker.state{state=closed}", 1.0),
        ("failfast.breaker.state{state=open}", 0.0),
        ("failfast.time_to_exhaustion{}", f64::INFINITY),
        ("failfast.background.share.ratio{}", 1.0),
        ("failfast.traffic.ratio{}", 0.0),
    ] {
        assert_eq!(now[series], value, "{series}");
    }
    meter.end(None::<fn() -> (RefusalCounts, u64)>);
    let gone = recorded(&snapshotter);
    let kinds = |series: &str| METRICS.iter().find(|metric| series.starts_with(&format!("{}{{", metric.name))).unwrap();
    for (series, value) in &gone {
        if kinds(series).kind == crate::metrics::Kind::Gauge {
            let expected = match kinds(series).name {
                "failfast.time_to_exhaustion" => f64::INFINITY,
                "failfast.background.share.ratio" => 1.0,
                _ => 0.0,
            };
            assert_eq!(*value, expected, "{series}");
        }
    }
}

#[test]
fn a_late_recorder_is_found_and_gets_the_earlier_refusals() {
    let meter = Meter::new("orders".into(), 0, Given::default());
    assert_eq!(format!("{:?} {meter:?}", Given::default()), "the global recorder Meter { is_recorded: false, .. }");
    assert!(meter.start().0.is_none(), "without a recorder the meter reads no clock");
    meter.operated(None, SECOND, None);
    meter.look(&Status::of_19_in_20(), || (counted(), 1_000_000_000));
    let recorder = DebuggingRecorder::new();
    with_local_recorder(&recorder, || {
        meter.look(&Status::of_19_in_20(), || (counted(), 1_000_000_007));
        meter.look(&Status::of_19_in_20(), || (counted(), 1_000_000_009));
        assert!(meter.start().0.is_some());
        meter.operated(None, SECOND, None);
    });
    let recorded = recorded(&recorder.snapshotter());
    assert_eq!(recorded["failfast.shed{reason=hopeless}"], 7.0);
    assert_eq!(recorded["db.client.connection.wait_time{}"], 2.0, "not a billion zeros");
    assert_eq!(recorded["db.client.operation.duration{db.system.name=postgresql}"], 1.0);
}

#[test]
fn operations_are_recorded_by_name_and_error_up_to_a_bound() {
    let (meter, snapshotter) = metered();
    let names: Vec<&'static str> = (0..100).map(|n| &*format!("operation_{n}").leak()).collect();
    let shed = Some(Fault::from(&SHED));
    for name in &names {
        meter.operated(Some(name), SECOND, None);
        meter.operated(Some(name), SECOND, shed);
    }
    meter.operated(None, SECOND, shed);
    meter.operated(None, SECOND, Some(Fault::default()));
    let recorded = recorded(&snapshotter);
    let series = |labels: &str| recorded[&format!("db.client.operation.duration{{db.system.name=postgresql{labels}}}")];
    assert_eq!(series(",failfast.operation=operation_0"), 1.0);
    assert_eq!(series(",failfast.operation=operation_63,error.type=shed"), 1.0);
    assert_eq!(series(",failfast.operation=_OTHER"), 36.0);
    assert_eq!(series(",failfast.operation=_OTHER,error.type=shed"), 36.0);
    assert_eq!(series(",error.type=shed"), 1.0);
    assert_eq!(series(",error.type=_OTHER"), 1.0);
    assert_eq!(recorded.keys().filter(|series| series.starts_with("db.client.operation")).count(), 132);
}

#[test]
fn answers_of_fallbacks_are_counted_by_name_and_error_up_to_a_bound() {
    let (meter, snapshotter) = metered();
    let (fault, names) = (Fault::from(&SHED), (0..100).map(|n| &*format!("operation_{n}").leak()));
    for name in names {
        meter.fell_back(meter.start(), Some(name), fault);
    }
    meter.fell_back(meter.start(), None, fault);
    meter.fell_back(meter.start(), None, fault);
    let recorded = recorded(&snapshotter);
    assert_eq!(recorded["failfast.fallbacks{failfast.operation=operation_0,error.type=shed}"], 1.0);
    assert_eq!(recorded["failfast.fallbacks{failfast.operation=_OTHER,error.type=shed}"], 36.0);
    assert_eq!(recorded["failfast.fallbacks{error.type=shed}"], 2.0);
    let operations: Vec<_> = recorded.keys().filter(|series| series.starts_with("db.client.operation")).collect();
    assert!(!operations.iter().any(|series| series.contains("error.type")), "{operations:?}");
}

#[test]
fn errors_beyond_the_bound_are_recorded_by_kind() {
    let (meter, snapshotter) = metered();
    for n in 0..100 {
        let state = format!("U{n:04}").into_bytes().try_into().unwrap();
        meter.operated(None, SECOND, Some(Fault::of(ErrorKind::Postgres, state)));
    }
    meter.operated(None, SECOND, Some(Fault::from(&SHED)));
    meter.operated(None, SECOND, Some(Fault::default()));
    let recorded = recorded(&snapshotter);
    let series =
        |word: &str| recorded[&format!("db.client.operation.duration{{db.system.name=postgresql,error.type={word}}}")];
    assert_eq!(series("U0063"), 1.0);
    assert_eq!(series("postgres"), 36.0);
    assert_eq!(series("shed"), 1.0);
    assert_eq!(series("_OTHER"), 1.0, "the caller's own, and nothing else");
    assert_eq!(recorded.keys().filter(|series| series.starts_with("db.client.operation")).count(), 67);
}

#[test]
fn the_number_of_inflated_operations_is_bounded() {
    let (meter, snapshotter) = metered();
    for n in 0..100 {
        let operation = Operation::Named(format!("operation_{n}").leak());
        let kind = EventKind::LeasesInflated { operation, from: SECOND, to: 9 * SECOND, lasting: SECOND };
        meter.on_event(&Event::new("orders".into(), SystemTime::now(), kind));
    }
    let series = recorded(&snapshotter).into_keys().filter(|series| series.starts_with("failfast.lease.inflation"));
    assert_eq!(series.count(), 64);
}

#[test]
fn an_event_is_counted_and_an_inflated_operation_has_its_ratio() {
    let (meter, snapshotter) = metered();
    let (operation, lasting) = (Operation::Named("list_items"), SECOND);
    let emit = |kind| meter.on_event(&Event::new("orders".into(), SystemTime::now(), kind));
    emit(EventKind::LeasesInflated { operation, from: SECOND, to: 9 * SECOND, lasting });
    emit(EventKind::LeasesInflated { operation, from: SECOND, to: 8 * SECOND, lasting });
    let inflated = recorded(&snapshotter);
    assert_eq!(inflated["failfast.lease.inflation.ratio{failfast.operation=list_items}"], 8.0);
    assert_eq!(inflated["failfast.events{event=leases_inflated,severity=warning}"], 2.0);
    emit(EventKind::LeasesNormal { operation, to: SECOND, lasted: SECOND });
    assert_eq!(recorded(&snapshotter)["failfast.lease.inflation.ratio{failfast.operation=list_items}"], 0.0);
}

#[test]
fn unusual_traffic_has_its_ratio_while_it_lasts() {
    let (meter, snapshotter) = metered();
    let emit = |kind| meter.on_event(&Event::new("orders".into(), SystemTime::now(), kind));
    emit(EventKind::TrafficAnomaly { calls_per_minute: 500, usual: 100, lasting: SECOND });
    assert_eq!(recorded(&snapshotter)["failfast.traffic.ratio{}"], 5.0);
    emit(EventKind::TrafficNormal { calls_per_minute: 100, lasted: SECOND });
    let after = recorded(&snapshotter);
    assert_eq!(after["failfast.traffic.ratio{}"], 0.0);
    assert_eq!(after["failfast.events{event=traffic_normal,severity=warning}"], 1.0);
}

#[test]
fn every_metric_is_described() {
    let (_meter, snapshotter) = metered();
    let described = snapshotter.snapshot().into_vec();
    for (key, unit, help, _) in described {
        let metric = METRICS.iter().find(|metric| metric.name == key.key().name()).expect("it is in the table");
        let kind = match key.kind() {
            MetricKind::Counter => crate::metrics::Kind::Counter,
            MetricKind::Gauge => crate::metrics::Kind::Gauge,
            MetricKind::Histogram => crate::metrics::Kind::Histogram,
        };
        assert_eq!(kind, metric.kind, "{}", metric.name);
        assert!(unit.is_some(), "{}", metric.name);
        assert_eq!(help.as_deref(), Some(metric.help));
    }
}

#[cfg(feature = "cluster")]
#[test]
fn each_host_and_each_route_of_a_cluster_has_its_series() {
    use crate::telemetry::ReadRoute;

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let meter = ClusterMeter::new("orders".into(), Given::new(recorder));
    let [one, two, three] = ["db1:5432", "db2:5432", "db3:5432"].map(Arc::<str>::from);
    meter.look_at(&one, true, false, false, None);
    meter.look_at(&two, false, false, true, Some(SECOND * 2));
    meter.look_at(&three, false, true, true, None);
    meter.look(1, 1);
    meter.read(ReadRoute::Replica);
    meter.read(ReadRoute::Refused);
    meter.refused(ErrorKind::TwoSystems);
    meter.refused(ErrorKind::Shed);
    let kind = EventKind::PrimaryChanged { from: None, to: None, last: None, first: None };
    meter.on_event(&Event::new("orders".into(), SystemTime::now(), kind));
    let expected = [
        ("failfast.cluster.primary{host=db1:5432}", 1.0),
        ("failfast.cluster.primary{host=db2:5432}", 0.0),
        ("failfast.cluster.primary{host=db3:5432}", 0.0),
        ("failfast.cluster.silent{host=db1:5432}", 0.0),
        ("failfast.cluster.silent{host=db2:5432}", 0.0),
        ("failfast.cluster.silent{host=db3:5432}", 1.0),
        ("failfast.cluster.replica.lag{host=db1:5432}", 0.0),
        ("failfast.cluster.replica.lag{host=db2:5432}", 2.0),
        ("failfast.cluster.replica.lag{host=db3:5432}", f64::INFINITY),
        ("failfast.cluster.primaries{}", 1.0),
        ("failfast.cluster.replicas.fit{}", 1.0),
        ("failfast.cluster.reads{route=replica}", 1.0),
        ("failfast.cluster.reads{route=primary}", 0.0),
        ("failfast.cluster.reads{route=refused}", 1.0),
        ("failfast.cluster.primary.changes{}", 1.0),
        ("failfast.cluster.refused{reason=no_primary}", 0.0),
        ("failfast.cluster.refused{reason=two_primaries}", 0.0),
        ("failfast.cluster.refused{reason=two_systems}", 1.0),
        ("failfast.cluster.refused{reason=no_fresh_replica}", 0.0),
        ("failfast.events{event=primary_changed,severity=warning}", 1.0),
    ];
    let expected: HashMap<_, _> = expected.map(|(series, value)| (series.to_owned(), value)).into();
    assert_eq!(recorded(&snapshotter), expected);
    for metric in crate::metrics::CLUSTER_METRICS {
        let begins = format!("{}{{", metric.name);
        assert!(expected.keys().any(|series| series.starts_with(&begins)), "{} is not recorded", metric.name);
    }
}

#[cfg(feature = "cluster")]
#[test]
fn a_cluster_that_has_ended_leaves_no_lag_and_no_primary_behind() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let meter = ClusterMeter::new("orders".into(), Given::new(recorder));
    let hosts = ["db1:5432", "db2:5432"].map(Arc::<str>::from);
    meter.look_at(&hosts[0], true, true, false, None);
    meter.look_at(&hosts[1], false, false, true, Some(SECOND * 2));
    meter.look(1, 1);
    meter.on_end(hosts.iter());
    let recorded = recorded(&snapshotter);
    for (series, value) in &recorded {
        let is_of_all = series.ends_with("primaries{}") || series.ends_with("fit{}");
        assert!(if is_of_all { value.is_nan() } else { *value == 0.0 }, "{series} {value}");
    }
    assert!(recorded.len() >= 8, "{recorded:?}");
}

#[cfg(feature = "fleet")]
#[test]
fn each_metric_of_a_fleet_follows_the_status_and_ends_with_the_pool() {
    use crate::metrics::FLEET_METRICS;
    use crate::policy::FleetState;
    use crate::status::FleetStatus;

    let (meter, snapshotter) = metered();
    let fleet = FleetStatus {
        name: "shop".into(),
        state: FleetState::ServerFull,
        granted: 9,
        wanted: 14,
        minimum: 2,
        max_size: 20,
        members: 4,
        capacity: Some(34),
        strangers: 3,
        last_reading: Some(SECOND),
    };
    let mut status = Status::of_19_in_20();
    meter.look(&status, <(RefusalCounts, u64)>::default);
    let begins = |series: &String| series.starts_with("failfast.fleet.");
    assert!(!recorded(&snapshotter).keys().any(begins), "a pool without a budget has no series of a fleet");
    status.fleet = Some(fleet);
    meter.look(&status, <(RefusalCounts, u64)>::default);
    let expected = [
        ("members{}", 4.0),
        ("granted{}", 9.0),
        ("wanted{}", 14.0),
        ("capacity{}", 34.0),
        ("strangers{}", 3.0),
        ("state{state=joining}", 0.0),
        ("state{state=sharing}", 0.0),
        ("state{state=blind}", 0.0),
        ("state{state=server_full}", 1.0),
        ("state{state=draining}", 0.0),
        ("state{state=off}", 0.0),
    ];
    let expected: HashMap<_, _> = expected.map(|(series, value)| (format!("failfast.fleet.{series}"), value)).into();
    let seen: HashMap<_, _> = recorded(&snapshotter).into_iter().filter(|(series, _)| begins(series)).collect();
    assert_eq!(seen, expected);
    for metric in FLEET_METRICS {
        let begins = format!("{}{{", metric.name);
        assert!(expected.keys().any(|series| series.starts_with(&begins)), "{} is not recorded", metric.name);
    }
    meter.end(None::<fn() -> (RefusalCounts, u64)>);
    let left = recorded(&snapshotter).into_iter().filter(|(series, _)| begins(series)).map(|(_, value)| value);
    assert_eq!(left.fold(0.0, f64::max), 0.0);
}

#[cfg(feature = "fleet")]
#[test]
fn a_limit_that_follows_the_database_is_recorded_and_ends_at_zero() {
    use crate::status::AdaptiveStatus;

    let (meter, snapshotter) = metered();
    let status = Status { adaptive: Some(AdaptiveStatus::of_a_slow_report()), ..Status::of_19_in_20() };
    meter.look(&status, || (counted(), 0));
    let seen = recorded(&snapshotter);
    for (series, value) in [
        ("failfast.adaptive.limit{}", 18.0),
        ("failfast.adaptive.inflation{}", 2.5),
        ("failfast.adaptive.capped{}", 1.0),
        ("failfast.adaptive.advice{reason=slow_operation}", 1.0),
        ("failfast.adaptive.advice{reason=saturated}", 0.0),
    ] {
        assert_eq!(seen[series], value, "{series}");
    }
    for metric in crate::metrics::ADAPTIVE_METRICS {
        let begins = format!("{}{{", metric.name);
        assert!(seen.keys().any(|series| series.starts_with(&begins)), "{} is not recorded", metric.name);
    }
    meter.end(None::<fn() -> (RefusalCounts, u64)>);
    let ended = recorded(&snapshotter);
    let left = ended.iter().filter(|(series, value)| series.starts_with("failfast.adaptive") && **value != 0.0);
    assert_eq!(left.count(), 0, "{ended:?}");
}
