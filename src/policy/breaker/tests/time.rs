//! How long the circuit stays open, and which events end that early.

use super::*;

// R
#[test]
fn conformance_21_rejected_and_counted_until_the_reset_timeout_is_over() {
    let mut scene = Scene::new(ours());
    scene.calls("F");
    scene.wait(3 * SECOND);
    assert_eq!(scene.denied().retry_after, 2 * SECOND);
    assert_eq!(
        scene.breaker.check(scene.now),
        Err(Denied { state: State::Open, retry_after: 2 * SECOND, may_end_early: false })
    );
    assert_eq!(scene.counts().rejected, 2);
    scene.wait(3 * SECOND);
    assert_eq!(scene.breaker.check(scene.now), Ok(()));
    assert!(scene.admit().is_probe());
    assert_eq!(scene.counts().rejected, 2);
}

// R
#[test]
fn conformance_22_the_next_opening_lasts_longer_if_growth_is_set() {
    let growth = Some(Growth { factor: 3.0, cap: 40 * SECOND });
    let mut scene = Scene::new(BreakerParameters { growth, ..ours() });
    for seconds in [5, 15, 40, 40] {
        scene.calls("F");
        assert_eq!(scene.denied().retry_after, seconds * SECOND);
        scene.wait(seconds * SECOND);
    }
    scene.calls("S");
    scene.calls("F");
    assert_eq!(scene.denied().retry_after, 5 * SECOND);
}

#[test]
fn growth_never_overflows() {
    let growth = Some(Growth { factor: 100.0, cap: 60 * SECOND });
    let settings = BreakerParameters { growth, ..ours() };
    assert_eq!(settings.open_for(u32::MAX, 0.0), 60 * SECOND);
}

#[test]
fn jitter_only_adds_and_is_drawn_for_each_opening() {
    let mut scene = Scene::new(BreakerParameters { jitter: 10, ..ours() });
    for (random01, retry_after) in [(0.0, 5.0), (1.0, 5.5), (0.5, 5.25)] {
        let ticket = scene.admit();
        scene.breaker.record(scene.now, ticket, ResultKind::Failure, Duration::ZERO, || random01);
        assert_eq!(scene.denied().retry_after, Duration::from_secs_f64(retry_after));
        scene.wait(6 * SECOND);
    }
}

#[test]
fn jitter_is_drawn_only_when_the_circuit_opens() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 3, ..ours() });
    for outcome in [ResultKind::Failure, ResultKind::Success, ResultKind::Ignored] {
        let ticket = scene.admit();
        scene.breaker.record(scene.now, ticket, outcome, Duration::ZERO, || unreachable!());
    }
}

#[test]
fn a_server_that_answers_again_is_probed_at_once() {
    let mut scene = Scene::new(BreakerParameters { volume_threshold: 5, ..ours() });
    scene.calls("SSUUF");
    scene.breaker.on_server_answer(scene.now);
    assert_eq!(scene.state(), State::HalfOpen);
    assert_eq!(scene.calls("S"), State::Closed);
    assert_eq!(scene.breaker.take_changes()[1].cause, Cause::ServerAnswers);
}

#[test]
fn a_server_that_never_stopped_answering_is_not_probed_early() {
    let slow_call = Some(SlowCall { longer_than: SECOND, threshold: 50 });
    // In the first case most failures were answers. In the second, most calls were slow.
    for calls in ["UUFFF", "SssUs"] {
        let mut scene = Scene::new(BreakerParameters { volume_threshold: 5, slow_call, ..ours() });
        assert_eq!(scene.calls(calls), State::Open);
        scene.breaker.on_server_answer(scene.now);
        assert_eq!(scene.state(), State::Open);
    }
    // An answer does not change a closed circuit.
    let mut closed = Scene::new(ours());
    closed.breaker.on_server_answer(closed.now);
    assert_eq!(closed.state(), State::Closed);
}

#[test]
fn an_answer_helps_only_if_the_last_probe_did_not_reach_the_server() {
    for (probe, expected) in [("U", State::HalfOpen), ("F", State::Open)] {
        let mut scene = Scene::new(ours());
        scene.calls("U");
        scene.wait(5 * SECOND);
        scene.calls(probe);
        scene.breaker.on_server_answer(scene.now);
        assert_eq!(scene.state(), expected);
    }
}

#[test]
fn a_hanging_probe_does_not_change_whether_an_answer_helps() {
    for (call, expected) in [("U", State::HalfOpen), ("F", State::Open)] {
        let mut scene = Scene::new(ours());
        scene.calls(call);
        scene.wait(5 * SECOND);
        let _hangs = scene.admit();
        scene.wait(10 * SECOND);
        assert_eq!(scene.state(), State::Open);
        scene.breaker.on_server_answer(scene.now);
        assert_eq!(scene.state(), expected);
    }
}

#[test]
fn history_keeps_the_last_sixteen_transitions_with_age_and_cause() {
    let mut scene = Scene::new(ours());
    for _ in 0..10 {
        scene.calls("F");
        scene.wait(5 * SECOND);
    }
    scene.wait(SECOND);
    let history = scene.breaker.snapshot(scene.now).history;
    assert_eq!(history.len(), REMEMBERED);
    assert_eq!(
        history[15].transition.to_string(),
        "open -> half-open: the reset timeout was over (1 of 1 call failed)"
    );
    let line = history[14].transition.to_string();
    assert_eq!(line, "half-open -> open: the probes failed (1 of 1 probe failed)");
    assert_eq!(history[14].age, 6 * SECOND);
    assert!(history.windows(2).all(|pair| pair[0].transition.number < pair[1].transition.number));
}
