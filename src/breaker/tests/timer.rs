//! The setting `automatic_transitions`, with which hooks run when a change of state is due.

use super::*;

/// The changes of state and when the hook ran.
type Runs = Arc<Mutex<Vec<(State, Duration)>>>;

fn with_hook(config: BreakerConfig) -> (CircuitBreaker, Runs) {
    let (runs, begun) = (Runs::default(), now());
    let hook = {
        let runs = Arc::clone(&runs);
        move |transition: &Transition| runs.lock().push((transition.to, now() - begun))
    };
    (CircuitBreaker::new(config.on_transition(hook)).unwrap(), runs)
}

async fn after(runs: &Runs, time: Duration) -> Vec<(State, Duration)> {
    tokio::time::sleep(time).await;
    mem::take(&mut *runs.lock())
}

#[tokio::test(start_paused = true)]
async fn the_hook_runs_when_the_reset_timeout_is_over() {
    for config in [config(), BreakerConfig::opossum().reset_timeout(5 * SECOND)] {
        let (breaker, runs) = with_hook(config.clone().automatic_transitions(true));
        breaker.call(fail()).await.unwrap_err();
        let expected = [(State::Open, Duration::ZERO), (State::HalfOpen, 5 * SECOND)];
        assert_eq!(after(&runs, 60 * SECOND).await, expected);
        let (breaker, runs) = with_hook(config);
        breaker.call(fail()).await.unwrap_err();
        assert_eq!(after(&runs, 60 * SECOND).await, [(State::Open, Duration::ZERO)], "no call asked the breaker");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hook_runs_when_a_probe_hangs() {
    let (breaker, runs) = with_hook(config().probe_timeout(3 * SECOND).automatic_transitions(true));
    breaker.try_acquire().unwrap().failure();
    after(&runs, 10 * SECOND).await;
    let _probe = breaker.try_acquire().unwrap();
    let expected = [(State::Open, 13 * SECOND), (State::HalfOpen, 18 * SECOND)];
    assert_eq!(after(&runs, 60 * SECOND).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_order_reschedules_the_timer() {
    let (breaker, runs) = with_hook(config().automatic_transitions(true));
    breaker.open_for(10 * SECOND, "a test");
    after(&runs, SECOND).await;
    breaker.open_for(60 * SECOND, "later");
    assert_eq!(after(&runs, 100 * SECOND).await, [(State::HalfOpen, 61 * SECOND)]);
    breaker.open_for(60 * SECOND, "a test");
    breaker.reset("a test");
    breaker.try_acquire().unwrap().failure();
    after(&runs, SECOND / 1_000).await;
    assert_eq!(after(&runs, 100 * SECOND).await, [(State::HalfOpen, 106 * SECOND)], "the new opening ends sooner");
    breaker.force_open("a test");
    assert_eq!(after(&runs, 100 * SECOND).await.len(), 1, "only the order itself is a change");
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_breaker() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (breaker, runs) = with_hook(config().automatic_transitions(true));
    assert_eq!(tasks(), 0, "a closed breaker has no task");
    for _ in 0..100 {
        breaker.try_acquire().unwrap().failure();
        breaker.reset("a test");
    }
    breaker.open_for(60 * SECOND, "a test");
    assert_eq!(tasks(), 1);
    assert_eq!(after(&runs, SECOND).await.len(), 201, "only the end of the opening is still to come");
    drop(breaker);
    after(&runs, SECOND / 1_000).await;
    assert_eq!(tasks(), 0);
}

#[test]
fn without_a_runtime_the_next_query_makes_the_change() {
    let (breaker, runs) = with_hook(config().automatic_transitions(true));
    breaker.try_acquire().unwrap().failure();
    assert_eq!(runs.lock().len(), 1);
    breaker.shared.with(|breaker| breaker.state(now() + 5 * SECOND));
    assert_eq!(runs.lock().last().map(|(state, _)| *state), Some(State::HalfOpen));
}

/// The task ends with its runtime.
#[test]
fn the_next_runtime_gets_a_task_of_its_own() {
    let (breaker, runs) = with_hook(config().automatic_transitions(true));
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            breaker.reset("a test");
            breaker.try_acquire().unwrap().failure();
            let runs = after(&runs, 60 * SECOND).await;
            assert_eq!(runs.last().map(|(state, _)| *state), Some(State::HalfOpen));
        });
    }
}
