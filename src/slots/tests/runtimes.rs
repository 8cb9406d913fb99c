//! Several runtimes over one pool, and none.

use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::*;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Spawns a caller on `runtime` that waits in the queue and then drops its connection.
fn waits_on(runtime: &Runtime, slots: &TestSlots) -> JoinHandle<Got> {
    runtime.block_on(caller(slots, 60_000))
}

/// The result of a task. Panics if the task takes too long.
fn outcome<T>(runtime: &Runtime, task: JoinHandle<T>) -> T {
    let done = runtime.block_on(async { time::timeout(Duration::from_secs(20), task).await });
    done.expect("no wake-up is lost").unwrap()
}

#[test]
fn a_lease_may_be_dropped_outside_a_runtime() {
    let (slots, world) = slots(limits(), &[]);
    let runtime = Runtime::new().unwrap();
    let healthy = runtime.block_on(slots.acquire(now(), within(1_000))).unwrap();
    let mut dead = runtime.block_on(slots.acquire(now(), within(1_000))).unwrap();
    dead.alive = false;
    drop(runtime);
    drop((healthy, dead));
    let counts = slots.counts();
    assert_eq!((counts.idle, counts.in_use, counts.closing), (1, 0, 0));
    assert_eq!(world.open.load(SeqCst), 1);
}

#[test]
fn a_pool_outlives_the_runtime_that_was_dialing_for_it() {
    let (slots, _world) = slots(Limits { max_size: 1, ..limits() }, &[Outcome::Hangs]);
    let first = Runtime::new().unwrap();
    assert_eq!(first.block_on(slots.acquire(now(), within(10))).unwrap_err(), Refusal::TimedOut);
    assert_eq!(slots.counts().dialing, 1);
    first.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(slots.counts().dialing, 0);

    let second = Runtime::new().unwrap();
    second.block_on(async {
        // A dial lost with its runtime is no failure of the server: the next may begin at once.
        drop(slots.acquire(now(), within(1_000)).await.unwrap());
    });
    assert_eq!(slots.counts().idle, 1);
}

/// The pool dials on the runtime of the latest caller. When that ends, waiters on another runtime dial there.
#[test]
fn a_waiter_is_served_though_the_runtime_that_dials_ends() {
    let (slots, _world) = slots(limits(), &[Outcome::After(Duration::ZERO), Outcome::Hangs]);
    let (other, mine) = (runtime(), runtime());
    let _held = mine.block_on(slots.acquire(now(), within(1_000))).unwrap();
    waits_on(&other, &slots); // and so the hanging dial is on `other`
    let waiting = waits_on(&mine, &slots);
    waits_on(&other, &slots);
    drop(other);
    outcome(&mine, waiting).unwrap();
}

/// As documented for `PoolBuilder::runtime`: between two `block_on`, nothing runs on a runtime of one thread.
#[test]
fn a_dial_on_a_runtime_that_nobody_drives_keeps_its_slot_until_it_is_driven_again() {
    let (slots, _world) = slots(Limits { max_size: 1, ..limits() }, &[Outcome::After(Duration::from_secs(2))]);
    let (other, mine) = (runtime(), runtime());
    assert_eq!(other.block_on(slots.acquire(now(), within(10))).unwrap_err(), Refusal::TimedOut);
    assert_eq!(mine.block_on(slots.acquire(now(), within(50))).unwrap_err(), Refusal::TimedOut);
    assert_eq!(slots.counts().dialing, 1);
    other.block_on(async {
        while slots.counts().dialing > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    });
    drop(mine.block_on(slots.acquire(now(), within(20_000))).unwrap());
}

#[test]
fn a_waiter_is_served_though_the_runtime_that_asks_again_ends() {
    let script = [Outcome::After(Duration::ZERO), Outcome::FailsAfter(Duration::ZERO)];
    let (slots, _world) = slots(limits(), &script);
    let (other, mine) = (runtime(), runtime());
    let _held = mine.block_on(slots.acquire(now(), within(1_000))).unwrap();
    waits_on(&other, &slots);
    other.block_on(async {
        while slots.counts().dialing > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    });
    // The dial has failed, and a task on `other` asks again.
    let waiting = waits_on(&mine, &slots);
    drop(other);
    outcome(&mine, waiting).unwrap();
}

#[test]
fn a_dial_lost_with_its_runtime_does_not_count_as_a_failure() {
    let (slots, _world) = slots(Limits { max_size: 1, ..limits() }, &[Outcome::Hangs]);
    let (other, mine) = (runtime(), runtime());
    let dialed_for = waits_on(&other, &slots);
    let waiting = waits_on(&mine, &slots);
    waits_on(&other, &slots);
    drop((dialed_for, other));
    outcome(&mine, waiting).expect("served on its own runtime");
}

#[test]
fn a_pool_is_warmed_up_though_the_runtime_that_dials_ends() {
    let (slots, _world) = slots(Limits { max_size: 1, ..limits() }, &[Outcome::Hangs]);
    let (other, mine) = (runtime(), runtime());
    waits_on(&other, &slots);
    let warmed = Arc::clone(&slots);
    let warm = mine.spawn(async move { warmed.warm_up(1, within(60_000).deadline).await });
    mine.block_on(settle());
    waits_on(&other, &slots);
    drop(other);
    assert!(outcome(&mine, warm));
}

/// Runtimes begin and end in several threads over one pool. Waiters on a living runtime are served, and the slots add
/// up.
#[test]
fn no_waiter_is_lost_while_runtimes_begin_and_end() {
    let script: Vec<_> = (0..100_000).map(|n| Outcome::After(Duration::from_micros(n % 900))).collect();
    let (slots, world) = slots(Limits { max_size: 3, ..limits() }, &script);
    thread::scope(|threads| {
        for seed in 0..4 {
            let slots = &slots;
            threads.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..60 {
                    let runtime = if random.bool() { runtime() } else { Runtime::new().unwrap() };
                    for _ in 0..random.u8(0..4) {
                        let slots = Arc::clone(slots);
                        runtime.spawn(async move {
                            slots.acquire(now(), within(60_000)).await.map(|mut lease| lease.alive = false)
                        });
                    }
                    runtime.block_on(async {
                        let mut lease = slots.acquire(now(), within(20_000)).await.expect("served");
                        lease.alive = random.bool();
                        if random.bool() {
                            yield_now().await;
                        }
                    });
                }
            });
        }
    });
    runtime().block_on(until_nothing_is_left(&slots));
    assert_eq!(slots.counts().idle, world.open.load(SeqCst));
}
