//! What time brings is told when it is due, if that is wanted.

use super::*;

/// Changes of state, and when they were told.
type Told = Arc<Mutex<Vec<(State, Duration)>>>;

fn told_by(config: BreakerConfig) -> (CircuitBreaker, Told) {
    let (told, begun) = (Told::default(), now());
    let hook = {
        let told = Arc::clone(&told);
        move |transition: &Transition| told.lock().unwrap().push((transition.to, now() - begun))
    };
    (CircuitBreaker::new(config.on_transition(hook)).unwrap(), told)
}

async fn after(told: &Told, time: Duration) -> Vec<(State, Duration)> {
    tokio::time::sleep(time).await;
    mem::take(&mut *told.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn half_open_is_told_when_the_reset_timeout_is_over() {
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
async fn so_is_a_probe_that_hangs() {
    let (breaker, told) = told_by(config().probe_timeout(3 * SECOND).automatic_transitions(true));
    breaker.try_acquire().unwrap().failure();
    after(&told, 10 * SECOND).await;
    let _probe = breaker.try_acquire().unwrap();
    let expected = [(State::Open, 13 * SECOND), (State::HalfOpen, 18 * SECOND)];
    assert_eq!(after(&told, 60 * SECOND).await, expected);
}

/// It goes by what holds, not by what held when the circuit opened.
#[tokio::test(start_paused = true)]
async fn it_follows_what_is_ordered() {
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

/// One task, whatever happens; none when the breaker is gone.
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
    assert_eq!(after(&told, SECOND).await.len(), 201, "and it sleeps now");
    drop(breaker);
    after(&told, SECOND / 1_000).await;
    assert_eq!(tasks(), 0);
}

#[test]
fn without_a_runtime_it_waits_to_be_asked() {
    let (breaker, told) = told_by(config().reset_timeout(SECOND / 1_000).automatic_transitions(true));
    breaker.try_acquire().unwrap().failure();
    thread::sleep(SECOND / 100);
    assert_eq!(told.lock().unwrap().len(), 1);
    assert_eq!(breaker.state(), State::HalfOpen);
}

/// A runtime that ends takes the task with it; the next one has its own.
#[test]
fn it_begins_anew_in_another_runtime() {
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
