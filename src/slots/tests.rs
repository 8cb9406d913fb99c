use std::collections::VecDeque;
use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Waker;

use tokio::task::{JoinHandle, yield_now};
use tokio::time::{self, Instant};

use super::*;
use crate::policy::{Deadline, LaneLimits, ShedReason, Shedding, Trouble, WaitPolicy};

mod dead;
mod deadlines;
mod kept;
mod runtimes;
mod threads;

/// A dial that has taken this long is quiet.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Outcome {
    After(Duration),
    FailsAfter(Duration),
    /// Fails at once, for a reason that lasts.
    NoSuchUser,
    /// Succeeds, with a connection that dies at once.
    DiesAfter(Duration),
    Hangs,
    Panics,
}

#[derive(Debug, Default)]
struct World {
    /// What the next dials do. Once the script is empty, dials succeed at once.
    script: Mutex<VecDeque<Outcome>>,
    dials: AtomicUsize,
    open: AtomicUsize,
    closing_hangs: AtomicBool,
    /// How many connections were followed to their end.
    followed: AtomicUsize,
    /// How long an answer takes.
    ping: Mutex<Duration>,
    /// The answer limit. Default: `QUIET`.
    answer_limit: Mutex<Option<Duration>>,
    /// Connections with a smaller number have died.
    cut: AtomicUsize,
}

#[derive(Debug)]
struct FakeDialer(Arc<World>);

#[derive(Debug)]
struct FakeConn {
    number: usize,
    alive: bool,
    world: Arc<World>,
}

impl Drop for FakeConn {
    fn drop(&mut self) {
        self.world.open.fetch_sub(1, SeqCst);
    }
}

impl Connection for FakeConn {
    fn is_usable(&self) -> bool {
        self.alive && self.number >= self.world.cut.load(SeqCst)
    }

    fn needs_settling(&self) -> bool {
        false
    }

    fn on_lease_end(&mut self) {}

    fn has_abandoned_call(&self) -> bool {
        false
    }

    fn on_lease_duration(&self, _: f64, _: bool) {}

    fn on_seen_idle(&self) {}

    fn on_settle(&self) {}

    fn on_maintenance(&mut self) {}

    async fn settle(&mut self) -> bool {
        true
    }

    async fn ping(&self) -> bool {
        let takes = *self.world.ping.lock().unwrap();
        if !takes.is_zero() {
            time::sleep(takes).await;
        }
        self.is_usable()
    }

    fn follow_to_end(&self) {
        self.world.followed.fetch_add(1, SeqCst);
    }

    async fn close(self) {
        if self.world.closing_hangs.load(SeqCst) {
            pending::<()>().await;
        }
    }
}

impl Dial for FakeDialer {
    type Conn = FakeConn;
    type Error = &'static str;

    fn answer_limit(&self) -> Duration {
        self.0.answer_limit.lock().unwrap().unwrap_or(QUIET)
    }

    async fn dial(&self, on_quiet: impl FnOnce() + Send) -> Result<FakeConn, &'static str> {
        let number = self.0.dials.fetch_add(1, SeqCst);
        let outcome = self.0.script.lock().unwrap().pop_front().unwrap_or(Outcome::After(Duration::ZERO));
        match outcome {
            Outcome::After(delay) | Outcome::DiesAfter(delay) => time::sleep(delay).await,
            Outcome::FailsAfter(delay) => {
                time::sleep(delay).await;
                return Err("refused");
            }
            Outcome::NoSuchUser => return Err("no such user"),
            Outcome::Hangs => {
                time::sleep(QUIET).await;
                on_quiet();
                pending().await
            }
            Outcome::Panics => panic!("a dial that panics"),
        }
        self.0.open.fetch_add(1, SeqCst);
        Ok(FakeConn { number, alive: !matches!(outcome, Outcome::DiesAfter(_)), world: Arc::clone(&self.0) })
    }

    fn trouble(&self, error: &&'static str) -> Trouble {
        if *error == "no such user" { Trouble::Lasting } else { Trouble::Passing }
    }

    fn forget_refusals(&self) {}

    fn on_flush(&self) {}

    fn abandoned() -> &'static str {
        "abandoned"
    }

    fn failed_before_first_use() -> &'static str {
        "failed_before_first_use"
    }
}

type TestSlots = Arc<Slots<FakeDialer>>;
type Got = Result<Lease<FakeDialer>, Refusal<&'static str>>;

fn limits() -> Limits {
    Limits {
        max_size: 2,
        max_waiting: 100,
        max_connecting: 4,
        wait_budget: Duration::from_secs(1),
        ages: Ages::default(),
        lanes: Lane::ALL.map(LaneLimits::of),
    }
}

fn slots(limits: Limits, script: &[Outcome]) -> (TestSlots, Arc<World>) {
    let world = Arc::new(World { script: Mutex::new(script.iter().copied().collect()), ..World::default() });
    (Slots::new(FakeDialer(Arc::clone(&world)), limits, None), world)
}

fn within(millis: u64) -> WaitPolicy {
    let deadline = Deadline::after(now(), Duration::from_millis(millis));
    WaitPolicy { deadline, includes_work: false, shedding: Shedding::QueueOnly, lane: Lane::Normal }
}

/// Starts a caller and lets it get as far as it can.
async fn caller(slots: &TestSlots, millis: u64) -> JoinHandle<Got> {
    let slots = Arc::clone(slots);
    let deadline = within(millis);
    let task = tokio::spawn(async move { slots.acquire(now(), deadline).await });
    settle().await;
    task
}

/// Lets every task run until it waits for something. The time does not advance.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

async fn until_nothing_is_left(slots: &TestSlots) {
    for _ in 0..1_000 {
        let counts = slots.counts();
        if counts.dialing + counts.in_use + counts.closing + counts.waiting == 0 {
            return;
        }
        time::sleep(Duration::from_millis(5)).await;
    }
    panic!("slots do not add up: {:?}", slots.counts());
}

#[tokio::test(start_paused = true)]
async fn a_returned_connection_serves_the_next_caller() {
    let (slots, world) = slots(limits(), &[]);
    for _ in 0..10 {
        let lease = slots.acquire(now(), within(100)).await.unwrap();
        assert_eq!(slots.counts().in_use, 1);
        drop(lease);
        assert_eq!(slots.counts().idle, 1);
    }
    assert_eq!(world.dials.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn no_caller_waits_past_its_deadline() {
    let (slots, _world) = slots(limits(), &[Outcome::Hangs, Outcome::Hangs]);
    let begun = Instant::now();
    assert_eq!(slots.acquire(now(), within(250)).await.unwrap_err(), Refusal::TimedOut);
    let waited = begun.elapsed();
    assert!((250..=251).contains(&waited.as_millis()), "waited {waited:?}");
    assert_eq!(slots.counts().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order() {
    let (slots, _world) = slots(Limits { max_size: 1, ..limits() }, &[]);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    for name in 0..20 {
        let (slots, order) = (Arc::clone(&slots), Arc::clone(&order));
        callers.push(tokio::spawn(async move {
            let lease = slots.acquire(now(), within(1_000)).await.unwrap();
            order.lock().unwrap().push(name);
            yield_now().await;
            drop(lease);
        }));
        settle().await;
    }
    drop(lease);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_without_an_await() {
    let (slots, _world) = slots(Limits { max_size: 1, max_waiting: 1, ..limits() }, &[]);
    let _lease = slots.acquire(now(), within(100)).await.unwrap();
    let _waiting = caller(&slots, 1_000).await;
    let refused = futures_util::FutureExt::now_or_never(slots.acquire(now(), within(1_000)));
    let refused = refused.expect("an answer at the first poll").unwrap_err();
    assert!(matches!(refused, Refusal::Shed(ShedReason::QueueFull, _)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_never_cancels_its_dial() {
    let (slots, world) = slots(limits(), &[Outcome::After(Duration::from_millis(50))]);
    let first = caller(&slots, 1_000).await;
    first.abort();
    settle().await;
    assert_eq!(slots.counts().waiting, 0);
    let begun = Instant::now();
    time::sleep(Duration::from_millis(20)).await;
    let lease = slots.acquire(now(), within(1_000)).await.unwrap();
    assert_eq!(lease.number, 0, "the dial that began for the other caller");
    assert_eq!(begun.elapsed().as_millis() / 10, 5);
    assert_eq!(world.dials.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_handed_to_a_caller_that_left_comes_back() {
    let (slots, world) = slots(Limits { max_size: 1, ..limits() }, &[]);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    let leaver = caller(&slots, 1_000).await;
    let stayer = caller(&slots, 1_000).await;
    drop(lease); // The connection is the leaver's now, and not yet fetched.
    assert_eq!(slots.counts().waiting, 1);
    leaver.abort();
    let lease = stayer.await.unwrap().unwrap();
    assert_eq!(lease.number, 0);
    drop(lease);
    assert_eq!((slots.counts().idle, world.dials.load(SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn when_dials_fail_all_callers_get_the_error_at_once() {
    let quick = Duration::from_millis(3);
    let (slots, world) = slots(limits(), &[Outcome::FailsAfter(quick), Outcome::FailsAfter(quick)]);
    let callers = [caller(&slots, 1_000).await, caller(&slots, 1_000).await, caller(&slots, 1_000).await];
    let begun = Instant::now();
    for caller in callers {
        let refusal = caller.await.unwrap().unwrap_err();
        assert!(matches!(refusal, Refusal::Unreachable("refused", _)), "{refusal:?}");
    }
    assert!(begun.elapsed() < Duration::from_millis(10));
    let Refusal::Unreachable("refused", wait) = slots.acquire(now(), within(1_000)).await.unwrap_err() else {
        panic!("the next caller gets the error without a dial");
    };
    assert_eq!(world.dials.load(SeqCst), 2);
    time::sleep(wait).await;
    slots.acquire(now(), within(1_000)).await.unwrap();
    assert_eq!(slots.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_dial_delayed_by_a_pause_begins_for_the_waiter_when_the_pause_ends() {
    let (slots, world) = slots(limits(), &[Outcome::After(Duration::ZERO), Outcome::FailsAfter(Duration::ZERO)]);
    let _lease = slots.acquire(now(), within(100)).await.unwrap();
    let begun = Instant::now();
    let lease = slots.acquire(now(), within(1_000)).await.unwrap();
    assert!((25..=55).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!((lease.number, world.dials.load(SeqCst)), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_caller_refused_for_a_full_queue_makes_the_pool_dial() {
    let limits = Limits { max_waiting: 0, ..limits() };
    let (slots, world) = slots(limits, &[Outcome::After(Duration::from_millis(5)); 3]);
    for _ in 0..3 {
        let refusal = slots.acquire(now(), within(100)).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Shed(ShedReason::QueueFull, _)), "{refusal:?}");
        assert_eq!(slots.counts().dialing, 1);
    }
    time::sleep(Duration::from_millis(6)).await;
    let _first = slots.acquire(now(), within(100)).await.unwrap();
    slots.acquire(now(), within(100)).await.unwrap_err();
    time::sleep(Duration::from_millis(6)).await;
    let _second = slots.acquire(now(), within(100)).await.unwrap();
    slots.acquire(now(), within(100)).await.unwrap_err();
    settle().await;
    assert_eq!((world.dials.load(SeqCst), slots.counts().dialing), (2, 0), "no slot is free");
}

#[tokio::test(start_paused = true)]
async fn closing_answers_the_waiters_and_ends_idle_connections() {
    let (slots, world) = slots(limits(), &[]);
    let lease = slots.acquire(now(), within(100)).await.unwrap();
    drop(slots.acquire(now(), within(100)).await.unwrap());
    let second = slots.acquire(now(), within(100)).await.unwrap();
    let waiting = caller(&slots, 1_000).await;
    drop(second);
    drop(waiting.await.unwrap().unwrap());
    let held = slots.acquire(now(), within(100)).await.unwrap();
    let waiting = caller(&slots, 1_000).await;
    slots.close();
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refusal::Closed);
    assert_eq!(slots.acquire(now(), within(100)).await.unwrap_err(), Refusal::Closed);
    drop((lease, held));
    until_nothing_is_left(&slots).await;
    assert_eq!(world.open.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_panics_gives_its_slot_back() {
    let (slots, _world) = slots(Limits { max_size: 1, ..limits() }, &[Outcome::Panics]);
    let refusal = slots.acquire(now(), within(1_000)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unreachable("abandoned", _)), "{refusal:?}");
    time::sleep(Duration::from_millis(50)).await;
    slots.acquire(now(), within(1_000)).await.unwrap();
}

/// Callers are dropped at every stage, thousands of times, in all mixes. The slots add up afterwards.
#[tokio::test(start_paused = true)]
async fn the_slots_add_up_after_callers_are_cancelled_at_any_stage() {
    fastrand::seed(7);
    let script: Vec<_> = (0..4_000)
        .map(|n| match n % 7 {
            0 => Outcome::FailsAfter(Duration::from_millis(2)),
            1 => Outcome::After(Duration::ZERO),
            _ => Outcome::After(Duration::from_millis(n % 5)),
        })
        .collect();
    let (slots, world) = slots(Limits { max_size: 5, max_waiting: 40, max_connecting: 2, ..limits() }, &script);
    let mut callers = Vec::new();
    for n in 0..20_000u64 {
        let asked = Arc::clone(&slots);
        let budget = fastrand::u64(0..40);
        let hold = Duration::from_millis(fastrand::u64(0..6));
        let dies = fastrand::u8(0..20) == 0;
        callers.push(tokio::spawn(async move {
            let Ok(mut lease) = asked.acquire(now(), within(budget)).await else {
                return;
            };
            if !hold.is_zero() {
                time::sleep(hold).await;
            }
            lease.alive = !dies;
        }));
        if n % 3 == 0 {
            yield_now().await;
        }
        if n % 5 == 0 {
            let victim = fastrand::usize(0..callers.len());
            callers.swap_remove(victim).abort();
        }
        if n % 11 == 0 {
            time::advance(Duration::from_millis(1)).await;
        }
        let counts = slots.counts();
        assert!(counts.dialing + counts.idle + counts.in_use + counts.closing <= 5, "{counts:?}");
    }
    for caller in callers {
        caller.await.unwrap();
    }
    until_nothing_is_left(&slots).await;
    assert_eq!(slots.counts().idle, world.open.load(SeqCst));
}
