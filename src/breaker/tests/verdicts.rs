//! The caller's verdict on a call.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_verdict_counts_whatever_the_call_returns() {
    for config in [config(), BreakerConfig::opossum()] {
        let config = config.error_threshold_percentage(100).volume_threshold(100);
        for (verdict, completed, failures) in
            [(Verdict::Success, 1, 0), (Verdict::Failure, 1, 1), (Verdict::Ignore, 0, 0)]
        {
            let breaker = || CircuitBreaker::new(config.clone()).unwrap().with_timeout(SECOND);
            let is_counted = |breaker: CircuitBreaker| {
                let counts = breaker.snapshot().counts;
                assert_eq!((counts.completed, counts.failures), (completed, failures), "{verdict:?}");
            };
            let good = breaker();
            assert_eq!(good.call_judged(|_| verdict, succeed()).await, Ok(7));
            is_counted(good);
            let bad = breaker();
            assert_eq!(bad.call_judged(|_| verdict, fail()).await, Err(CallError::Failed("broken")));
            is_counted(bad);
            let late = breaker();
            let result = late.call_judged(|_| verdict, takes(2 * SECOND)).await;
            assert_eq!(result, Err(CallError::Timeout { name: None, after: SECOND }));
            is_counted(late);
            let by_hand = breaker();
            by_hand.try_acquire().unwrap().record(verdict);
            is_counted(by_hand);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_judging_closure_gets_the_result_that_the_caller_gets() {
    let breaker = breaker();
    let verdict_of = |result: Result<&u32, &CallError<&str>>| {
        assert_eq!(result, Ok(&7));
        Verdict::Failure
    };
    assert_eq!(breaker.call_judged(verdict_of, succeed()).await, Ok(7));
    assert_eq!(breaker.state(), State::Open);
    let verdict_of = |_: Result<&u32, &CallError<&str>>| panic!("a rejected call has no result");
    assert!(matches!(breaker.call_judged(verdict_of, succeed()).await, Err(CallError::Open { .. })));
}

#[tokio::test(start_paused = true)]
async fn after_an_ignored_probe_another_call_may_probe() {
    let breaker = breaker();
    breaker.import(&half_open());
    breaker.call_judged(|_| Verdict::Ignore, succeed()).await.unwrap();
    assert_eq!((breaker.state(), breaker.snapshot().probes), (State::HalfOpen, 0));
    breaker.call_judged(|_| Verdict::Success, fail()).await.unwrap_err();
    assert_eq!(breaker.state(), State::Closed);
}

/// A panic of the judging closure is a bug of the service and says nothing about the dependency.
#[tokio::test(start_paused = true)]
async fn after_a_panic_of_the_judging_closure_another_call_may_probe() {
    let breaker = breaker().with_capacity(1);
    breaker.import(&half_open());
    let verdict_of = |_: Result<&u32, &CallError<&str>>| panic!("a test");
    let clone = breaker.clone();
    tokio::spawn(async move { clone.call_judged(verdict_of, succeed()).await }).await.unwrap_err();
    assert_eq!((breaker.state(), breaker.snapshot().probes), (State::HalfOpen, 0));
    assert_eq!(breaker.call(succeed()).await, Ok(7));
}
