//! With `automatic_transitions`, hooks run when a change of state is due.

use super::*;

/// The changes of state, and when the hook ran.
type Told = Arc<Mutex<Vec<(State, Duration)>>>;

fn told_by(config: BreakerConfig) -> (CircuitBreaker, Told) {
    let (told, begun) = (Told::default(), now());
    let hook = {
        let told = Arc::clone(&told);
        move |transition: &Transition| told.lock().push((transition.to, now() - begun))
    };
    (CircuitBreaker::new(config.on_transition(hook)).unwrap(), told)
}

async fn after(told: &Told, time: Duration) -> Vec<(State, Duration)> {
    tokio::time::sleep(time).await;
    mem::take(&mut *told.lock())
}

#[tokio::test(start_paused = true)]
async fn the_hook_runs_when_the_reset_timeout_is_over() {
    for config in [config(), BreakerConfig::opossum().reset_timeout(5 * SECOND)] {
        let (breaker, told) = told_by(config.clone().automatic_transitions(true));
        breaker.call(fail()).await.unwrap_err();
        let expected = [(State::Open, Duration::ZERO), (State::HalfOpen, 5 * SECOND)];
        assert_eq!(after(&told, 60 * SECOND).await, expected);
        let (breaker, told) = told_by(config);
        breaker.call(fail()).await.unwrap_err();
        assert_eq!(after(&told, 60 * SECOND).await, [(State::Open, Duration::ZERO)], "nobody asked");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hook_runs_when_a_probe_hangs() {
    let (breaker, told) = told_by(config().probe_timeout(3 * SECOND).automatic_transitions(true));
    breaker.try_acquire().unwrap().failure();
    after(&told, 10 * SECOND).await;
    let _probe = breaker.try_acquire().unwrap();
    let expected = [(State::Open, 13 * SECOND), (State::HalfOpen, 18 * SECOND)];
    assert_eq!(after(&told, 60 * SECOND).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_order_reschedules_the_timer() {
    let (breaker, told) = told_by(config().automatic_transitions(true));
    breaker.open_for(10 * SECOND, "a test");
    after(&told, SECOND).await;
    breaker.open_for(60 * SECOND, "later");
    assert_eq!(after(&told, 100 * SECOND).await, [(State::HalfOpen, 61 * SECOND)]);
    breaker.open_for(60 * SECOND, "a test");
    breaker.reset("a test");
    breaker.try_acquire().unwrap().failure();
    after(&told, SECOND / 1_000).await;
    assert_eq!(after(&told, 100 * SECOND).await, [(State::HalfOpen, 106 * SECOND)], "earlier");
    breaker.force_open("a test");
    assert_eq!(after(&told, 100 * SECOND).await.len(), 1, "nothing is due");
}

#[tokio::test(start_paused = true)]
async fn its_task_ends_with_the_breaker() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (breaker, told) = told_by(config().automatic_transitions(true));
    assert_eq!(tasks(), 0, "nothing to wait for");
    for _ in 0..100 {
        breaker.try_acquire().unwrap().failure();
        breaker.reset("a test");
    }
    breaker.open_for(60 * SECOND, "a test");
    assert_eq!(tasks(), 1);
    assert_eq!(after(&told, SECOND).await.len(), 201, "the task has one more change to wait for");
    drop(breaker);
    after(&told, SECOND / 1_000).await;
    assert_eq!(tasks(), 0);
}

#[test]
fn without_a_runtime_the_next_question_makes_the_change() {
    let (breaker, told) = told_by(config().automatic_transitions(true));
    breaker.try_acquire().unwrap().failure();
    assert_eq!(told.lock().len(), 1);
    breaker.shared.with(|breaker| breaker.state(now() + 5 * SECOND));
    assert_eq!(told.lock().last().map(|(state, _)| *state), Some(State::HalfOpen));
}

/// A runtime that ends takes the task with it.
#[test]
fn the_next_runtime_gets_a_task_of_its_own() {
    let (breaker, told) = told_by(config().automatic_transitions(true));
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            breaker.reset("a test");
            breaker.try_acquire().unwrap().failure();
            let told = after(&told, 60 * SECOND).await;
            assert_eq!(told.last().map(|(state, _)| *state), Some(State::HalfOpen));
        });
    }
}
