//! The fallback of a call.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_fallback_runs_once_whatever_the_error_is() {
    let breaker = breaker().with_timeout(SECOND).with_capacity(1);
    let asked = Cell::new(0);
    let instead = async |error: CallError<&'static str>| {
        asked.set(asked.get() + 1);
        tokio::task::yield_now().await;
        Ok::<_, ()>(error.to_string().len() as u32)
    };
    assert_eq!(breaker.call_or_else(succeed(), instead).await, Ok(7));
    assert_eq!(asked.get(), 0);
    for (call, error) in [(SECOND, "broken".to_owned()), (2 * SECOND, "the call took longer than 1s".to_owned())] {
        breaker.reset("a test");
        let call = async {
            tokio::time::sleep(call - SECOND / 2).await;
            fail().await
        };
        assert_eq!(breaker.call_or_else(call, instead).await, Ok(error.len() as u32));
    }
    assert_eq!(breaker.state(), State::Open);
    let open = "the circuit is open; come back in 5s";
    assert_eq!(breaker.call_or_else(succeed(), instead).await, Ok(open.len() as u32));
    assert_eq!(asked.get(), 3);
}

/// The call has ended when the fallback begins, so its place is free.
#[tokio::test(start_paused = true)]
async fn a_fallback_may_use_the_breaker() {
    let breaker = CircuitBreaker::new(config().volume_threshold(9)).unwrap().with_capacity(1);
    let again = async |_| breaker.call(succeed()).await;
    assert_eq!(breaker.call_or_else(fail(), again).await, Ok(7));
}
