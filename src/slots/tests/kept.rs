//! Connections kept idle, and checked.

use tokio::runtime::Runtime;

use super::*;
use crate::policy::Lifetimes;

fn keeping(max_size: usize, min_idle: usize, longest: Option<Duration>) -> Limits {
    let ages = Ages {
        min_idle,
        lifetimes: Lifetimes::new(longest, 0.0),
        check_after: Some(Duration::from_millis(100)),
        ..Ages::default()
    };
    Limits { max_size, ages, ..limits() }
}

/// Runs so many rounds of maintenance.
async fn rounds(slots: &TestSlots, count: usize) {
    for _ in 0..count {
        slots.sweep();
        slots.reap();
        slots.dial_what_is_wanted();
        time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_draining_pool_keeps_no_connection_idle() {
    let ms = Duration::from_millis(1);
    let (slots, world) = slots(keeping(4, 2, None), &[Outcome::After(ms); 4000]);
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(slots.acquire(now(), within(1_000)).await.unwrap());
    }
    let draining = tokio::spawn({
        let slots = Arc::clone(&slots);
        async move { slots.drain(Deadline::after(now(), Duration::from_secs(1))).await }
    });
    settle().await;
    let before = world.dials.load(SeqCst);
    leases.truncate(1);
    assert_eq!(draining.await.unwrap(), 1);
    assert_eq!(world.dials.load(SeqCst) - before, 0, "dials while draining");
}

/// A shutdown that waits no longer drops its drain.
#[tokio::test(start_paused = true)]
async fn a_dropped_drain_closes_the_pool() {
    let (slots, world) = slots(limits(), &[]);
    assert!(slots.warm_up(2, within(1_000).deadline).await);
    let held = slots.acquire(now(), within(1_000)).await.unwrap();
    let drain = slots.drain(Deadline::after(now(), Duration::from_secs(60)));
    assert!(time::timeout(Duration::from_secs(1), drain).await.is_err());
    settle().await;
    assert_eq!(world.open.load(SeqCst), 1, "the idle connection is closed");
    drop(held);
    settle().await;
    assert_eq!(world.open.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_wait_gets_a_dial_while_a_connection_is_checked() {
    let (slots, world) = slots(keeping(2, 0, None), &[]);
    assert!(slots.warm_up(1, within(1_000).deadline).await);
    time::advance(Duration::from_millis(300)).await;
    slots.reap();
    let checks = slots.begin_checks();
    assert_eq!((checks.len(), slots.counts().settling), (1, 1));
    slots.dial_ahead(Lane::Normal);
    settle().await;
    assert_eq!((world.dials.load(SeqCst), slots.counts().idle), (2, 1));
}

/// The server accepts each connection and ends it at once.
#[tokio::test(start_paused = true)]
async fn kept_connections_that_die_at_once_cause_no_storm_of_dials() {
    let ms = Duration::from_millis(1);
    let (slots, world) = slots(keeping(4, 2, None), &[Outcome::DiesAfter(ms); 30_000]);
    for _ in 0..10_000 {
        slots.sweep();
        slots.reap();
        slots.dial_what_is_wanted();
        time::sleep(ms).await;
    }
    let dials = world.dials.load(SeqCst);
    assert!((10..=60).contains(&dials), "{dials} dials in 10 s");
}

#[tokio::test(start_paused = true)]
async fn short_lifetimes_cause_no_storm_of_dials() {
    let ms = Duration::from_millis(1);
    let (slots, world) = slots(keeping(4, 2, Some(ms)), &[Outcome::After(ms); 10_000]);
    rounds(&slots, 4).await;
    let dials = world.dials.load(SeqCst);
    assert!(dials <= 40, "{dials} dials in 1 s");
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_min_idle_causes_no_storm_of_dials() {
    let ms = Duration::from_millis(1);
    let (slots, world) = slots(keeping(8, 8, None), &[Outcome::After(ms); 1_000]);
    rounds(&slots, 4).await;
    assert_eq!(slots.counts().idle, 8);
    slots.resize(3);
    rounds(&slots, 40).await;
    assert_eq!((world.dials.load(SeqCst), slots.counts().idle), (8, 3));
    slots.resize(8);
    rounds(&slots, 4).await;
    assert_eq!((world.dials.load(SeqCst), slots.counts().idle), (13, 8));
}

/// A check of the server is a dial as well, even beyond the limit.
#[tokio::test(start_paused = true)]
async fn during_a_pause_after_a_lasting_failure_the_pool_does_not_look_at_the_server() {
    let (slots, world) = slots(keeping(2, 0, None), &[Outcome::NoSuchUser]);
    let refusal = slots.acquire(now(), within(100)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unreachable("no such user", _)), "{refusal:?}");
    assert!(matches!(slots.check_server().await, ServerCheck::Nothing));
    assert!(!slots.dial_aside().await);
    assert_eq!(world.dials.load(SeqCst), 1);
    time::advance(Duration::from_secs(1)).await;
    assert!(slots.dial_aside().await);
}

/// On a distant server an answer takes as long as a dial.
#[tokio::test(start_paused = true)]
async fn looks_and_checks_may_take_as_long_as_the_answer_limit() {
    let (slots, world) = slots(keeping(2, 0, None), &[]);
    assert!(slots.warm_up(2, Deadline::after(now(), Duration::from_secs(1))).await);
    *world.answer_limit.lock().unwrap() = Some(Duration::from_secs(6));
    *world.ping.lock().unwrap() = Duration::from_secs(5);
    assert!(matches!(slots.check_server().await, ServerCheck::Answers));
    time::advance(Duration::from_millis(300)).await;
    slots.reap();
    let checks = slots.begin_checks();
    assert!(!checks.is_empty());
    for check in checks {
        assert!(check.run().await);
    }
    *world.ping.lock().unwrap() = Duration::from_secs(7);
    assert!(matches!(slots.check_server().await, ServerCheck::Silent));
}

/// For each caller that waits beyond `max_waiting`, the pool checks a connection.
#[tokio::test(start_paused = true)]
async fn while_connections_are_checked_no_more_callers_wait_than_there_are_checks() {
    let (slots, world) = slots(Limits { max_waiting: 0, ..keeping(2, 0, None) }, &[]);
    let _hoping = slots.warm_up(2, Deadline::after(now(), Duration::from_secs(1))).await;
    assert_eq!(slots.counts().idle, 2);
    *world.ping.lock().unwrap() = Duration::from_secs(60);
    time::advance(Duration::from_millis(300)).await;
    let callers = [caller(&slots, 500).await, caller(&slots, 500).await];
    assert_eq!((slots.counts().waiting, slots.counts().settling), (2, 2));
    let refused = slots.acquire(now(), within(500)).await.unwrap_err();
    assert!(matches!(refused, Refusal::Shed(ShedReason::QueueFull, _)), "{refused:?}");
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap_err(), Refusal::TimedOut);
    }
}

/// The check is dropped at any moment, and the pool changes meanwhile.
#[test]
fn dropped_checks_free_their_slots() {
    for what in 0..6 {
        for polled in [false, true] {
            let (slots, world) = slots(keeping(8, 0, None), &[]);
            let runtime = Runtime::new().unwrap();
            let checks = runtime.block_on(async {
                let mut leases = Vec::new();
                for _ in 0..8 {
                    leases.push(slots.acquire(now(), within(1_000)).await.unwrap());
                }
                drop(leases);
                time::sleep(Duration::from_millis(250)).await;
                slots.reap();
                let checks = slots.begin_checks();
                assert_eq!((checks.len(), slots.counts().settling), (4, 4));
                match what {
                    0 => slots.close(),
                    1 => slots.flush(),
                    2 => drop(slots.resize(1)),
                    3 => drop(slots.drain(Deadline::after(now(), Duration::ZERO)).await),
                    4 => world.cut.store(100, SeqCst),
                    _ => {}
                }
                checks
            });
            if polled {
                for check in checks {
                    runtime.spawn(check.run());
                }
                drop(runtime);
            } else {
                drop(runtime);
                drop(checks);
            }
            let counts = slots.counts();
            assert_eq!(
                (counts.in_use, counts.settling, counts.closing, counts.dialing),
                (0, 0, 0, 0),
                "{what} {polled} {counts:?}"
            );
            assert_eq!(world.open.load(SeqCst), counts.idle, "{what} {polled}");
        }
    }
}
