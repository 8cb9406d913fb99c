//! The policy in failsafe's state machine, and that machine beside our breaker. The tests advance both clocks, Tokio's
//! and failsafe's.

use std::sync::Arc;

use failsafe::clock::{MockClock, freeze};
use failsafe::{FailurePolicy, Instrument, StateMachine};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::time;

use super::*;
use crate::breaker::{Cause, CircuitBreaker, State};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> BreakerConfig {
    BreakerConfig::default().reset_timeout(5 * SECOND).reset_timeout_jitter(0).volume_threshold(4)
}

#[tokio::test(start_paused = true)]
async fn opens_at_the_threshold_of_the_window() {
    let mut policy = RollingWindow::new(config()).unwrap();
    policy.record_success();
    policy.record_success();
    assert_eq!(policy.mark_dead_on_failure(), None, "too few");
    time::advance(11 * SECOND).await;
    policy.record_success();
    policy.record_success();
    policy.record_success();
    assert_eq!(policy.mark_dead_on_failure(), None, "1 of 4");
    assert_eq!(policy.mark_dead_on_failure(), None, "2 of 5");
    assert_eq!(policy.mark_dead_on_failure(), Some(5 * SECOND), "3 of 6");
}

#[test]
fn a_probe_that_fails_opens_again_for_longer_until_revived() {
    let config = config().volume_threshold(2).reset_timeout_growth(2.0, 15 * SECOND);
    let mut policy = RollingWindow::new(config).unwrap();
    assert_eq!(policy.mark_dead_on_failure(), None);
    let pauses = [(); 4].map(|()| policy.mark_dead_on_failure());
    assert_eq!(pauses, [5, 10, 15, 15].map(|seconds| Some(seconds * SECOND)));
    policy.revived();
    assert_eq!(policy.mark_dead_on_failure(), None);
    assert_eq!(policy.mark_dead_on_failure(), Some(5 * SECOND));
}

#[test]
fn a_bad_setting_is_refused_by_name() {
    let error = RollingWindow::new(config().rolling_buckets(0)).unwrap_err();
    assert_eq!(error.setting(), "rolling_buckets");
}

/// The state that a failsafe machine has reported last.
#[derive(Clone, Default)]
struct LastState(Arc<Mutex<Option<State>>>);

impl LastState {
    fn state(&self) -> State {
        self.0.lock().unwrap()
    }

    fn set(&self, state: State) {
        *self.0.lock() = Some(state);
    }
}

impl Instrument for LastState {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.set(State::Open);
    }

    fn on_half_open(&self) {
        self.set(State::HalfOpen);
    }

    fn on_closed(&self) {
        self.set(State::Closed);
    }
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Success,
    Failure,
    /// The call is dropped, for example.
    Ignored,
}

/// One call. Each begins after the one before has ended, because failsafe does not connect a result with the permission
/// of its call.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The time before the call, in milliseconds.
    pause: u32,
    /// The duration of the call, in milliseconds. A slow call may outlast the window.
    takes: u32,
    ending: Ending,
}

async fn wait(clock: &mut MockClock, ms: u32) {
    clock.advance(ms * MS);
    time::advance(ms * MS).await;
}

/// Both breakers get the same questions and results. After each of them, both have to be in the same state. In between,
/// the states may differ, because failsafe's open state ends only when it is asked.
///
/// The test evens out these differences:
/// - Our breaker also judges after a success, which may be the call that makes the minimum. If it opens then, failsafe
///   gets one more failure.
/// - The probe that closes the circuit counts in failsafe's new window, but not in ours. Ours gets one more success.
/// - failsafe has no probe timeout, so ours is 24 hours.
/// - Our breaker also opens when nothing has succeeded for a while. There the comparison ends.
/// - At the exact instant when the reset timeout is over, our breaker probes and failsafe does not. The timeout is no
///   whole number of milliseconds, so no step ends there.
async fn stay_together(clock: &mut MockClock, config: &BreakerConfig, steps: &[Step]) -> Vec<State> {
    let their_state = LastState::default();
    let ours = CircuitBreaker::new(config.clone()).unwrap();
    let theirs = StateMachine::new(RollingWindow::new(config.clone()).unwrap(), their_state.clone());
    let mut seen = Vec::new();
    for step in steps {
        wait(clock, step.pause).await;
        let permit = ours.try_acquire();
        assert_eq!(permit.is_ok(), theirs.is_call_permitted());
        let asked = ours.state();
        assert_eq!(asked, their_state.state());
        if let Ok(permit) = permit {
            wait(clock, step.takes).await;
            match step.ending {
                Ending::Success => {
                    permit.success();
                    theirs.on_success();
                }
                Ending::Failure => {
                    permit.failure();
                    theirs.on_error();
                }
                Ending::Ignored => permit.ignore(),
            }
        }
        let last = ours.snapshot().history.last().map(|past| past.transition.cause.clone());
        if matches!(last, Some(Cause::NothingSucceeds { .. })) {
            break;
        }
        match (asked, step.ending, ours.state()) {
            (State::Closed, Ending::Success, State::Open) => theirs.on_error(),
            (State::HalfOpen, Ending::Success, State::Closed) => ours.try_acquire().unwrap().success(),
            _ => {}
        }
        assert_eq!(ours.state(), their_state.state());
        seen.extend([asked, their_state.state()]);
    }
    seen
}

/// Returns the states that both went through.
fn run(config: &BreakerConfig, steps: &[Step]) -> Vec<State> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    freeze(|clock| runtime.block_on(stay_together(clock, config, steps)))
}

fn configs() -> impl Strategy<Value = BreakerConfig> {
    (1u8..=100, 0u64..8, 1u32..5, 1u8..3).prop_map(|(threshold, volume, buckets, growth)| {
        config()
            .error_threshold_percentage(threshold)
            .volume_threshold(volume)
            .rolling_window(SECOND)
            .rolling_buckets(buckets)
            .reset_timeout(Duration::from_micros(1_000_300))
            .reset_timeout_growth(growth.into(), Duration::from_micros(3_000_300))
            .probe_timeout(24 * 3600 * SECOND)
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![4 => Just(0), 4 => 0u32..100, 1 => 0u32..2_500];
    let takes = prop_oneof![6 => Just(0), 1 => 0u32..400, 1 => 0u32..2_500];
    let ending = prop_oneof![4 => Just(Ending::Success), 4 => Just(Ending::Failure), 1 => Just(Ending::Ignored)];
    (pause, takes, ending).prop_map(|(pause, takes, ending)| Step { pause, takes, ending })
}

proptest! {
    #[test]
    fn our_breaker_and_failsafes_machine_stay_together(config in configs(), steps in prop::collection::vec(steps(), 1..80)) {
        run(&config, &steps);
    }
}

#[test]
fn both_go_through_every_state() {
    let step = |pause, ending| Step { pause, takes: 0, ending };
    let fails = [step(0, Ending::Failure); 4];
    let probes = [
        step(0, Ending::Success),
        step(5_001, Ending::Ignored),
        step(0, Ending::Failure),
        step(5_001, Ending::Success),
    ];
    let seen = run(&config(), &[fails, probes, fails].concat());
    let mut changes = seen;
    changes.dedup();
    let (closed, open, half_open) = (State::Closed, State::Open, State::HalfOpen);
    assert_eq!(changes, [closed, open, half_open, open, half_open, closed, open]);
}
