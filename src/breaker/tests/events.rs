//! The name of a breaker, and what hooks are told of its calls.

use super::*;

type Told = Arc<Mutex<Vec<(Option<String>, CallOutcome, Duration)>>>;

fn told_by(config: BreakerConfig) -> (CircuitBreaker, Told) {
    let told: Told = Arc::default();
    let hook = {
        let told = Arc::clone(&told);
        move |event: &CallEvent<'_>| {
            told.lock().unwrap().push((event.name.map(str::to_owned), event.outcome, event.took))
        }
    };
    (CircuitBreaker::new(config.on_call(hook)).unwrap(), told)
}

#[tokio::test(start_paused = true)]
async fn each_call_is_told_once_with_its_outcome_and_its_time() {
    for config in [config(), BreakerConfig::opossum()] {
        let config = config.name("stock").error_threshold_percentage(100).volume_threshold(100);
        let (breaker, told) = told_by(config);
        let breaker = breaker.with_timeout(5 * SECOND).with_capacity(1);
        breaker.call(takes(SECOND)).await.unwrap();
        breaker.call(fail()).await.unwrap_err();
        breaker.call_with(|_| false, fail()).await.unwrap_err();
        breaker.call_judged(|_| Verdict::Ignore, takes(2 * SECOND)).await.unwrap();
        breaker.call(takes(9 * SECOND)).await.unwrap_err();
        breaker.call_judged(|_| Verdict::Success, takes(9 * SECOND)).await.unwrap_err();
        let mut dropped = Box::pin(breaker.call(takes(9 * SECOND)));
        assert!(dropped.as_mut().now_or_never().is_none());
        breaker.call(succeed()).await.unwrap_err();
        tokio::time::advance(3 * SECOND).await;
        drop(dropped);
        breaker.force_open("a test");
        breaker.call(succeed()).await.unwrap_err();
        drop(breaker.try_acquire());
        let expected = [
            (CallOutcome::Success, 1),
            (CallOutcome::Failure, 0),
            (CallOutcome::Success, 0),
            (CallOutcome::Ignored, 2),
            (CallOutcome::Timeout, 5),
            (CallOutcome::Timeout, 5),
            (CallOutcome::Busy, 0),
            (CallOutcome::Ignored, 3),
            (CallOutcome::Rejected, 0),
            (CallOutcome::Rejected, 0),
        ];
        let expected = expected.map(|(outcome, seconds)| (Some("stock".to_owned()), outcome, seconds * SECOND));
        assert_eq!(*told.lock().unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn permits_are_told_and_a_disabled_breaker_tells_nothing() {
    let (breaker, told) = told_by(config());
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().ignore();
    breaker.disable("a test");
    breaker.try_acquire().unwrap().failure();
    breaker.call(fail()).await.unwrap_err();
    let told = told.lock().unwrap().iter().map(|(name, outcome, _)| (name.clone(), *outcome)).collect::<Vec<_>>();
    assert_eq!(told, [(None, CallOutcome::Success), (None, CallOutcome::Ignored)]);
}

/// No lock is held, and one that panics harms nobody else.
#[test]
fn a_hook_may_ask_the_breaker_and_may_panic() {
    let own: Arc<Mutex<Option<CircuitBreaker>>> = Arc::default();
    let seen: Arc<Mutex<Vec<State>>> = Arc::default();
    let config = config().on_call(|_| panic!("a test")).on_call({
        let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
        move |_| seen.lock().unwrap().push(own.lock().unwrap().as_ref().unwrap().state())
    });
    let breaker = CircuitBreaker::new(config).unwrap();
    *own.lock().unwrap() = Some(breaker.clone());
    breaker.try_acquire().unwrap().failure();
    breaker.try_acquire().unwrap_err();
    *own.lock().unwrap() = None;
    assert_eq!(*seen.lock().unwrap(), [State::Open, State::Open]);
}

/// Whoever reads a log of a service with ten breakers.
#[tokio::test(start_paused = true)]
async fn the_name_stands_before_every_line() {
    let breaker = CircuitBreaker::new(config().name("stock")).unwrap().with_timeout(SECOND).with_capacity(1);
    assert_eq!(breaker.name(), Some("stock"));
    let late = breaker.call(takes(2 * SECOND)).await.unwrap_err();
    assert_eq!(late.to_string(), "stock: the call took longer than 1s");
    let open = breaker.call(succeed()).await.unwrap_err();
    assert_eq!(open.to_string(), "stock: the circuit is open; come back in 5s");
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.to_string(), "stock: the circuit is open; come back in 5s");
    let lines = "stock: open for 0 us: 1 of 1 call failed, 2 rejected\n  \
                 0 us ago: closed -> open: too many calls failed (1 of 1 call failed)";
    assert_eq!(breaker.snapshot().to_string(), lines);
    let transition = breaker.snapshot().history[0].transition.to_string();
    assert_eq!(transition, "stock: closed -> open: too many calls failed (1 of 1 call failed)");
    breaker.reset("a test");
    let mut first = Box::pin(breaker.call(takes(SECOND)));
    assert!(first.as_mut().now_or_never().is_none());
    let busy = breaker.call(succeed()).await.unwrap_err();
    assert_eq!(busy.to_string(), "stock: as many calls are under way as there may be");
    breaker.shutdown();
    let shut_down = breaker.call(succeed()).await.unwrap_err();
    assert_eq!(shut_down.to_string(), "stock: the circuit breaker was shut down");
}

/// It has a name and events already.
#[test]
fn a_pool_refuses_what_it_does_in_its_own_way() {
    let refused = |config| CircuitBreaker::for_pool(config, None).unwrap_err().to_string();
    let why = "is for a breaker by itself; a pool has a name, metrics and events of its own";
    assert_eq!(refused(config().name("stock")), format!("name = \"stock\": {why}"));
    assert_eq!(refused(config().latency(true)), format!("latency = true: {why}"));
    assert_eq!(refused(config().on_call(|_| {})), format!("on_call = a hook: {why}"));
}

/// Whatever they count as; what was not begun, or does not count, has no time.
#[tokio::test(start_paused = true)]
async fn how_long_calls_take_is_in_the_snapshot_if_that_is_wanted() {
    let config = config().volume_threshold(100);
    assert_eq!(CircuitBreaker::new(config.clone()).unwrap().snapshot().latency, None);
    let breaker = CircuitBreaker::new(config.latency(true)).unwrap().with_timeout(4 * SECOND);
    for seconds in [1, 2, 3, 9] {
        let _ = breaker.call(takes(seconds * SECOND)).await;
    }
    breaker.call_judged(|_| Verdict::Ignore, succeed()).await.unwrap();
    breaker.force_open("a test");
    breaker.call(succeed()).await.unwrap_err();
    let latency = breaker.snapshot().latency.unwrap();
    assert_eq!((latency.count(), latency.max()), (4, 4 * SECOND));
    assert_eq!(latency.mean(), SECOND * 5 / 2);
    let median = latency.percentile(50.0);
    assert!((2 * SECOND..=SECOND * 9 / 4).contains(&median), "{median:?}");
    assert_eq!(latency.percentile(100.0), 4 * SECOND);
}
