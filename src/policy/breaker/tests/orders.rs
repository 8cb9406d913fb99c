//! What somebody orders, and what goes from one breaker to another.

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
        scene.end(late, Outcome::Failure);
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
    scene.end(late, Outcome::Failure);
    assert_eq!(scene.counts(), Counts::default());
    let history = scene.breaker.snapshot(scene.now).history;
    assert_eq!(history[1].transition.cause, Cause::Requested("a test".into()));
}

#[test]
fn reset_makes_calls_under_way_stale_in_a_closed_circuit_too() {
    let mut scene = Scene::new(ours());
    let late = scene.admit();
    scene.order(Order::Reset);
    scene.end(late, Outcome::Failure);
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
fn enabling_does_not_end_what_the_circuit_does_by_itself() {
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
        scene.end(probe, Outcome::Success);
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
        scene.breaker.health_check_failed(scene.now);
        assert_eq!(scene.state(), State::Open);
        scene.wait(SECOND);
        scene.breaker.health_check_failed(scene.now);
        assert_eq!(scene.denied().retry_after, 4 * SECOND);
        assert_eq!(scene.changes(), [State::Open]);
    }
}

// O
#[test]
fn conformance_44_shut_down_it_rejects_for_good() {
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
fn conformance_44_an_export_goes_on_elsewhere() {
    let growth = Some(Growth { factor: 2.0, cap: 60 * SECOND });
    let mut scene = Scene::new(Settings { growth, ..ours() });
    scene.calls("U");
    scene.wait(5 * SECOND);
    scene.calls("U");
    scene.denied();
    scene.wait(SECOND);
    let export = scene.breaker.export(scene.now);
    let mut other = Scene::new(Settings { growth, ..ours() });
    other.breaker.import(other.now, &export);
    assert_eq!(other.breaker.export(other.now), export);
    assert_eq!(other.denied().retry_after, 9 * SECOND);
    assert_eq!(other.counts(), Counts { rejected: 2, ..export.counts });
    other.breaker.server_answers(other.now);
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
fn nonsense_can_be_imported() {
    let counts = Counts { fires: u64::MAX, completed: 3, failures: u64::MAX, slow: u64::MAX, ..Counts::default() };
    let export = Export { state: State::Open, age: Duration::MAX, openings: u32::MAX, unreachable: true, counts };
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.breaker.import(scene.now, &export);
        assert_eq!(scene.calls("F"), State::Open);
        scene.wait(60 * SECOND);
        assert_eq!(scene.calls("S"), State::Closed);
    }
}
