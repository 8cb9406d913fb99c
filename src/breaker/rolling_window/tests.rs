//! The policy, in failsafe's state machine; and that machine beside our breaker. Both clocks, Tokio's and failsafe's, are turned by hand.

use std::sync::{Arc, Mutex};

use failsafe::clock::{MockClock, freeze};
use failsafe::{FailurePolicy, Instrument, StateMachine};
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
fn what_cannot_be_used_is_refused_by_name() {
    let error = RollingWindow::new(config().rolling_buckets(0)).unwrap_err();
    assert_eq!(error.setting(), "rolling_buckets");
}

/// The state of a failsafe machine, as it tells it.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<State>>>);

impl Told {
    fn state(&self) -> State {
        self.0.lock().unwrap().unwrap()
    }

    fn is_now(&self, state: State) {
        *self.0.lock().unwrap() = Some(state);
    }
}

impl Instrument for Told {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.is_now(State::Open);
    }

    fn on_half_open(&self) {
        self.is_now(State::HalfOpen);
    }

    fn on_closed(&self) {
        self.is_now(State::Closed);
    }
}

#[derive(Debug, Clone, Copy)]
enum Ends {
    Well,
    Badly,
    /// Dropped, say.
    WithoutAWord,
}

/// One call after the other: failsafe knows no others, as its results belong to no permission.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// In milliseconds, before the call.
    pause: u32,
    /// In milliseconds. A slow call may outlast the window.
    takes: u32,
    ends: Ends,
}

async fn wait(clock: &mut MockClock, ms: u32) {
    clock.advance(ms * MS);
    time::advance(ms * MS).await;
}

/// Both are asked and told the same, and have to be in the same state whenever somebody has asked or told. Between, they differ in name: failsafe's
/// open state ends when it is asked.
///
/// Each defines something that the other does not, which is made up for:
/// - We judge successes too: with one, there may be enough calls. Where we open by it, failsafe is told of the failure that it waits for.
/// - The probe that closes a circuit counts in failsafe's new window, not in ours. Ours gets one more success.
/// - A probe may hang for as long as it likes: failsafe has no bound, so ours is out of reach.
/// - We open, too, when nothing has succeeded for a while. There the comparison ends.
/// - At the very instant when the reset timeout is over, we probe and failsafe does not: no step ends there, as it is not in milliseconds.
async fn stay_together(clock: &mut MockClock, config: &BreakerConfig, steps: &[Step]) -> Vec<State> {
    let told = Told::default();
    let ours = CircuitBreaker::new(config.clone()).unwrap();
    let theirs = StateMachine::new(RollingWindow::new(config.clone()).unwrap(), told.clone());
    let mut seen = Vec::new();
    for step in steps {
        wait(clock, step.pause).await;
        let permit = ours.try_acquire();
        assert_eq!(permit.is_ok(), theirs.is_call_permitted());
        let asked = ours.state();
        assert_eq!(asked, told.state());
        if let Ok(permit) = permit {
            wait(clock, step.takes).await;
            match step.ends {
                Ends::Well => {
                    permit.success();
                    theirs.on_success();
                }
                Ends::Badly => {
                    permit.failure();
                    theirs.on_error();
                }
                Ends::WithoutAWord => permit.ignore(),
            }
        }
        let last = ours.snapshot().history.last().map(|past| past.transition.cause.clone());
        if matches!(last, Some(Cause::NothingSucceeds { .. })) {
            break;
        }
        match (asked, step.ends, ours.state()) {
            (State::Closed, Ends::Well, State::Open) => theirs.on_error(),
            (State::HalfOpen, Ends::Well, State::Closed) => ours.try_acquire().unwrap().success(),
            _ => {}
        }
        assert_eq!(ours.state(), told.state());
        seen.extend([asked, told.state()]);
    }
    seen
}

/// The states that both went through.
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
    let ends = prop_oneof![4 => Just(Ends::Well), 4 => Just(Ends::Badly), 1 => Just(Ends::WithoutAWord)];
    (pause, takes, ends).prop_map(|(pause, takes, ends)| Step { pause, takes, ends })
}

proptest! {
    #[test]
    fn our_breaker_and_failsafes_machine_stay_together(config in configs(), steps in prop::collection::vec(steps(), 1..80)) {
        run(&config, &steps);
    }
}

#[test]
fn they_go_through_every_state_together() {
    let step = |pause, ends| Step { pause, takes: 0, ends };
    let fails = [step(0, Ends::Badly); 4];
    let probes = [step(0, Ends::Well), step(5_001, Ends::WithoutAWord), step(0, Ends::Badly), step(5_001, Ends::Well)];
    let seen = run(&config(), &[fails, probes, fails].concat());
    let mut changes = seen;
    changes.dedup();
    let (closed, open, half_open) = (State::Closed, State::Open, State::HalfOpen);
    assert_eq!(changes, [closed, open, half_open, open, half_open, closed, open]);
}
