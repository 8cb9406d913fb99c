//! Calls through a breaker and their errors, by the conformance cases of opossum (O) and resilience4j (R).

use std::io;

use super::*;

// O
#[tokio::test(start_paused = true)]
async fn conformance_01_a_rejected_call_is_not_begun() {
    for breaker in [breaker(), opossum()] {
        assert_eq!(breaker.call(fail()).await, Err(CallError::Failed("broken")));
        let begun = Cell::new(false);
        let call = async {
            begun.set(true);
            succeed().await
        };
        assert!(matches!(breaker.call(call).await, Err(CallError::Open { .. })));
        assert!(!begun.get());
    }
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_14_a_success_after_the_reset_timeout_closes() {
    let breaker = breaker();
    let _ = breaker.call(fail()).await;
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.call(succeed()).await, Ok(7));
    assert_eq!(breaker.state(), State::Closed);
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_17_a_filtered_error_on_the_probe_closes() {
    let breaker = breaker();
    let _ = breaker.call(fail()).await;
    tokio::time::advance(5 * SECOND).await;
    let answer = breaker.call_with(|error| *error != "broken", fail()).await;
    assert_eq!(answer, Err(CallError::Failed("broken")));
    assert_eq!(breaker.state(), State::Closed);
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_37_the_caller_gets_a_filtered_error_which_counts_as_a_success() {
    for breaker in [breaker(), opossum()] {
        let answer = breaker.call_with(|_| false, fail()).await;
        assert_eq!(answer, Err(CallError::Failed("broken")));
        let counts = breaker.snapshot().counts;
        assert_eq!((counts.failures, counts.successes()), (0, 1));
    }
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_38_a_timeout_is_a_failure_with_its_duration_and_frees_the_place() {
    for breaker in [breaker(), opossum()] {
        let breaker = breaker.with_timeout(SECOND).with_capacity(1);
        let begun = now();
        let hangs = std::future::pending::<Result<u32, &str>>();
        assert_eq!(breaker.call(hangs).await, Err(CallError::Timeout { name: None, after: SECOND }));
        assert_eq!(now() - begun, SECOND);
        assert_eq!(breaker.snapshot().counts.failures, 1);
        assert_eq!(breaker.state(), State::Open);
        tokio::time::advance(31 * SECOND).await;
        assert_eq!(breaker.call(succeed()).await, Ok(7));
    }
}

// O: the call is refused and counted once. In our rule a refusal says nothing about the dependency.
#[tokio::test(start_paused = true)]
async fn conformance_39_a_call_without_a_place_is_refused_and_counted_once() {
    let breaker = breaker().with_capacity(1);
    let mut first = Box::pin(breaker.call(std::future::pending::<Result<u32, &str>>()));
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(breaker.clone().call(succeed()).await, Err(CallError::Busy { name: None }));
    assert_eq!(breaker.snapshot().counts, counts(|counts| counts.busy = 1));
    drop(first);
    assert_eq!(breaker.call(succeed()).await, Ok(7));
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_39_a_call_without_a_place_is_a_failure_as_opossum() {
    let breaker =
        CircuitBreaker::new(BreakerConfig::opossum().error_threshold_percentage(60)).unwrap().with_capacity(1);
    let mut first = Box::pin(breaker.call(std::future::pending::<Result<u32, &str>>()));
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(breaker.call(succeed()).await, Err(CallError::Busy { name: None }));
    let expected = counts(|counts| (counts.fires, counts.busy, counts.completed, counts.failures) = (2, 1, 1, 1));
    assert_eq!(breaker.snapshot().counts, expected);
}

fn counts(set: impl FnOnce(&mut Counts)) -> Counts {
    let mut counts = Counts::default();
    set(&mut counts);
    counts
}

// R
#[tokio::test(start_paused = true)]
async fn conformance_42_a_dropped_call_records_nothing_and_frees_its_place_and_permit() {
    let breaker = breaker().with_capacity(1);
    let _ = breaker.call(fail()).await;
    tokio::time::advance(5 * SECOND).await;
    let before = breaker.snapshot().counts;
    let mut probe = Box::pin(breaker.call(std::future::pending::<Result<u32, &str>>()));
    assert!(probe.as_mut().now_or_never().is_none());
    assert_eq!(breaker.snapshot().probes, 1);
    drop(probe);
    let after = breaker.snapshot();
    assert_eq!((after.counts, after.probes, after.state), (before, 0, State::HalfOpen));
    assert_eq!(breaker.call(succeed()).await, Ok(7));
}

// O
#[test]
fn conformance_43_a_failing_health_check_opens() {
    for breaker in [breaker(), opossum()] {
        breaker.record_health_check(true);
        assert_eq!(breaker.state(), State::Closed);
        breaker.record_health_check(false);
        assert_eq!(breaker.state(), State::Open);
    }
}

// O
#[tokio::test]
async fn conformance_44_after_shutdown_calls_fail() {
    let breaker = breaker();
    breaker.shutdown();
    assert_eq!(breaker.call(succeed()).await, Err(CallError::ShutDown { name: None }));
    assert_eq!(breaker.state(), State::ShutDown);
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_44_export_and_import_round_trip() {
    let (one, other) = (breaker(), breaker());
    let _ = one.call(fail()).await;
    tokio::time::advance(2 * SECOND).await;
    other.import(&one.export());
    assert_eq!(other.export(), one.export());
    assert_eq!(other.call(succeed()).await, Err(CallError::Open { name: None, retry_after: 3 * SECOND }));
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_opens_the_circuit() {
    let breaker = CircuitBreaker::new(config().slow_call(SECOND, 50)).unwrap();
    let slow = async {
        tokio::time::sleep(2 * SECOND).await;
        succeed().await
    };
    assert_eq!(breaker.call(slow).await, Ok(7));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn an_error_is_one_line() {
    let error = CallError::Failed(io::Error::other("broken"));
    assert_eq!(error.to_string(), "broken");
    let open: CallError<io::Error> = CallError::Open { name: None, retry_after: SECOND };
    assert_eq!(open.to_string(), "the circuit is open; come back in 1s");
    let breaker = breaker();
    breaker.force_open("maintenance");
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.to_string(), "the circuit is forced open; come back in 5s");
}

#[test]
fn a_breaker_is_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync + Clone + std::fmt::Debug + 'static>(_: &T) {}
    fn is_send<T: Send>(_: T) {}
    let breaker = breaker();
    is_send_and_sync(&breaker);
    is_send(breaker.call(succeed()));
    is_send(breaker.try_acquire());
}
