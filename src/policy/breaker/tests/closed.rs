//! The results that open a closed circuit.

use super::*;

// O
#[test]
fn conformance_01_one_failure_at_threshold_10_opens() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(BreakerParameters { error_threshold: 10, ..settings });
        assert_eq!(scene.calls("F"), State::Open);
        assert_eq!(scene.denied(), Denied { state: State::Open, retry_after: 5 * SECOND, may_end_early: false });
    }
}

// O
#[test]
fn conformance_02_without_a_minimum_the_first_failure_opens() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(BreakerParameters { volume_threshold: 0, error_threshold: 1, ..settings });
        assert_eq!(scene.calls("F"), State::Open);
    }
}

// O
#[test]
fn conformance_03_below_the_minimum_failures_do_not_open() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(BreakerParameters { volume_threshold: 3, ..settings });
        assert_eq!(scene.calls("FF"), State::Closed);
        assert_eq!(scene.calls("F"), State::Open);
    }
}

// R: the circuit opens at the threshold.
#[test]
fn conformance_04_half_of_the_calls_failing_opens_at_50() {
    assert_eq!(Scene::new(BreakerParameters { volume_threshold: 2, ..ours() }).calls("SF"), State::Open);
}

// O: the circuit opens above the threshold.
#[test]
fn conformance_04_half_of_the_calls_failing_stays_closed_as_opossum() {
    assert_eq!(Scene::new(opossum()).calls("SF"), State::Closed);
    assert_eq!(Scene::new(opossum()).calls("SFF"), State::Open);
}

// R
#[test]
fn conformance_05_opens_on_the_success_that_completes_the_minimum() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 5, ..ours() });
    assert_eq!(scene.calls("FFFS"), State::Closed);
    assert_eq!(scene.calls("S"), State::Open);
}

// O: opossum judges only after a failure.
#[test]
fn conformance_05_stays_closed_until_the_next_failure_as_opossum() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 5, ..opossum() });
    assert_eq!(scene.calls("FFFSS"), State::Closed);
    assert_eq!(scene.calls("F"), State::Open);
}

// R
#[test]
fn conformance_06_closed_at_40_percent_open_at_50() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 5, ..ours() });
    assert_eq!(scene.calls("SSSFF"), State::Closed);
    assert_eq!(scene.calls("F"), State::Open);
}

// O
#[test]
fn conformance_06_closed_at_50_percent_as_opossum() {
    let mut scene = Scene::new(opossum());
    assert_eq!(scene.calls("SSSFFF"), State::Closed);
    assert_eq!(scene.calls("F"), State::Open);
}

// R
#[test]
fn conformance_07_three_of_five_slow_opens_at_50() {
    let slow_call = Some(SlowCall { longer_than: SECOND, threshold: 50 });
    let mut scene = Scene::new(BreakerParameters { slow_call, volume_threshold: 5, ..ours() });
    assert_eq!(scene.calls("sSsS"), State::Closed);
    assert_eq!(scene.calls("s"), State::Open);
    assert_eq!(scene.breaker.take_changes()[0].cause, Cause::SlowRate);
}

#[test]
fn slow_calls_do_not_count_without_the_setting() {
    assert_eq!(Scene::new(ours()).calls("ssssssssss"), State::Closed);
}

// R
#[test]
fn conformance_08_below_the_minimum_there_is_no_rate() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 5, ..ours() });
    scene.calls("FFSF");
    let before = scene.breaker.snapshot(scene.now);
    assert_eq!((before.state, before.failure_rate, before.slow_rate), (State::Closed, None, None));
    scene.calls("S");
    let after = scene.breaker.snapshot(scene.now);
    assert_eq!((after.state, after.failure_rate, after.slow_rate), (State::Open, Some(60.0), None));
}

// O
#[test]
fn conformance_11_a_success_after_the_opening_changes_nothing() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        let (first, second) = (scene.admit(), scene.admit());
        scene.breaker.record(scene.now, first, ResultKind::Failure, SECOND, || 0.0);
        if scene.state() == State::Closed {
            // opossum counts the call under way too: 1 of 2 is not above 50%.
            scene.calls("F");
        }
        scene.end(second, ResultKind::Success);
        assert_eq!(scene.state(), State::Open);
        scene.wait(5 * SECOND);
        assert_eq!(scene.state(), State::HalfOpen);
    }
}

// O
#[test]
fn conformance_12_after_two_concurrent_failures_the_circuit_still_becomes_half_open() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        let (first, second) = (scene.admit(), scene.admit());
        scene.end(first, ResultKind::Failure);
        scene.wait(SECOND);
        scene.end(second, ResultKind::Failure);
        assert_eq!(scene.state(), State::Open);
        scene.wait(5 * SECOND);
        assert_eq!(scene.state(), State::HalfOpen);
        assert_eq!(scene.changes(), [State::Open, State::HalfOpen]);
    }
}

// O
#[test]
fn conformance_13_a_failure_while_warming_up_does_not_open() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(BreakerParameters { warm_up: true, ..settings });
        assert_eq!(scene.calls("FFF"), State::Closed);
        scene.wait(10 * SECOND);
        assert_eq!(scene.calls("F"), State::Open);
    }
}

// O
#[test]
fn conformance_40_calls_failures_and_rejections_are_counted() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 4, error_threshold: 25, ..ours() });
    scene.calls("SSSF");
    scene.denied();
    let expected = Counts { completed: 4, failures: 1, rejected: 1, ..Counts::default() };
    assert_eq!(scene.counts(), expected);
    assert_eq!(expected.successes(), 3);
}

// O
#[test]
fn conformance_40_calls_failures_and_rejections_are_counted_as_opossum() {
    let mut scene = Scene::new(BreakerParameters { error_threshold: 1, ..opossum() });
    scene.calls("SSSF");
    scene.denied();
    let expected = Counts { fires: 5, completed: 4, failures: 1, rejected: 1, ..Counts::default() };
    assert_eq!(scene.counts(), expected);
}

// R
#[test]
fn conformance_42_nothing_is_recorded_of_a_cancelled_call() {
    let mut scene = Scene::new(ours());
    let ticket = scene.admit();
    scene.breaker.release(scene.now, ticket);
    assert_eq!(scene.calls("I"), State::Closed);
    assert_eq!(scene.counts(), Counts::default());
}

// O: opossum's failure rate is a share of all calls that asked. Ours is a share of the calls that completed.
#[test]
fn calls_under_way_do_not_hide_a_failure() {
    let both = [(ours(), State::Open), (opossum(), State::Closed)];
    for (settings, expected) in both {
        let mut scene = Scene::new(settings);
        let _under_way = [scene.admit(), scene.admit()];
        assert_eq!(scene.calls("F"), expected);
    }
}

// O: by opossum's arithmetic, one failure of no calls is above any threshold.
#[test]
fn a_call_older_than_the_window_opens_when_it_fails() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        let old = scene.admit();
        scene.wait(60 * SECOND);
        scene.end(old, ResultKind::Failure);
        assert_eq!(scene.state(), State::Open);
    }
}

#[test]
fn a_circuit_opens_when_nothing_succeeds_any_more_after_many_successes() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 10, ..ours() });
    assert_eq!(scene.calls(&"S".repeat(1_000)), State::Closed);
    assert_eq!(scene.calls(&"F".repeat(50)), State::Closed);
    scene.wait(SECOND);
    assert_eq!(scene.calls("S"), State::Closed);
    assert_eq!(scene.calls(&"F".repeat(9)), State::Closed);
    scene.wait(SECOND - Duration::from_nanos(1));
    assert_eq!(scene.calls("F"), State::Closed, "the blackout has not lasted a second");
    scene.wait(Duration::from_nanos(1));
    assert_eq!(scene.calls("F"), State::Open);
    let transition = &scene.breaker.take_changes()[0];
    assert_eq!(transition.cause, Cause::NothingSucceeds { failures: 11, lasting: SECOND });
    let line = "closed -> open: nothing succeeded for 1 s, 11 failures (61 of 1062 calls failed)";
    assert_eq!(transition.to_string(), line);
}

#[test]
fn a_blackout_needs_the_minimum_volume() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 10, ..ours() });
    scene.calls(&"S".repeat(1_000));
    for _ in 0..9 {
        assert_eq!(scene.calls("F"), State::Closed);
        scene.wait(SECOND / 2);
    }
    assert_eq!(scene.calls("F"), State::Open);
}

#[test]
fn a_blackout_does_not_open_as_opossum() {
    let mut scene = Scene::new(opossum());
    scene.calls(&"S".repeat(1_000));
    for _ in 0..8 {
        scene.wait(SECOND);
        assert_eq!(scene.calls(&"F".repeat(20)), State::Closed);
    }
}

#[test]
fn a_server_that_is_silent_adds_to_a_blackout() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 10, ..ours() });
    scene.calls(&"S".repeat(1_000));
    assert_eq!(scene.calls(&"U".repeat(9)), State::Closed);
    scene.wait(SECOND);
    scene.breaker.on_server_silent(scene.now, || 0.0);
    assert_eq!(scene.state(), State::Open);
    assert!(scene.denied().may_end_early);
    scene.breaker.on_server_answer(scene.now);
    assert_eq!(scene.state(), State::HalfOpen);
    scene.breaker.on_server_silent(scene.now, || 0.0);
    assert_eq!(scene.state(), State::Open);
}
