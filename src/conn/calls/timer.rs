//! The timer of a connection's calls.
//!
//! Registering a timer may wake the thread that sleeps for all timers, which costs a short statement several percent.
//! So one timer stays registered from call to call, for an earlier moment than needed. It is reset when it goes off too
//! early, about once in a query timeout.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::time::{self, Instant, Sleep};

/// A timer that one call after another uses. Concurrent calls make timers of their own.
#[derive(Debug, Default)]
pub(crate) struct ReusableTimer(Mutex<Option<Timer>>);

/// A timer that is set to the deadline of a wait, or to an earlier moment.
#[derive(Debug)]
pub(super) struct Timer {
    /// The timer goes off only while this runtime exists.
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// Returns a timer for a wait until `deadline`: `old` if it is of this runtime, otherwise a new one.
    ///
    /// # Panics
    ///
    /// Outside a runtime with timers.
    pub(super) fn until(deadline: Instant, old: Option<Self>) -> Self {
        let runtime = Handle::current().id();
        match old.filter(|timer| timer.runtime == runtime) {
            Some(mut timer) => {
                if timer.sleep.deadline() > deadline {
                    timer.sleep.as_mut().reset(deadline);
                }
                timer
            }
            None => Self { runtime, sleep: Box::pin(time::sleep_until(deadline)) },
        }
    }

    /// Is ready once the deadline has passed. `deadline` is asked only when the timer goes off, and may have moved to a
    /// later moment by then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: impl Fn() -> Instant) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let deadline = deadline();
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl ReusableTimer {
    /// Returns the output of `work`, or `None` at the deadline. Dropping the future drops the timer.
    ///
    /// The deadline may move to a later moment while the work goes on.
    ///
    /// # Panics
    ///
    /// Outside a runtime with timers.
    pub(crate) async fn within<T>(&self, deadline: impl Fn() -> Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let spare = self.0.lock().take();
        let mut timer = Timer::until(deadline(), spare);
        let result = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => timer.poll(cx, &deadline).map(|()| None),
        });
        let result = result.await;
        let old = self.0.lock().replace(timer);
        drop(old);
        result
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
            if ends { timer.within(|| deadline, ready(())).await } else { timer.within(|| deadline, pending()).await };
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

    #[tokio::test(start_paused = true)]
    async fn a_deadline_may_move_while_the_work_goes_on() {
        let timer = ReusableTimer::default();
        let begun = Instant::now();
        let latest = Mutex::new(begun);
        let steps = async {
            for _ in 0..5 {
                time::sleep(Duration::from_millis(40)).await;
                *latest.lock() = Instant::now();
            }
            pending::<()>().await;
        };
        assert_eq!(timer.within(|| *latest.lock() + Duration::from_millis(50), steps).await, None);
        assert!(begun.elapsed().as_millis().abs_diff(250) <= 1, "{:?}", begun.elapsed());
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
