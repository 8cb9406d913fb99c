//! Which probes are admitted, and what their results decide.

use super::*;

fn four_probes() -> BreakerParameters {
    BreakerParameters { permitted_probes: 4, volume_threshold: 1, ..ours() }
}

// O
#[test]
fn conformance_14_a_while_after_the_reset_timeout_a_success_closes() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.calls("F");
        scene.wait(settings.reset_timeout.mul_f64(1.25));
        assert_eq!(scene.calls("S"), State::Closed);
    }
}

// O
#[test]
fn conformance_15_other_calls_are_rejected_during_a_slow_probe_and_after_it_fails() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.calls("F");
        scene.wait(5 * SECOND);
        let probe = scene.admit();
        let meanwhile = scene.denied();
        assert_eq!(meanwhile.state, State::HalfOpen);
        assert!(!meanwhile.retry_after.is_zero());
        scene.wait(SECOND);
        scene.end(probe, ResultKind::Failure);
        assert_eq!(scene.denied(), Denied { state: State::Open, retry_after: 5 * SECOND, may_end_early: false });
    }
}

// O
#[test]
fn conformance_16_opens_again_and_closes_at_last() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.calls("F");
        for (outcome, state) in [("F", State::Open), ("S", State::Closed)] {
            scene.wait(5 * SECOND);
            assert_eq!(scene.calls(outcome), state);
        }
        let expected = [State::Open, State::HalfOpen, State::Open, State::HalfOpen, State::Closed];
        assert_eq!(scene.changes(), expected);
    }
}

// O: a filtered error is a success. The tests of calls check that the caller gets the error.
#[test]
fn conformance_17_a_probe_with_a_filtered_error_closes() {
    for settings in [ours(), opossum()] {
        assert_eq!(Scene::half_open(settings).calls("S"), State::Closed);
    }
}

// O
#[test]
fn conformance_18_a_failing_probe_opens_whatever_the_minimum() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::half_open(BreakerParameters { volume_threshold: 10, error_threshold: 100, ..settings });
        assert_eq!(scene.calls("F"), State::Open);
    }
}

// O
#[test]
fn conformance_19_imported_open_for_longer_than_the_reset_timeout_is_half_open() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        let export = Export { state: State::Open, age: 4 * SECOND, openings: 1, ..Export::default() };
        scene.breaker.import(scene.now, &export);
        assert_eq!(scene.denied().retry_after, SECOND);
        scene.breaker.import(scene.now, &Export { age: 6 * SECOND, ..export });
        assert_eq!(scene.state(), State::HalfOpen);
    }
}

// O
#[test]
fn conformance_20_imported_half_open_a_failing_probe_opens() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::new(settings);
        scene.breaker.import(scene.now, &Export { state: State::HalfOpen, ..Export::default() });
        assert_eq!(scene.calls("F"), State::Open);
    }
}

// R
#[test]
fn conformance_23_four_permits_and_no_fifth_in_each_cycle() {
    let mut scene = Scene::half_open(four_probes());
    for _ in 0..2 {
        let probes = [scene.admit(), scene.admit(), scene.admit(), scene.admit()];
        scene.denied();
        scene.denied();
        assert_eq!(scene.breaker.snapshot(scene.now).probes, 4);
        for probe in probes {
            scene.end(probe, ResultKind::Failure);
        }
        assert_eq!(scene.state(), State::Open);
        scene.wait(5 * SECOND);
    }
}

// R
#[test]
fn conformance_24_another_call_is_admitted_for_a_released_permit() {
    let mut scene = Scene::half_open(four_probes());
    let probes = [scene.admit(), scene.admit(), scene.admit(), scene.admit()];
    scene.breaker.release(scene.now, probes[2]);
    assert!(scene.admit().is_probe());
    scene.denied();
}

#[test]
fn another_call_may_probe_after_a_dropped_probe() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::half_open(settings);
        let probe = scene.admit();
        scene.denied();
        scene.breaker.release(scene.now, probe);
        assert_eq!(scene.calls("S"), State::Closed);
    }
}

// R
#[test]
fn conformance_25_three_of_four_failing_opens() {
    let mut scene = Scene::half_open(four_probes());
    assert_eq!(scene.calls("FFS"), State::HalfOpen);
    assert_eq!(scene.calls("F"), State::Open);
    let judged = &scene.breaker.take_changes()[0];
    assert_eq!((judged.counts.failures, judged.counts.completed), (3, 4));
}

// R
#[test]
fn conformance_26_three_of_four_slow_opens() {
    let slow_call = Some(SlowCall { longer_than: SECOND, threshold: 50 });
    let mut scene = Scene::half_open(BreakerParameters { slow_call, ..four_probes() });
    assert_eq!(scene.calls("sSss"), State::Open);
}

// R
#[test]
fn conformance_27_one_of_four_failing_closes_and_clears() {
    let mut scene = Scene::half_open(four_probes());
    assert_eq!(scene.calls("FSSS"), State::Closed);
    assert_eq!(scene.counts(), Counts::default());
}

// O: closing clears no counts.
#[test]
fn conformance_27_counts_stay_when_the_circuit_closes_as_opossum() {
    let mut scene = Scene::half_open(opossum());
    assert_eq!(scene.calls("S"), State::Closed);
    assert_eq!(scene.counts(), Counts { fires: 1, completed: 1, ..Counts::default() });
}

// R
#[test]
fn conformance_28_an_ignored_result_gives_the_permit_back_uncounted() {
    let mut scene = Scene::half_open(ours());
    assert_eq!(scene.calls("I"), State::HalfOpen);
    assert_eq!(scene.counts(), Counts::default());
    assert!(scene.admit().is_probe());
}

// R
#[test]
fn conformance_29_four_ignored_and_four_successes_close() {
    let mut scene = Scene::half_open(four_probes());
    assert_eq!(scene.calls("IIII"), State::HalfOpen);
    assert_eq!(scene.calls("SSSS"), State::Closed);
}

// R
#[test]
fn conformance_30_a_probe_without_a_result_in_time_opens_again() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::half_open(BreakerParameters { probe_timeout: SECOND, ..settings });
        let hung = scene.admit();
        scene.wait(SECOND - Duration::from_millis(1));
        assert_eq!(scene.denied().retry_after, Duration::from_millis(1));
        scene.wait(Duration::from_millis(1));
        assert_eq!(scene.denied(), Denied { state: State::Open, retry_after: 5 * SECOND, may_end_early: false });
        scene.end(hung, ResultKind::Success);
        assert_eq!(scene.state(), State::Open);
        assert_eq!(scene.breaker.take_changes()[0].cause, Cause::ProbeTimeout);
    }
}

/// The limit of the call counts if it is longer than the probe timeout. A little time is added to record the result.
#[test]
fn a_probe_has_the_time_of_its_call_and_a_little_to_record_the_result() {
    for settings in [ours(), opossum()] {
        let mut scene = Scene::half_open(BreakerParameters { probe_timeout: SECOND, ..settings });
        let probe = scene.admit();
        scene.breaker.limit_call(probe, Deadline::after(scene.now, 20 * SECOND));
        scene.breaker.limit_call(probe, Deadline::after(scene.now, SECOND / 2));
        scene.wait(20 * SECOND);
        assert_eq!(scene.state(), State::HalfOpen);
        scene.wait(SECOND);
        assert_eq!(scene.state(), State::Open, "the probe has hung");
        scene.breaker.limit_call(probe, Deadline::after(scene.now, 20 * SECOND));
        assert_eq!(scene.state(), State::Open, "the call is no longer a probe");
    }
}

#[test]
fn the_open_state_begins_when_the_probe_times_out_even_if_it_is_noticed_later() {
    let mut scene = Scene::half_open(BreakerParameters { probe_timeout: SECOND, ..ours() });
    let _hung = scene.admit();
    scene.wait(6 * SECOND);
    assert_eq!(scene.state(), State::HalfOpen);
    assert_eq!(scene.changes(), [State::Open, State::HalfOpen]);
    assert_eq!(scene.calls("S"), State::Closed);
}

#[test]
fn no_probe_under_way_is_no_failure() {
    let mut scene = Scene::half_open(BreakerParameters { probe_timeout: SECOND, ..ours() });
    let probe = scene.admit();
    scene.breaker.release(scene.now, probe);
    scene.wait(60 * SECOND);
    assert_eq!(scene.state(), State::HalfOpen);
}

#[test]
fn stale_results_decide_nothing_in_half_open() {
    for outcome in [ResultKind::Success, ResultKind::Failure] {
        let mut scene = Scene::new(ours());
        let stale = scene.admit();
        scene.calls("F");
        scene.wait(5 * SECOND);
        assert_eq!(scene.state(), State::HalfOpen);
        scene.end(stale, outcome);
        assert_eq!(scene.state(), State::HalfOpen);
        assert!(scene.admit().is_probe());
    }
}

// O
#[test]
fn stale_results_decide_in_half_open_as_opossum() {
    for (outcome, expected) in [(ResultKind::Success, State::Closed), (ResultKind::Failure, State::Open)] {
        let mut scene = Scene::new(opossum());
        let stale = scene.admit();
        scene.calls("FF");
        scene.wait(5 * SECOND);
        assert_eq!(scene.state(), State::HalfOpen);
        scene.end(stale, outcome);
        assert_eq!(scene.state(), expected);
    }
}

#[test]
fn a_probe_of_an_earlier_half_open_state_decides_nothing() {
    let mut scene = Scene::half_open(BreakerParameters { probe_timeout: SECOND, ..ours() });
    let hung = scene.admit();
    scene.wait(6 * SECOND);
    let probe = scene.admit();
    scene.end(hung, ResultKind::Success);
    assert_eq!(scene.state(), State::HalfOpen);
    scene.denied();
    scene.end(probe, ResultKind::Success);
    assert_eq!(scene.state(), State::Closed);
}

#[test]
fn one_failure_after_the_close_does_not_open() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 2, ..ours() });
    scene.calls("FF");
    scene.wait(5 * SECOND);
    scene.calls("S");
    assert_eq!(scene.calls("F"), State::Closed);
}

// O
#[test]
fn one_failure_after_the_close_opens_as_opossum() {
    let mut scene = Scene::new(opossum());
    scene.calls("F");
    scene.wait(5 * SECOND);
    scene.calls("S");
    assert_eq!(scene.calls("F"), State::Open);
}
