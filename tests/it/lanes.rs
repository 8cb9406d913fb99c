//! Lanes on a real server: a flood in a lower lane, long leases, and a lane that changes at run time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use failfast::{Error, Event, EventKind, Lane, LaneLimits, Pool, PoolBuilder, Shedding};
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::pool::{LONG, shared};
use crate::support::eventually;

const MILLISECOND: Duration = Duration::from_millis(1);

async fn twenty(name: &str) -> PoolBuilder {
    shared(name).await.max_size(20)
}

/// Calls come at this rate for this long. Returns how each came out, and how long it took.
async fn offer(
    pool: &Pool,
    name: &'static str,
    (lane, sql): (Lane, &'static str),
    rate: u32,
    lasts: Duration,
) -> Vec<(Result<u64, Error>, Duration)> {
    let (mut callers, mut asked, begun) = (JoinSet::new(), 0, Instant::now());
    let mut tick = interval(MILLISECOND);
    while begun.elapsed() < lasts {
        tick.tick().await;
        while f64::from(asked) < begun.elapsed().as_secs_f64() * f64::from(rate) {
            asked += 1;
            let pool = pool.clone();
            callers.spawn(async move {
                let asked = Instant::now();
                let result = pool.lane(lane).name(name).execute(sql, &[]).await;
                (result, asked.elapsed())
            });
        }
    }
    callers.join_all().await
}

fn served(answers: &[(Result<u64, Error>, Duration)]) -> usize {
    answers.iter().filter(|(result, _)| result.is_ok()).count()
}

fn none_failed(answers: &[(Result<u64, Error>, Duration)]) {
    let failed: Vec<_> = answers.iter().filter_map(|(result, _)| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), answers.len(), failed[0]);
}

const SHORT: &str = "SELECT pg_sleep(0.02)";
const REPORT: &str = "SELECT pg_sleep(0.2)";

/// Ten times what the pool can do, and one in ten of its connections for logins.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_background_calls_refuses_no_critical_one() {
    let pool = twenty("lanes_flood").await.build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let seconds = Duration::from_secs(3);
    let (logins, flood) = tokio::join!(
        offer(&pool, "login", (Lane::Critical, SHORT), 100, seconds),
        offer(&pool, "report", (Lane::Background, REPORT), 1_000, seconds)
    );
    none_failed(&logins);
    let lanes = pool.status().lanes.unwrap();
    assert_eq!(lanes.map(|lane| (lane.guaranteed, lane.at_most)), [(4, 20), (1, 20), (1, 10)]);
    let (done, possible) = (served(&flood), 10 * 3 * 5);
    assert!(done > possible / 3 && done < 2 * possible, "{done} reports on ten connections for three seconds");
    assert!(flood.len() > 5 * done, "the rest was refused");
}

/// The calls of a lower lane become twelve times as many, and later as few as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_twelvefold_spike_of_background_calls_fails_no_critical_one() {
    const CALM: u32 = 25;
    let pool = twenty("lanes_spike").await.build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let second = Duration::from_secs(1);
    let spike = async {
        let mut answers = Vec::new();
        for (rate, lasts) in [(CALM, second), (12 * CALM, 3 * second), (CALM, second)] {
            answers.push(offer(&pool, "report", (Lane::Background, REPORT), rate, lasts).await);
        }
        answers
    };
    let (orders, reports) = tokio::join!(offer(&pool, "order", (Lane::Critical, SHORT), 100, 5 * second), spike);
    none_failed(&orders);
    let [before, during, _] = &reports[..] else { unreachable!("three phases") };
    assert!(served(before) > before.len() / 2, "{} of {} before the spike", served(before), before.len());
    assert!(served(during) < during.len() / 2, "{} of {}: no spike", served(during), during.len());
}

/// What Background holds for long cannot be taken back. So it never gets what Critical has for sure.
#[tokio::test]
async fn long_leases_leave_the_guarantee_alone() {
    let limits = LaneLimits::of(Lane::Background).at_most(1.0);
    let builder = twenty("lanes_long").await.lane_limits(Lane::Background, limits).shedding(Shedding::QueueOnly);
    let pool = builder.acquire_timeout(500 * MILLISECOND).build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let held = join_all((0..40).map(|_| pool.lane(Lane::Background).get())).await;
    let held: Vec<_> = held.into_iter().filter_map(Result::ok).collect();
    assert_eq!(held.len(), 15, "a fifth of 20 is Critical's, and one is Normal's");
    let normal = pool.get().await.unwrap();
    let second = pool.get().await.unwrap_err();
    assert!(matches!(second, Error::AcquireTimeout { .. }), "{second}");
    let critical = join_all((0..4).map(|_| pool.lane(Lane::Critical).get())).await;
    assert_eq!(critical.iter().filter(|got| got.is_ok()).count(), 4);
    drop((held, normal));
    drop(pool.get().await.unwrap());
}

/// On call, one line moves an operation out of the way, and one line moves it back.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_demoted_in_a_flood_gives_way_within_a_second() {
    let (events, mut heard) = mpsc::unbounded_channel();
    let builder = twenty("lanes_demoted").await.observer(move |event: &Event| _ = events.send(event.clone()));
    let pool = builder.build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let begun = Instant::now();
    let flood = offer(&pool, "report", (Lane::Normal, REPORT), 500, Duration::from_secs(4));
    let on_call = async {
        sleep(Duration::from_secs(1)).await;
        pool.because("reports delay orders").set_lane("report", Lane::Background).unwrap();
        let demoted = Instant::now();
        let orders = || pool.call().name("order").execute(SHORT, &[]);
        // Reports that run already keep their connections.
        eventually("background has no more than its limit", LONG, async || {
            let lanes = pool.status().lanes;
            lanes.is_some_and(|[_, normal, background]| normal.in_use == 0 && background.in_use <= background.at_most)
        })
        .await;
        let took = demoted.elapsed();
        join_all((0..5).map(|_| orders())).await.into_iter().for_each(|order| _ = order.unwrap());
        pool.reset_lane("report");
        took
    };
    let (_, took) = tokio::join!(flood, on_call);
    assert!(took < Duration::from_secs(1), "{took:?} after the order; {:?} in all", begun.elapsed());
    let mut moves = Vec::new();
    while let Ok(event) = heard.try_recv() {
        if let EventKind::LaneChanged { from, to, .. } = event.kind {
            moves.push((from, to, event.to_string()));
        }
    }
    let [(None, Some(Lane::Background), moved), (Some(Lane::Background), None, _)] = &moves[..] else {
        panic!("{moves:?}")
    };
    assert!(moved.ends_with(": reports delay orders"), "{moved}");
}

/// Each lane has a queue of its own: a flood does not fill that of Critical.
#[tokio::test]
async fn a_full_queue_of_one_lane_is_not_full_for_another() {
    let builder = shared("lanes_queues").await.max_size(2).max_waiting(3).shedding(Shedding::QueueOnly);
    let pool = builder.acquire_timeout(LONG).build().unwrap();
    let held = [pool.lane(Lane::Critical).get().await.unwrap(), pool.get().await.unwrap()];
    let wait = |lane| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.lane(lane).get().await.map(drop) })
    };
    let flood: Vec<_> = (0..4).map(|_| wait(Lane::Background)).collect();
    eventually("the queue of Background is full", LONG, async || pool.status().waiting == 3).await;
    let login = wait(Lane::Critical);
    eventually("a login waits", LONG, async || pool.status().waiting == 4).await;
    drop(held);
    login.await.unwrap().unwrap();
    let refused = join_all(flood).await.into_iter().filter(|answer| answer.as_ref().unwrap().is_err()).count();
    assert_eq!(refused, 1);
}

/// An operation of another lane holds its connections longer than it used to. Background gives way, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn background_gives_way_while_another_lane_suffers() {
    let (events, mut heard) = mpsc::unbounded_channel();
    let builder = twenty("lanes_throttled").await.observer(move |event: &Event| _ = events.send(event.clone()));
    let pool = builder.build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let slow = Arc::new(AtomicBool::new(false));
    let orders = JoinSet::from_iter((0..4).map(|_| {
        let (pool, slow) = (pool.clone(), Arc::clone(&slow));
        async move {
            loop {
                let seconds = if slow.load(Relaxed) { 0.4 } else { 0.02 };
                pool.call().name("order").execute("SELECT pg_sleep($1)", &[&seconds]).await.unwrap();
                sleep(20 * MILLISECOND).await;
            }
        }
    }));
    let at_most = || pool.status().lanes.map(|[_, _, background]| background.at_most);
    pool.lane(Lane::Background).execute("SELECT 1", &[]).await.unwrap();
    sleep(Duration::from_secs(12)).await; // an operation is known after ten seconds
    assert_eq!(at_most(), Some(10));
    slow.store(true, Relaxed);
    eventually("the limit of Background shrinks", LONG, async || at_most().is_some_and(|most| most <= 5)).await;
    slow.store(false, Relaxed);
    eventually("it comes back", 2 * LONG, async || at_most() == Some(10)).await;
    drop(orders);
    let mut told = Vec::new();
    while let Ok(event) = heard.try_recv() {
        if matches!(event.kind, EventKind::BackgroundThrottled { .. } | EventKind::BackgroundRestored { .. }) {
            told.push(event.to_string());
        }
    }
    assert!(told[0].contains("because order holds its connections too long"), "{told:?}");
    assert!(told[told.len() - 1].contains("all of its limit again"), "{told:?}");
}
