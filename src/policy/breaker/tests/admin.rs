//! Orders of an operator, and the export of one breaker to another.

use super::*;

impl Scene {
    fn order(&mut self, order: Order) -> State {
        self.breaker.obey(self.now, order, "a test".into(), std::panic::Location::caller());
        self.state()
    }
}

// R
#[test]
fn conformance_31_forced_open_rejects_after_the_wait_too_and_counts() {
    let mut scene = Scene::new(ours());
    assert_eq!(scene.order(Order::ForceOpen), State::ForcedOpen);
    scene.denied();
    scene.wait(9 * SECOND);
    assert_eq!(scene.denied(), Denied { state: State::ForcedOpen, retry_after: 5 * SECOND, may_end_early: false });
    assert_eq!(scene.counts().rejected, 2);
    assert_eq!(scene.order(Order::Enable), State::Closed);
}

// R
#[test]
fn conformance_32_disabled_permits_and_records_nothing() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.order(Order::Disable);
        assert_eq!(scene.calls("FFFSU"), State::Disabled);
        assert_eq!(scene.counts(), Counts::default());
    }
}

// O
#[test]
fn conformance_33_disabled_failures_leave_it_closed_and_later_ones_open() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.order(Order::Disable);
        let late = scene.admit();
        scene.calls("FFF");
        assert_eq!(scene.order(Order::Enable), State::Closed);
        scene.end(late, ResultKind::Failure);
        assert_eq!((scene.state(), scene.counts()), (State::Closed, Counts::default()));
        assert_eq!(scene.calls("F"), State::Open);
    }
}

// R
#[test]
fn conformance_34_metrics_only_counts_and_never_opens() {
    let mut scene = Scene::new(ours());
    scene.order(Order::MetricsOnly);
    assert_eq!(scene.calls("FFFF"), State::MetricsOnly);
    assert_eq!(scene.breaker.snapshot(scene.now).failure_rate, Some(100.0));
    assert_eq!(scene.changes(), [State::MetricsOnly]);
}

// R
#[test]
fn conformance_35_reset_closes_and_forgets() {
    let mut scene = Scene::new(ours());
    let late = scene.admit();
    scene.calls("F");
    assert_eq!(scene.order(Order::Reset), State::Closed);
    scene.end(late, ResultKind::Failure);
    assert_eq!(scene.counts(), Counts::default());
    let history = scene.breaker.snapshot(scene.now).history;
    assert_eq!(history[1].transition.cause, Cause::Requested("a test".into()));
}

#[test]
fn reset_makes_calls_under_way_stale_in_a_closed_circuit_too() {
    let mut scene = Scene::new(ours());
    let late = scene.admit();
    scene.order(Order::Reset);
    scene.end(late, ResultKind::Failure);
    assert_eq!(scene.state(), State::Closed);
}

// R
#[test]
fn conformance_36_the_same_state_again_is_no_event() {
    let mut scene = Scene::new(ours());
    scene.order(Order::Reset);
    scene.order(Order::Enable);
    assert_eq!(scene.changes(), []);
    for order in [Order::ForceOpen, Order::Disable, Order::MetricsOnly] {
        scene.order(order);
        scene.order(order);
        assert_eq!(scene.changes().len(), 1, "{order:?}");
    }
}

#[test]
fn enabling_does_not_close_a_circuit_that_opened_by_itself() {
    let mut scene = Scene::new(ours());
    scene.calls("F");
    assert_eq!(scene.order(Order::Enable), State::Open);
}

// O
#[test]
fn conformance_41_exact_events_through_a_whole_cycle() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.calls("F");
        scene.denied();
        assert_eq!(scene.counts().rejected, 1);
        scene.wait(5 * SECOND);
        let probe = scene.admit();
        scene.denied();
        assert_eq!(scene.counts().rejected, 2);
        scene.end(probe, ResultKind::Success);
        scene.calls("SS");
        assert_eq!(scene.changes(), [State::Open, State::HalfOpen, State::Closed]);
        assert_eq!(scene.changes(), []);
    }
}

// O
#[test]
fn conformance_43_a_failing_health_check_opens() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.calls("SSSS");
        scene.breaker.on_health_check_failed(scene.now);
        assert_eq!(scene.state(), State::Open);
        scene.wait(SECOND);
        scene.breaker.on_health_check_failed(scene.now);
        assert_eq!(scene.denied().retry_after, 4 * SECOND);
        assert_eq!(scene.changes(), [State::Open]);
    }
}

// O
#[test]
fn conformance_44_after_a_shutdown_every_call_is_rejected() {
    let mut scene = Scene::new(ours());
    scene.order(Order::ShutDown);
    for order in [Order::Enable, Order::Reset, Order::Disable, Order::MetricsOnly] {
        assert_eq!(scene.order(order), State::ShutDown);
        scene.denied();
    }
    scene.breaker.import(scene.now, &Export::default());
    assert_eq!(scene.state(), State::ShutDown);
}

// O
#[test]
fn conformance_44_another_breaker_goes_on_from_an_export() {
    let growth = Some(Growth { factor: 2.0, cap: 60 * SECOND });
    let mut scene = Scene::new(BreakerParameters { growth, ..ours() });
    scene.calls("U");
    scene.wait(5 * SECOND);
    scene.calls("U");
    scene.denied();
    scene.wait(SECOND);
    let export = scene.breaker.export(scene.now);
    let mut other = Scene::new(BreakerParameters { growth, ..ours() });
    other.breaker.import(other.now, &export);
    assert_eq!(other.breaker.export(other.now), export);
    assert_eq!(other.denied().retry_after, 9 * SECOND);
    assert_eq!(other.counts(), Counts { rejected: 2, ..export.counts });
    other.breaker.on_server_answer(other.now);
    assert_eq!(other.state(), State::HalfOpen);
}

#[test]
fn every_state_can_be_imported() {
    let all = [
        State::Closed,
        State::Open,
        State::HalfOpen,
        State::ForcedOpen,
        State::Disabled,
        State::MetricsOnly,
        State::ShutDown,
    ];
    for state in all {
        let mut scene = Scene::new(ours());
        scene.breaker.import(scene.now, &Export { state, ..Export::default() });
        assert_eq!(scene.state(), state);
        assert_eq!(scene.breaker.export(scene.now).state, state);
    }
}

#[test]
fn contradictory_numbers_can_be_imported() {
    let counts = Counts { fires: u64::MAX, completed: 3, failures: u64::MAX, slow: u64::MAX, ..Counts::default() };
    let export = Export {
        state: State::Open,
        age: Duration::MAX,
        openings: u32::MAX,
        unreachable: true,
        counts,
        ..Export::default()
    };
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.breaker.import(scene.now, &export);
        assert_eq!(scene.calls("F"), State::Open);
        scene.wait(60 * SECOND);
        assert_eq!(scene.calls("S"), State::Closed);
    }
}

/// A failure of a call that was never counted would be a share of nothing. So the breaker counts the whole call or none
/// of it.
#[test]
fn calls_under_way_are_not_judged_alone_after_a_reset_or_an_import() {
    for settings in [ours(), opossum()] {
        for export in [None, Some(Export::default())] {
            let mut scene = Scene::new(settings);
            let under_way: Vec<_> = (0..4).map(|_| scene.admit()).collect();
            match export {
                None => drop(scene.order(Order::Reset)),
                Some(export) => scene.breaker.import(scene.now, &export),
            }
            scene.end(under_way[0], ResultKind::Failure);
            assert_eq!(scene.state(), State::Closed, "{settings:?}, {export:?}");
            assert!(scene.counts().failures <= scene.counts().fires.max(scene.counts().completed));
        }
    }
}

// O: `close()` of opossum keeps the counts.
#[test]
fn a_reset_forgets_nothing_as_opossum() {
    let mut scene = Scene::new(opossum());
    let under_way: Vec<_> = (0..4).map(|_| scene.admit()).collect();
    scene.order(Order::Reset);
    scene.end(under_way[0], ResultKind::Failure);
    let seen = scene.counts();
    assert_eq!((scene.state(), seen.fires, seen.failures), (State::Closed, 4, 1));
    scene.end(under_way[1], ResultKind::Failure);
    assert_eq!(scene.state(), State::Closed, "opossum opens above 50%");
    scene.end(under_way[2], ResultKind::Failure);
    assert_eq!(scene.state(), State::Open);
}

/// A breaker that counts all calls that asked has more calls than one that counts only ended calls.
#[test]
fn counts_of_another_rule_are_imported_as_a_share() {
    let mut counted = Scene::new(BreakerParameters { volume_threshold: 10, ..ours() });
    counted.calls("SSSF");
    let export = counted.breaker.export(counted.now);
    let mut scene = Scene::new(opossum());
    scene.breaker.import(scene.now, &export);
    assert_eq!((scene.counts().fires, scene.counts().failures), (4, 1));
    assert_eq!(scene.calls("F"), State::Closed, "two of five calls failed");
    assert_eq!(scene.calls("F"), State::Closed, "three of six calls failed");
    assert_eq!(scene.calls("F"), State::Open, "four of seven calls failed");
    let export = scene.breaker.export(scene.now);
    let mut other = Scene::new(ours());
    other.breaker.import(other.now, &export);
    assert_eq!((other.counts().fires, other.counts().completed), (0, 7), "this rule does not count the calls that ask");
}

#[test]
fn a_circuit_opened_for_a_time_recovers_by_itself() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        let late = scene.admit();
        assert_eq!(scene.order(Order::OpenFor(60 * SECOND)), State::Open);
        scene.end(late, ResultKind::Success);
        scene.wait(59 * SECOND);
        assert_eq!(scene.denied().retry_after, SECOND);
        scene.wait(SECOND);
        assert_eq!(scene.state(), State::HalfOpen);
        assert_eq!(scene.calls("F"), State::Open);
        assert_eq!(scene.denied().retry_after, 5 * SECOND, "the reset timeout applies again");
        scene.wait(5 * SECOND);
        assert_eq!(scene.calls("S"), State::Closed);
        let history = scene.breaker.snapshot(scene.now).history;
        assert_eq!(history[0].transition.cause, Cause::Requested("a test".into()));
        assert!(history[0].transition.by.is_some());
    }
}

#[test]
fn an_earlier_end_never_replaces_a_later_one() {
    let mut scene = Scene::new(ours());
    scene.order(Order::OpenFor(60 * SECOND));
    scene.order(Order::OpenFor(SECOND));
    assert_eq!(scene.denied().retry_after, 60 * SECOND);
    scene.order(Order::OpenFor(90 * SECOND));
    assert_eq!(scene.denied().retry_after, 90 * SECOND);
    assert_eq!(scene.changes(), [State::Open]);
    let mut scene = Scene::new(ours());
    scene.calls("F");
    scene.order(Order::OpenFor(SECOND));
    assert_eq!(scene.denied().retry_after, 5 * SECOND);
    let mut scene = Scene::half_open(ours());
    scene.order(Order::OpenFor(SECOND));
    assert_eq!(scene.state(), State::Open);
}

#[test]
fn an_answer_does_not_end_an_opening_for_a_time() {
    let mut scene = Scene::new(ours());
    scene.calls("U");
    scene.order(Order::OpenFor(60 * SECOND));
    scene.breaker.on_server_answer(scene.now);
    assert_eq!(scene.state(), State::Open);
}

#[test]
fn other_orders_override_an_opening_for_a_time() {
    let before = [Order::ForceOpen, Order::Disable, Order::MetricsOnly, Order::ShutDown];
    for order in before {
        let mut scene = Scene::new(ours());
        let ordered = scene.order(order);
        assert_eq!(scene.order(Order::OpenFor(SECOND)), ordered);
    }
    for (order, state) in [(Order::Reset, State::Closed), (Order::Enable, State::Open)] {
        let mut scene = Scene::new(ours());
        scene.order(Order::OpenFor(60 * SECOND));
        assert_eq!(scene.order(order), state);
    }
}

#[test]
fn an_export_has_the_rest_of_an_opening_for_a_time() {
    let mut scene = Scene::new(ours());
    scene.order(Order::OpenFor(60 * SECOND));
    scene.wait(20 * SECOND);
    scene.order(Order::OpenFor(50 * SECOND));
    let export = scene.breaker.export(scene.now);
    assert_eq!((export.age, export.open_for), (20 * SECOND, Some(70 * SECOND)));
    let mut other = Scene::new(ours());
    other.breaker.import(other.now, &export);
    assert_eq!(other.denied().retry_after, 50 * SECOND);
    assert_eq!(Export { counts: export.counts, ..other.breaker.export(other.now) }, export);
}
