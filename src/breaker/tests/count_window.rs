//! A window of the last calls, whatever their age.

use super::*;
use crate::policy::ResultKind;

fn breaker(calls: u32, volume: u64) -> CircuitBreaker {
    CircuitBreaker::new(config().count_window(calls).volume_threshold(volume)).unwrap()
}

/// Makes one call an hour: `S` succeeds, `F` fails.
async fn hourly(breaker: &CircuitBreaker, calls: &str) -> State {
    for letter in calls.chars() {
        tokio::time::advance(3_600 * SECOND).await;
        let permit = breaker.try_acquire().unwrap();
        if letter == 'S' { permit.success() } else { permit.failure() }
    }
    breaker.state()
}

// R: a count-based window of 10 with a threshold of 50%.
#[tokio::test(start_paused = true)]
async fn rare_calls_are_remembered() {
    let breaker = breaker(10, 10);
    assert_eq!(hourly(&breaker, "SFSFSFSFS").await, State::Closed, "nine calls are too few");
    assert_eq!(hourly(&breaker, "F").await, State::Open);
    assert_eq!(breaker.snapshot().failure_rate, Some(50.0));
}

/// A window of ten seconds never has more than one call an hour.
#[tokio::test(start_paused = true)]
async fn a_window_of_time_forgets_rare_calls() {
    let by_time = CircuitBreaker::new(config().volume_threshold(10)).unwrap();
    assert_eq!(hourly(&by_time, "SFSFSFSFSFSFSFSF").await, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_new_call_replaces_the_oldest() {
    let breaker = breaker(4, 4);
    assert_eq!(hourly(&breaker, "FSSSFSSSF").await, State::Closed, "at most one of four calls failed");
    assert_eq!(hourly(&breaker, "F").await, State::Open, "two of four calls failed");
}

#[tokio::test(start_paused = true)]
async fn successes_need_no_lock() {
    let breaker = breaker(4, 1);
    let now = now();
    let record = |now, outcome| breaker.shared.record(now, breaker.shared.admit(now).unwrap(), outcome, Duration::ZERO);
    record(now, ResultKind::Success);
    let locked = breaker.shared.hold_lock();
    record(now, ResultKind::Success);
    record(now + 3_600 * SECOND, ResultKind::Success);
    drop(locked);
    assert_eq!(breaker.snapshot().counts.completed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_close_clears_the_window_and_an_import_fills_it() {
    let one = breaker(4, 4);
    hourly(&one, "FFFF").await;
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(hourly(&one, "S").await, State::Closed);
    assert_eq!(one.snapshot().counts, Counts::default());
    hourly(&one, "FSS").await;
    let other = breaker(4, 4);
    other.import(&one.export());
    assert_eq!(hourly(&other, "F").await, State::Open, "two of four calls failed");
}
