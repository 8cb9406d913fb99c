//! Outages of five seconds under load. While the server is down, the pool answers callers at once and looks at the
//! server at most once a second. After the repair calls succeed soon, and no call fails after that.

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
/// After this time the circuit is open, and the calls that were under way have ended.
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
        "{what}: {} calls while down, {:.2}% answered within 1 ms, {contacts} dials in {watched:.1?}, first success {recovered:.1?} after the repair, then {failed_after} failures",
        down.len(),
        100.0 * share
    );
    assert!(share >= 0.99, "{what}: {share}");
    assert!(contacts as f64 <= watched.as_secs_f64() + 1.0, "{what}: {contacts} dials in {watched:?}");
    assert!(recovered <= Duration::from_millis(1_500), "{what}: {recovered:?}");
    assert_eq!(failed_after, 0, "{what}");
}

async fn pool(proxy: &Proxy) -> Pool {
    let config = format!("postgresql://failfast:secret@{}/failfast", proxy.addr());
    // While nothing is connected, the pool dials seldom. So the circuit opens after fewer failures than usual.
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

/// The pool learns of every change of state, even if the owner's hook panics.
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
    // The pool's own look at the server succeeds, and the hook panics in the dial of the first connection.
    eventually("the hook panics", LONG, async || has_panicked.load(SeqCst)).await;
    eventually("a call succeeds", LONG, async || ask(&pool).await.is_ok()).await;
    comes_to(&pool, State::Closed).await;
}

/// A silent dial holds the only slot for the whole `connect_timeout`. The next look at the server begins when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_one_looks_at_the_server_at_the_end_of_each_dial() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("one_looks").max_size(1);
    let pool = pool.connect_timeout(Duration::from_secs(1)).build().unwrap();
    proxy.stall();
    let begun = Instant::now();
    pool.breaker().record_health_check(false);
    eventually("a fifth look at the server", LONG, async || proxy.accepted() >= 5).await;
    let took = begun.elapsed();
    println!("five looks at the server in {took:.1?}");
    assert!(took >= Duration::from_millis(3_900) && took < Duration::from_millis(6_000), "{took:?}");
}

/// Dials without an answer use up the limit of concurrent dials. The pool looks at the server beside them.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_dials_do_not_hide_a_server_that_is_back() {
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
    println!("first success after {took:.1?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
