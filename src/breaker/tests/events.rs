//! The hooks of a breaker, its name in every message, and the durations in its snapshot.

use super::*;

/// The runs of the hook: name, outcome and duration of each call.
type Runs = Arc<Mutex<Vec<(Option<String>, CallOutcome, Duration)>>>;

fn with_hook(config: BreakerConfig) -> (CircuitBreaker, Runs) {
    let runs: Runs = Arc::default();
    let hook = {
        let runs = Arc::clone(&runs);
        move |event: &CallEvent<'_>| runs.lock().push((event.name.map(str::to_owned), event.outcome, event.took))
    };
    (CircuitBreaker::new(config.on_call(hook)).unwrap(), runs)
}

#[tokio::test(start_paused = true)]
async fn the_hook_runs_once_for_each_call_with_its_outcome_and_duration() {
    for config in [config(), BreakerConfig::opossum()] {
        let config = config.name("stock").error_threshold_percentage(100).volume_threshold(100);
        let (breaker, runs) = with_hook(config);
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
        assert_eq!(*runs.lock(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_hook_runs_for_permits_but_not_while_the_breaker_is_disabled() {
    let (breaker, runs) = with_hook(config());
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().ignore();
    breaker.disable("a test");
    breaker.try_acquire().unwrap().failure();
    breaker.call(fail()).await.unwrap_err();
    let runs = runs.lock().iter().map(|(name, outcome, _)| (name.clone(), *outcome)).collect::<Vec<_>>();
    assert_eq!(runs, [(None, CallOutcome::Success), (None, CallOutcome::Ignored)]);
}

#[test]
fn a_hook_may_ask_the_breaker_and_may_panic() {
    let own: Arc<Mutex<Option<CircuitBreaker>>> = Arc::default();
    let seen: Arc<Mutex<Vec<State>>> = Arc::default();
    let config = config().on_call(|_| panic!("a test")).on_call({
        let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
        move |_| seen.lock().push(own.lock().as_ref().unwrap().state())
    });
    let breaker = CircuitBreaker::new(config).unwrap();
    *own.lock() = Some(breaker.clone());
    breaker.try_acquire().unwrap().failure();
    breaker.try_acquire().unwrap_err();
    *own.lock() = None;
    assert_eq!(*seen.lock(), [State::Open, State::Open]);
}

/// A log may have messages of ten breakers.
#[tokio::test(start_paused = true)]
async fn every_message_begins_with_the_name() {
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

/// A rejected call and an ignored call have no duration.
#[tokio::test(start_paused = true)]
async fn the_snapshot_has_durations_if_the_setting_is_on() {
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

#[test]
fn a_transition_hook_may_ask_the_breaker() {
    let own: Arc<Mutex<Option<CircuitBreaker>>> = Arc::default();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let hook = {
        let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
        move |transition: &Transition| {
            let breaker = own.lock().clone().unwrap();
            seen.lock().push(format!("{transition}, now {}", breaker.state()));
        }
    };
    let breaker = CircuitBreaker::new(config().on_transition(hook)).unwrap();
    *own.lock() = Some(breaker.clone());
    breaker.try_acquire().unwrap().failure();
    breaker.reset("enough");
    *own.lock() = None;
    let expected =
        ["closed -> open: too many calls failed (1 of 1 call failed), now open", "open -> closed: enough, now closed"];
    assert_eq!(*seen.lock(), expected);
}

#[test]
fn after_a_hook_that_panics_the_next_hook_runs() {
    let runs = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&runs);
    let config = BreakerConfig::default().on_transition(|_| panic!("a test")).on_transition(move |_| {
        *counter.lock() += 1;
    });
    let breaker = CircuitBreaker::new(config).unwrap();
    breaker.force_open("a test");
    assert_eq!((breaker.state(), *runs.lock()), (State::ForcedOpen, 1));
}
