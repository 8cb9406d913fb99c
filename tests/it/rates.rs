//! Rates on a real server: what the calls of a lane or an operation may use, what a refused caller hears, and that
//! nothing is lost however a call ends.

mod endings;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::breaker::State;
use failfast::{BreakerConfig, Call, Client, Error, Lane, Pool, PoolBuilder, Rate, ShedReason};
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::pool::{LONG, shared};
use crate::support::eventually;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// When a refused caller may come back. `None` if the call was not refused because of a rate.
fn rate_limited(error: &Error) -> Option<Duration> {
    match error {
        Error::Shed { reason: ShedReason::RateLimited, retry_after, .. } => *retry_after,
        _ => None,
    }
}

fn report(pool: &Pool) -> Call<'_> {
    pool.call().name("report")
}

async fn with_rate(name: &str, rate: Rate) -> PoolBuilder {
    shared(name).await.rate_of("report", rate)
}

async fn is_refused(call: Call<'_>) {
    let error = call.get().await.map(drop).unwrap_err();
    assert!(rate_limited(&error).is_some(), "{error:?}");
}

/// The leases of one rate: when each began and ended.
type Leases = Vec<(Instant, Instant)>;

/// Ten callers that ask for far more than the rate, with leases of 1 ms to 1 s, and obey when they are refused.
async fn callers(
    call: impl Fn(&Pool) -> Call<'_> + Copy + Send + 'static,
    pool: Pool,
    until: Instant,
) -> (Leases, usize) {
    let mut tasks = JoinSet::new();
    for caller in 0..10 {
        let (pool, mut random) = (pool.clone(), fastrand::Rng::with_seed(caller));
        tasks.spawn(async move {
            let (mut leases, mut refused) = (Vec::new(), 0);
            while Instant::now() < until {
                match call(&pool).get().await {
                    Ok(client) => {
                        let begun = Instant::now();
                        let seconds = 0.001 * 1_000_f64.powf(random.f64());
                        client.query("SELECT pg_sleep($1)", &[&seconds]).await.unwrap();
                        drop(client);
                        leases.push((begun, Instant::now()));
                    }
                    Err(error) => {
                        refused += 1;
                        sleep(rate_limited(&error).unwrap_or_else(|| panic!("{error:?}"))).await;
                    }
                }
            }
            (leases, refused)
        });
    }
    let of_callers = tasks.join_all().await;
    let refused = of_callers.iter().map(|(_, refused)| refused).sum();
    (of_callers.into_iter().flat_map(|(leases, _)| leases).collect(), refused)
}

/// Seconds of connections between two instants.
fn used(leases: &Leases, from: Instant, to: Instant) -> f64 {
    let within = leases.iter().map(|(begun, ended)| (*ended).min(to).saturating_duration_since((*begun).max(from)));
    within.sum::<Duration>().as_secs_f64()
}

/// A lease that has begun may go on whatever the rate says, so a window that ends anywhere has some chance in it. When
/// a call is admitted, all that the rate allows has just been used. So the window begins and ends with an admission.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_and_an_operation_get_their_share_of_the_connections() {
    const WINDOW: Duration = Duration::from_secs(20);
    let share = Rate::new().connection_seconds(2.0);
    let builder = with_rate("rates_share", share).await.rate(Lane::Background, share);
    let pool = builder.max_size(20).acquire_timeout(LONG).build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    // The burst at the beginning is no part of the window.
    let first = Instant::now() + 2 * SECOND;
    let last = first + WINDOW;
    let until = last + SECOND / 2;
    let operation = tokio::spawn(callers(report, pool.clone(), until));
    let lane = tokio::spawn(callers(|pool| pool.call().lane(Lane::Background), pool, until));
    for (what, callers) in [("operation", operation), ("lane", lane)] {
        let (leases, refused) = callers.await.unwrap();
        assert!(refused > 20, "the {what} did not ask for enough");
        let admissions = || leases.iter().map(|(begun, _)| *begun);
        let from = admissions().filter(|begun| *begun >= first).min().unwrap();
        let to = admissions().filter(|begun| *begun <= last).max().unwrap();
        let share = used(&leases, from, to) / (to - from).as_secs_f64();
        assert!((1.9..=2.1).contains(&share), "the {what} had {share} connections, with {} leases", leases.len());
    }
}

/// What fifty callers have met.
#[derive(Default)]
struct Met {
    inside: AtomicUsize,
    most: AtomicUsize,
    served: AtomicUsize,
    cancelled: AtomicUsize,
    refused: AtomicUsize,
}

/// Callers come and go at random, and many are dropped while they wait or work.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_than_the_concurrency_are_under_way() {
    const ENOUGH: usize = 200;
    let pool = with_rate("rates_concurrency", Rate::new().concurrency(5)).await.max_size(8).build().unwrap();
    pool.warm_up(8, LONG).await.unwrap();
    let met = Arc::new(Met::default());
    let mut tasks = JoinSet::new();
    for caller in 0..50 {
        let (pool, met, mut random) = (pool.clone(), Arc::clone(&met), fastrand::Rng::with_seed(caller));
        tasks.spawn(async move {
            let has = |count: &AtomicUsize| count.load(SeqCst) >= ENOUGH;
            while !(has(&met.served) && has(&met.cancelled) && has(&met.refused)) {
                let seconds = random.f64() * 0.01;
                let work = async {
                    let client = match report(&pool).get().await {
                        Ok(client) => client,
                        Err(error) => {
                            met.refused.fetch_add(1, SeqCst);
                            return sleep(rate_limited(&error).unwrap_or_else(|| panic!("{error:?}"))).await;
                        }
                    };
                    let _counted = Counted::new(&met);
                    client.query("SELECT pg_sleep($1)", &[&seconds]).await.unwrap();
                    met.served.fetch_add(1, SeqCst);
                };
                let cancelled_after = if random.bool() { LONG } else { MILLISECOND * random.u32(0..10) };
                if timeout(cancelled_after, work).await.is_err() {
                    met.cancelled.fetch_add(1, SeqCst);
                }
                // Others use the rest of the pool, so that some calls wait.
                pool.query("SELECT 1", &[]).await.unwrap();
            }
        });
    }
    timeout(3 * LONG, tasks.join_all()).await.unwrap();
    assert_eq!(met.inside.load(SeqCst), 0);
    let most = met.most.load(SeqCst);
    assert!((1..=5).contains(&most), "{most} at once");
    let all = join_all((0..5).map(|_| report(&pool).get())).await;
    let all: Vec<Client> = all.into_iter().map(|client| client.unwrap()).collect();
    is_refused(report(&pool)).await;
    drop(all);
}

/// Counts how many are inside. Made after the client, so dropped before it.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(met: &'a Met) -> Self {
        met.most.fetch_max(met.inside.fetch_add(1, SeqCst) + 1, SeqCst);
        Self(&met.inside)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test]
async fn a_refused_caller_that_comes_back_when_told_is_admitted() {
    let pool = with_rate("rates_obey", Rate::new().calls(20.0).burst(50 * MILLISECOND)).await.build().unwrap();
    pool.warm_up(1, LONG).await.unwrap();
    let mut refused = 0;
    for _ in 0..20 {
        if let Err(error) = report(&pool).execute("SELECT 1", &[]).await {
            let wait = rate_limited(&error).unwrap_or_else(|| panic!("{error:?}"));
            assert!(wait > Duration::ZERO && wait <= 50 * MILLISECOND, "{wait:?}");
            assert_eq!((error.http_status(), error.http_retry_after()), (503, Some(1)));
            refused += 1;
            sleep(wait).await;
            report(&pool).execute("SELECT 1", &[]).await.expect("the caller came when it was told to");
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_refusal_is_neither_a_failure_nor_an_overload_nor_run_again() {
    let breaker = BreakerConfig::default().volume_threshold(1).error_threshold_percentage(1);
    let builder = with_rate("rates_breaker", Rate::new().calls(0.01)).await.breaker(breaker);
    let pool = builder.build().unwrap();
    report(&pool).execute("SELECT 1", &[]).await.unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        let error = report(&pool).idempotent().query("SELECT 1", &[]).await.unwrap_err();
        let wait = rate_limited(&error).unwrap_or_else(|| panic!("{error:?}"));
        assert!(wait > 50 * SECOND && wait <= 100 * SECOND, "{wait:?}");
        assert_eq!(error.to_string(), "refused at once: its lane or operation has used up its rate");
        assert!(error.is_unavailable() && !error.is_overload());
    }
    assert!(begun.elapsed() < SECOND * 5, "a refusal took its time");
    assert_eq!(pool.breaker().state(), State::Closed);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    #[cfg(feature = "admin")]
    {
        let refused = pool.report().refused;
        assert_eq!((refused[ShedReason::RateLimited], refused.total()), (100, 0));
    }
    let cached = report(&pool).fallback(|_: &Error| Some(7)).execute("SELECT 1", &[]).await;
    assert_eq!(cached.unwrap(), 7);
    pool.query("SELECT 1", &[]).await.expect("other operations have no rate");
    // A pool that is closed says so.
    pool.drain(Duration::ZERO).await;
    assert!(matches!(report(&pool).get().await, Err(Error::Closed)));
}

#[tokio::test]
async fn each_attempt_counts_for_the_lane_of_the_call() {
    let rate = Rate::new().calls(0.01).burst(200 * SECOND);
    let pool = shared("rates_attempts").await.rate(Lane::Critical, rate).build().unwrap();
    let critical = || pool.call().lane(Lane::Critical);
    let lost = critical().idempotent().query("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await.unwrap_err();
    assert!(matches!(lost, Error::Postgres { .. }), "{lost:?}");
    is_refused(critical()).await;
    pool.query("SELECT 1", &[]).await.unwrap();
}

#[tokio::test]
async fn try_get_and_get_have_the_rate_of_the_normal_lane_and_listeners_have_none() {
    let pool = shared("rates_normal").await.rate(Lane::Normal, Rate::new().concurrency(1)).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    let client = pool.try_get().unwrap();
    let error = pool.try_get().unwrap_err();
    assert!(rate_limited(&error).is_some(), "{error:?}");
    let error = pool.get().await.unwrap_err();
    assert!(rate_limited(&error).is_some(), "{error:?}");
    let notifications = timeout(LONG, pool.listen(&["rates"]).unwrap()).await.unwrap().unwrap();
    drop(pool.call().lane(Lane::Background).get().await.unwrap());
    drop(client);
    drop(pool.try_get().unwrap());
    drop(notifications);
}

/// Otherwise the first slow leases would take the whole pool.
#[tokio::test]
async fn leases_that_become_slow_leave_connections_for_others() {
    let pool = with_rate("rates_slow", Rate::new().connection_seconds(1.0)).await.max_size(12).build().unwrap();
    pool.warm_up(12, LONG).await.unwrap();
    for _ in 0..20 {
        report(&pool).execute("SELECT 1", &[]).await.unwrap();
    }
    let (mut held, mut refused) = (Vec::new(), 0);
    eventually("the rate refuses", LONG, async || {
        match report(&pool).get().await {
            Ok(client) => held.push(client),
            Err(error) => refused += usize::from(rate_limited(&error).is_some()),
        }
        sleep(100 * MILLISECOND).await;
        refused > 0
    })
    .await;
    assert!(held.len() < 12, "{} of 12 connections", held.len());
    pool.query("SELECT 1", &[]).await.unwrap();
}
