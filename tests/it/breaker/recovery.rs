//! Outages of five seconds under load. While the server is down, callers are answered at once, and it is left in peace but for a look once a second; when it
//! is back, so are they, and nothing more fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::breaker::{BreakerConfig, State};
use failfast::{Error, Pool};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{MILLISECOND, ask, comes_to};
use crate::pool::LONG;
use crate::support::{
    eventually,
    proxy::{Close, Proxy},
    server::Server,
};

const CALLERS: usize = 20;
const OUTAGE: Duration = Duration::from_secs(5);
/// By then the circuit is open, and what was under way has been given up.
const SETTLED: Duration = Duration::from_millis(3_500);

struct Answer {
    asked: Instant,
    after: Duration,
    result: Result<(), Error>,
}

async fn asks(pool: Pool, is_over: Arc<AtomicBool>) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !is_over.load(SeqCst) {
        let asked = Instant::now();
        let result = ask(&pool).await;
        answers.push(Answer { asked, after: asked.elapsed(), result });
        sleep(5 * MILLISECOND).await;
    }
    answers
}

async fn survives<T>(what: &str, proxy: &Proxy, server: T, inject: impl AsyncFn(&mut T), repair: impl AsyncFn(&mut T)) {
    let mut server = server;
    let pool = pool(proxy).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(asks(pool.clone(), Arc::clone(&is_over)))).collect();
    sleep(Duration::from_secs(1)).await;

    inject(&mut server).await;
    let injected_at = Instant::now();
    sleep(SETTLED).await;
    let (contacts, settled_at) = (proxy.accepted(), Instant::now());
    let status = pool.status();
    assert_eq!(
        pool.breaker().state(),
        State::Open,
        "{what}: {status}, {:?}; {}",
        ask(&pool).await,
        pool.breaker().snapshot()
    );
    sleep(OUTAGE.saturating_sub(injected_at.elapsed())).await;
    let (contacts, watched) = (proxy.accepted() - contacts, settled_at.elapsed());
    let repairing_from = Instant::now();
    repair(&mut server).await;
    let repaired = Instant::now();
    eventually("a call succeeds", LONG, async || ask(&pool).await.is_ok()).await;
    let recovered = repaired.elapsed();
    comes_to(&pool, State::Closed).await;
    let closed = Instant::now();
    sleep(Duration::from_secs(1)).await;
    is_over.store(true, SeqCst);
    let answers: Vec<Answer> = join_all(callers).await.into_iter().flat_map(Result::unwrap).collect();

    let down: Vec<_> =
        answers.iter().filter(|answer| answer.asked > injected_at && answer.asked < repairing_from).collect();
    let quick = down.iter().filter(|answer| answer.after <= MILLISECOND).count();
    let share = quick as f64 / down.len() as f64;
    let failed_after = answers.iter().filter(|answer| answer.asked > closed && answer.result.is_err()).count();
    println!(
        "{what}: {} calls while down, {:.2}% answered within 1 ms, {contacts} contacts in {watched:.1?}, first success {recovered:.1?} after it was back, then {failed_after} failures",
        down.len(),
        100.0 * share
    );
    assert!(share >= 0.99, "{what}: {share}");
    assert!(contacts as f64 <= watched.as_secs_f64() + 1.0, "{what}: {contacts} contacts in {watched:?}");
    assert!(recovered <= Duration::from_millis(1_500), "{what}: {recovered:?}");
    assert_eq!(failed_after, 0, "{what}");
}

async fn pool(proxy: &Proxy) -> Pool {
    let config = format!("postgresql://failfast:secret@{}/failfast", proxy.addr());
    // While nothing is connected, few dials are tried: fewer failures than usual are to be enough.
    let breaker = BreakerConfig::default().volume_threshold(5);
    let pool = Pool::builder(config.parse().unwrap()).name("outage").max_size(10).breaker(breaker);
    let pool =
        pool.query_timeout(Duration::from_millis(200)).acquire_timeout(Duration::from_millis(200)).build().unwrap();
    pool.warm_up(10, LONG).await.unwrap();
    pool
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_stopped_and_started() {
    let server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let (stop, start) =
        (async |server: &mut Server| server.stop().await, async |server: &mut Server| server.start().await);
    survives("stopped", &proxy, server, stop, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_frozen() {
    let server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let (pause, unpause) =
        (async |server: &mut Server| server.pause().await, async |server: &mut Server| server.unpause().await);
    survives("frozen", &proxy, server, pause, unpause).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_a_black_hole() {
    let server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let stall = async |_: &mut ()| proxy.stall();
    let end = async |_: &mut ()| {
        proxy.cut(Close::Reset);
        proxy.resume();
    };
    survives("black hole", &proxy, (), stall, end).await;
}

/// The pool hears of every change, whatever else listens.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_panics_does_not_keep_the_pool_closed() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let has_panicked = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&has_panicked);
    let breaker = BreakerConfig::default().volume_threshold(1).on_transition(move |change| {
        assert!(change.to != State::HalfOpen || once.swap(true, SeqCst), "a hook that panics");
    });
    let pool = Pool::builder(server.config_at(proxy.addr())).name("panics").breaker(breaker).build().unwrap();
    proxy.refuse().await;
    eventually("the circuit opens", LONG, async || {
        let _ = ask(&pool).await;
        pool.breaker().state() == State::Open
    })
    .await;
    proxy.accept().await;
    // By its own look at the server: the dial panics that would have been the first connection.
    eventually("the hook panics", LONG, async || has_panicked.load(SeqCst)).await;
    eventually("a call succeeds", LONG, async || ask(&pool).await.is_ok()).await;
    comes_to(&pool, State::Closed).await;
}

/// A dial that says nothing holds the only slot. It has all of `connect_timeout`, and the next look comes no later than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_one_looks_as_often_as_its_dials_end() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("one_looks").max_size(1);
    let pool = pool.connect_timeout(Duration::from_secs(1)).build().unwrap();
    proxy.stall();
    let begun = Instant::now();
    pool.breaker().record_health_check(false);
    eventually("a fifth look", LONG, async || proxy.accepted() >= 5).await;
    let took = begun.elapsed();
    println!("five looks in {took:.1?}");
    assert!(took >= Duration::from_millis(3_900) && took < Duration::from_millis(6_000), "{took:?}");
}

/// Dials that nobody will ever answer hold places among those under way. A look is taken beside them.
#[tokio::test(flavor = "multi_thread")]
async fn dials_that_hang_do_not_hide_a_server_that_is_back() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("hidden").max_size(3).connect_timeout(LONG);
    let pool = pool.acquire_timeout(100 * MILLISECOND).build().unwrap();
    ask(&pool).await.unwrap();
    proxy.stall();
    pool.flush();
    let begun = Instant::now();
    let _late = join_all([ask(&pool), ask(&pool)]).await;
    assert_eq!(pool.status().dialing, 2);
    pool.breaker().record_health_check(false);
    proxy.stall_existing();
    eventually("a call succeeds", LONG, async || ask(&pool).await.is_ok()).await;
    let took = begun.elapsed();
    println!("back after {took:.1?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
