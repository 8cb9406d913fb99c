//! Deadlines: one clock for all waiters of a runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Weak;
use std::task::{Context, Poll, Wake};
use std::time::Instant as StdInstant;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};

use super::*;

/// A pool whose only connection is in use.
async fn busy() -> (TestSlots, Lease<FakeDialer>) {
    let (slots, _world) = slots(Limits { max_size: 1, max_waiting: 100_000, ..limits() }, &[]);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    (slots, lease)
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn waiters_leave_at_their_deadlines_whatever_the_order() {
    let (slots, _lease) = busy().await;
    let begun = Instant::now();
    let mut random = fastrand::Rng::with_seed(7);
    let mut callers = Vec::new();
    for _ in 0..2_000 {
        let (slots, millis) = (Arc::clone(&slots), random.u64(1..3_000));
        callers.push(tokio::spawn(async move {
            let asked = begun.elapsed();
            let got = slots.acquire(now(), within(millis)).await;
            assert_eq!(got.unwrap_err(), Refusal::TimedOut);
            assert_eq!((begun.elapsed() - asked).as_millis(), u128::from(millis));
        }));
        if random.u8(0..10) == 0 {
            time::sleep(Duration::from_millis(random.u64(1..9))).await;
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(slots.counts().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_with_an_earlier_deadline_that_comes_later_leaves_in_time() {
    let (slots, _lease) = busy().await;
    let patient = caller(&slots, 60_000).await;
    let begun = Instant::now();
    for millis in [500, 20, 100] {
        let asked = Instant::now();
        assert_eq!(slots.acquire(now(), within(millis)).await.unwrap_err(), Refusal::TimedOut);
        assert_eq!(asked.elapsed().as_millis(), u128::from(millis));
    }
    assert_eq!(patient.await.unwrap().unwrap_err(), Refusal::TimedOut);
    assert_eq!(begun.elapsed().as_millis(), 60_000);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_any_time_is_refused_without_an_await() {
    let (slots, _lease) = busy().await;
    let refused = slots.acquire(now(), within(0)).now_or_never();
    assert_eq!(refused.expect("an answer at the first poll").unwrap_err(), Refusal::TimedOut);
    assert_eq!(slots.counts().waiting, 0);
}

/// A future that is polled late, or by hand, times out even if the clock did not wake it.
#[tokio::test(start_paused = true)]
async fn a_waiter_times_out_even_if_the_clock_did_not_wake_it() {
    let (slots, _lease) = busy().await;
    let mut waiting = pin!(slots.acquire(now(), within(10)));
    assert!(waiting.as_mut().now_or_never().is_none());
    time::advance(Duration::from_millis(10)).await;
    assert_eq!(waiting.now_or_never().unwrap().unwrap_err(), Refusal::TimedOut);
    assert_eq!(slots.counts().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_have_one_clock_and_it_ends_when_they_have_gone() {
    let (slots, _lease) = busy().await;
    time::sleep(Duration::from_millis(101)).await;
    assert_eq!(alive_tasks(), 0);
    let mut callers = Vec::new();
    for _ in 0..1_000 {
        callers.push(Box::pin(slots.acquire(now(), within(1_000))));
        assert!(callers.last_mut().unwrap().now_or_never().is_none());
    }
    settle().await;
    assert_eq!((slots.counts().waiting, alive_tasks()), (1_000, 1));
    drop(callers);
    time::sleep(Duration::from_millis(1_001)).await;
    assert_eq!((slots.counts().waiting, alive_tasks()), (0, 0));
    assert_eq!(
        slots.acquire(now(), within(10)).await.unwrap_err(),
        Refusal::TimedOut,
        "the next waiter gets a new clock"
    );
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_when_the_pool_is_gone() {
    for close in [true, false] {
        let (slots, lease) = busy().await;
        assert!(slots.acquire(now(), within(60_000)).now_or_never().is_none());
        settle().await;
        assert_eq!(alive_tasks(), 1);
        if close {
            slots.close();
            settle().await;
            assert_eq!(alive_tasks(), 0);
        }
        drop((slots, lease));
        settle().await;
        assert_eq!(alive_tasks(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_crowd_is_given_back() {
    let (slots, lease) = busy().await;
    let mut callers: Vec<_> = (0..50_000).map(|_| Box::pin(slots.acquire(now(), within(60_000)))).collect();
    callers.iter_mut().for_each(|caller| assert!(caller.now_or_never().is_none()));
    let leavers = callers.split_off(25_000);
    drop(leavers);
    drop(lease);
    for mut caller in callers {
        drop(caller.as_mut().now_or_never().expect("served").unwrap());
    }
    let state = slots.lock();
    assert!(state.clocks.capacity() < 300);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A caller may be polled on one runtime, then on another.
#[test]
fn a_waiter_times_out_though_the_runtime_of_its_clock_ends() {
    let (first, second) = (runtime(), runtime());
    let (slots, _lease) = second.block_on(busy());
    let mut ahead = pin!(slots.acquire(now(), within(60_000)));
    let mut waiting = pin!(slots.acquire(now(), within(50)));
    first.block_on(async {
        assert!(ahead.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
    });
    drop(first);
    assert_eq!(slots.counts().waiting, 0, "both waiters have to enter again");
    second.block_on(async {
        assert_eq!(waiting.await.unwrap_err(), Refusal::TimedOut);
        assert!(ahead.as_mut().now_or_never().is_none());
        assert_eq!(slots.counts().waiting, 1, "the waiter has its old place");
    });
}

/// Waiters depend on the clock of their own runtime: another may be slow, or not driven at all.
#[test]
fn a_deadline_does_not_depend_on_another_runtime() {
    let (idle, mine) = (runtime(), runtime());
    let (slots, _lease) = mine.block_on(busy());
    let mut other = pin!(slots.acquire(now(), within(10)));
    idle.block_on(async { assert!(other.as_mut().now_or_never().is_none()) });
    let asked = StdInstant::now();
    assert_eq!(mine.block_on(slots.acquire(now(), within(50))).unwrap_err(), Refusal::TimedOut);
    assert!((50..5_000).contains(&asked.elapsed().as_millis()));
}

#[test]
fn a_runtime_without_timers_panics_and_leaves_nothing() {
    let (slots, _lease) = runtime().block_on(busy());
    let timerless = Builder::new_current_thread().build().unwrap();
    for _ in 0..2 {
        let asked = || timerless.block_on(slots.acquire(now(), within(100)));
        assert!(catch_unwind(AssertUnwindSafe(asked)).is_err());
        assert_eq!(slots.counts().waiting, 0);
    }
    let asked = || slots.acquire(now(), within(100)).now_or_never();
    assert!(catch_unwind(AssertUnwindSafe(asked)).is_err(), "outside a runtime");
    assert_eq!(slots.counts().waiting, 0);
}

#[test]
fn a_runtime_that_has_ended_refuses_instead_of_waiting_for_ever() {
    let (slots, _lease) = runtime().block_on(busy());
    let ended = runtime();
    let handle = ended.handle().clone();
    drop(ended);
    let _context = handle.enter();
    let refused = slots.acquire(now(), within(60_000)).now_or_never();
    let refused = refused.expect("an answer at the first poll").unwrap_err();
    assert!(matches!(refused, Refusal::Unreachable("abandoned", _)), "{refused:?}");
    assert_eq!(slots.counts().waiting, 0);
}

/// A waker is foreign code. This one calls into the pool each time, which would hang under the lock.
struct Curious {
    slots: Weak<Slots<FakeDialer>>,
    woken: AtomicUsize,
}

impl Curious {
    fn look(&self) {
        if let Some(slots) = self.slots.upgrade() {
            slots.counts();
        }
    }
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        self.look();
        self.woken.fetch_add(1, SeqCst);
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.look();
    }
}

fn curious(slots: &TestSlots) -> Arc<Curious> {
    Arc::new(Curious { slots: Arc::downgrade(slots), woken: AtomicUsize::new(0) })
}

#[tokio::test(start_paused = true)]
async fn a_waker_may_call_into_the_pool() {
    let (slots, lease) = busy().await;
    let mut waiting = Box::pin(slots.acquire(now(), within(1_000)));
    for _ in 0..3 {
        // The waker before it is dropped when it is replaced.
        let waker = Waker::from(curious(&slots));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(waiting);
    let waker = Waker::from(curious(&slots));
    let mut waiting = Box::pin(slots.acquire(now(), within(1_000)));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    drop(lease);
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_latest_waker_is_woken() {
    let (slots, lease) = busy().await;
    let (former, latest) = (curious(&slots), curious(&slots));
    let mut waiting = pin!(slots.acquire(now(), within(1_000)));
    for waker in [&former, &latest] {
        let waker = Waker::from(Arc::clone(waker));
        assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).map(drop), Poll::Pending);
    }
    drop(lease);
    assert_eq!((former.woken.load(SeqCst), latest.woken.load(SeqCst)), (0, 1));
}
