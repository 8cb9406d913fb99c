//! The timer of a connection's calls.
//!
//! Registering a timer may wake the thread that sleeps for all timers, which costs a short statement several percent.
//! So one timer stays registered from call to call, for an earlier moment than needed. It is reset when it goes off too
//! early, about once in a query timeout.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::time::{self, Instant, Sleep};

/// A timer that one call after another uses. Concurrent calls make timers of their own.
#[derive(Debug, Default)]
pub(crate) struct ReusableTimer(Mutex<Option<Timer>>);

#[derive(Debug)]
struct Timer {
    /// The timer goes off only while this runtime exists.
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
}

impl ReusableTimer {
    /// Returns the output of `work`, or `None` at the deadline. Dropping the future drops the timer.
    ///
    /// # Panics
    ///
    /// Outside a runtime with timers.
    pub(crate) async fn within<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut timer = self.take(deadline);
        let result = poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            while timer.sleep.as_mut().poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(None);
                }
                timer.sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        });
        let result = result.await;
        let old = self.0.lock().replace(timer);
        drop(old);
        result
    }

    /// Takes the timer, or makes one. It goes off at the deadline or before.
    fn take(&self, deadline: Instant) -> Timer {
        let runtime = Handle::current().id();
        let spare = self.0.lock().take();
        match spare.filter(|timer| timer.runtime == runtime) {
            Some(mut timer) => {
                if timer.sleep.deadline() > deadline {
                    timer.sleep.as_mut().reset(deadline);
                }
                timer
            }
            None => Timer { runtime, sleep: Box::pin(time::sleep_until(deadline)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;

    /// Runs a call that never ends, or one that ends at once. Returns how long it took.
    async fn call(timer: &ReusableTimer, millis: u64, ends: bool) -> (Option<()>, Duration) {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(millis);
        let result =
            if ends { timer.within(deadline, ready(())).await } else { timer.within(deadline, pending()).await };
        (result, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn every_deadline_is_kept_whatever_the_timer_was_set_to() {
        let timer = ReusableTimer::default();
        for millis in [50, 1_000, 20, 20, 5_000, 1] {
            assert_eq!(call(&timer, 10_000, true).await, (Some(()), Duration::ZERO));
            let (result, took) = call(&timer, millis, false).await;
            assert_eq!(result, None);
            assert!(took.as_millis().abs_diff(millis.into()) <= 1, "{took:?} for {millis} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_has_gone_off_between_calls_is_reset() {
        let timer = ReusableTimer::default();
        call(&timer, 10, true).await;
        time::sleep(Duration::from_millis(100)).await;
        let (result, took) = call(&timer, 50, false).await;
        assert_eq!((result, took.as_millis() / 2), (None, 25));
    }

    #[test]
    fn the_timer_of_a_runtime_that_has_ended_is_replaced() {
        let timer = ReusableTimer::default();
        for _ in 0..2 {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            assert_eq!(runtime.block_on(call(&timer, 50, false)).0, None);
        }
    }
}
