//! The effects of orders on calls.

use super::*;

/// A disabled breaker of opossum returns neither `Busy` nor `Timeout` either.
#[tokio::test(start_paused = true)]
async fn a_disabled_breaker_limits_neither_number_nor_time() {
    for config in [config(), BreakerConfig::opossum()] {
        let breaker = CircuitBreaker::new(config).unwrap().with_capacity(1).with_timeout(SECOND / 2);
        breaker.disable("a test");
        let mut first = Box::pin(breaker.call(takes(SECOND)));
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(breaker.call(takes(2 * SECOND)).await, Ok(7));
        assert_eq!(first.await, Ok(7));
        assert_eq!(breaker.call(fail()).await, Err(CallError::Failed("broken")));
        breaker.try_acquire().unwrap().failure();
        assert_eq!(breaker.snapshot().counts, Counts::default());

        breaker.enable("a test");
        assert!(matches!(breaker.call(takes(SECOND)).await, Err(CallError::Timeout { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_with_metrics_only_limits_number_and_time() {
    let breaker = breaker().with_capacity(1).with_timeout(SECOND / 2);
    breaker.metrics_only("a test");
    let mut first = Box::pin(breaker.call(takes(SECOND)));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(matches!(breaker.call(succeed()).await, Err(CallError::Busy { .. })));
    assert!(matches!(first.await, Err(CallError::Timeout { .. })));
}

/// A call that begins while the breaker is disabled never counts. An earlier call keeps its place and its timeout.
#[tokio::test(start_paused = true)]
async fn the_limits_of_a_call_are_fixed_when_it_begins() {
    let breaker = breaker().with_capacity(1).with_timeout(SECOND);
    let mut before = Box::pin(breaker.call(takes(2 * SECOND)));
    assert!(before.as_mut().now_or_never().is_none());
    breaker.disable("a test");
    let mut meanwhile = Box::pin(breaker.call(takes(2 * SECOND)));
    assert!(meanwhile.as_mut().now_or_never().is_none());
    breaker.enable("a test");
    assert!(matches!(breaker.call(succeed()).await, Err(CallError::Busy { .. })));
    assert!(matches!(before.await, Err(CallError::Timeout { .. })));
    assert_eq!(meanwhile.await, Ok(7));
    assert_eq!(breaker.snapshot().counts.completed, 0, "both calls began in another state");
}

/// A service opens the circuit for a time after a 503 with `Retry-After`.
#[tokio::test(start_paused = true)]
async fn after_open_for_a_probe_closes_the_circuit() {
    let breaker = breaker();
    breaker.open_for(60 * SECOND, "Retry-After: 60");
    assert_eq!(breaker.call(succeed()).await, Err(CallError::Open { name: None, retry_after: 60 * SECOND }));
    tokio::time::advance(60 * SECOND).await;
    assert_eq!(breaker.call(succeed()).await, Ok(7));
    assert_eq!(breaker.state(), State::Closed);
    let history = breaker.snapshot().history;
    assert_eq!(history[0].transition.to_string(), "closed -> open: Retry-After: 60");
    assert!(history[0].transition.by.unwrap().file().ends_with("by_hand.rs"));
}

/// The time may come from a header, so it may have any value.
#[tokio::test(start_paused = true)]
async fn open_for_accepts_any_time() {
    let breaker = breaker();
    breaker.open_for(Duration::MAX, "Retry-After: 99999999999");
    let day = 24 * 3600 * SECOND;
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after, day);
    let breaker = super::breaker();
    breaker.open_for(Duration::ZERO, "Retry-After: 0");
    assert_eq!(breaker.state(), State::HalfOpen);
}
