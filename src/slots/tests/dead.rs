//! Connections that die: unused, on the way to a waiter, or in use.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_never_handed_out() {
    let (slots, world) = slots(limits(), &[]);
    let mut lease = slots.acquire(now(), within(100)).await.unwrap();
    lease.alive = false;
    drop(lease);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    assert_eq!(lease.number, 1);
    drop(lease);
    until_nothing_is_left(&slots).await;
    assert_eq!(world.open.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_end_is_cut_off_after_a_second() {
    let (slots, world) = slots(Limits { max_size: 1, ..limits() }, &[]);
    world.closing_hangs.store(true, SeqCst);
    let mut lease = slots.acquire(now(), within(100)).await.unwrap();
    lease.alive = false;
    drop(lease);
    let begun = Instant::now();
    let lease = slots.acquire(now(), within(5_000)).await.unwrap();
    assert_eq!(begun.elapsed().as_millis() / 10, 100);
    assert_eq!(lease.number, 1);
    assert_eq!(world.open.load(SeqCst), 1);
}

/// A drain waits for the connections that end, at most a second beyond its deadline, and never for leases.
#[tokio::test(start_paused = true)]
async fn a_drain_returns_when_all_connections_have_ended_that_can() {
    const SECOND: Duration = Duration::from_secs(1);
    let drain = async |hangs: bool, is_leased: bool| {
        let (slots, world) = slots(limits(), &[]);
        world.closing_hangs.store(hangs, SeqCst);
        let lease = slots.acquire(now(), within(100)).await.unwrap();
        drop(slots.acquire(now(), within(100)).await.unwrap());
        let lease = is_leased.then_some(lease);
        let begun = now();
        let left = slots.drain(Deadline::after(begun, 5 * SECOND)).await;
        if !(hangs && is_leased) {
            assert_eq!((slots.counts().closing, world.open.load(SeqCst)), (0, usize::from(is_leased)));
        }
        assert_eq!(world.followed.load(SeqCst), world.dials.load(SeqCst) - usize::from(is_leased));
        drop(lease);
        (left, (now() - begun).as_secs())
    };
    assert_eq!(drain(false, false).await, (0, 0));
    assert_eq!(drain(true, false).await, (0, 1));
    assert_eq!(drain(false, true).await, (1, 5));
    assert_eq!(drain(true, true).await, (1, 6));
}

/// `served_at_once` becomes a metric.
#[tokio::test(start_paused = true)]
async fn only_served_callers_count_as_served_at_once() {
    let (slots, world) = slots(limits(), &[]);
    assert!(slots.warm_up(2, within(1_000).deadline).await);
    drop(slots.try_acquire(Lane::Normal).unwrap());
    assert_eq!(slots.counts().served_at_once, 1);
    assert!(matches!(slots.check_server().await, ServerCheck::Answers));
    assert_eq!(slots.counts().served_at_once, 1, "the pool itself is no caller");
    world.cut.store(1, SeqCst);
    assert_eq!(slots.try_acquire(Lane::Normal).unwrap().number, 1);
    assert_eq!(slots.counts().served_at_once, 2, "one caller, however many were dead");
    world.cut.store(2, SeqCst);
    assert!(slots.try_acquire(Lane::Normal).is_none());
    assert_eq!(slots.counts().served_at_once, 2, "the caller found no connection");
}

/// A server that accepts connections and ends them at once is as bad as one that refuses them.
#[tokio::test(start_paused = true)]
async fn the_pause_grows_while_new_connections_die_before_their_first_use() {
    let ms = Duration::from_millis(1);
    let (slots, world) = slots(limits(), &[Outcome::DiesAfter(ms); 100]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        match slots.acquire(now(), within(100)).await {
            Err(Refusal::Unreachable("failed_before_first_use", wait)) => time::sleep(wait.max(ms)).await,
            other => panic!("{other:?}"),
        }
    }
    let dials = world.dials.load(SeqCst);
    assert!((10..=30).contains(&dials), "{dials} dials in 10 s");
    world.script.lock().unwrap().clear();
    drop(slots.acquire(now(), within(100)).await.unwrap());
    assert_eq!(slots.last_error(), None);
}

/// The same while the pool has other connections: the waiter goes on waiting.
#[tokio::test(start_paused = true)]
async fn a_waiter_does_not_dial_in_a_loop() {
    let mut script = vec![Outcome::DiesAfter(Duration::ZERO); 100];
    script.insert(0, Outcome::After(Duration::ZERO));
    let (slots, world) = slots(limits(), &script);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    let waiting = caller(&slots, 60_000).await;
    time::sleep(Duration::from_secs(10)).await;
    let dials = world.dials.load(SeqCst);
    assert!((10..=30).contains(&dials), "{dials} dials in 10 s");
    drop(lease);
    assert_eq!(waiting.await.unwrap().unwrap().number, 0);
}

/// The waiter was the first in the queue, and its connection died on the way.
#[tokio::test(start_paused = true)]
async fn a_waiter_handed_a_dead_connection_keeps_its_place() {
    let limits = Limits { max_size: 1, max_waiting: 1, ..limits() };
    let (slots, world) = slots(limits, &[]);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    let first = caller(&slots, 1_000).await;
    drop(lease); // It is the first one's now, and not yet fetched.
    let asked = Arc::clone(&slots);
    let mut second = std::pin::pin!(asked.acquire(now(), within(1_000)));
    let mut noop = std::task::Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut noop).is_pending());
    world.cut.store(1, SeqCst);
    let served = first.await.unwrap();
    drop(served.expect("a waiter that enters again is not refused"));
    drop(second.await.unwrap());
}
