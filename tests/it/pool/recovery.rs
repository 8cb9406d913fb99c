//! Outages under load, and the way back: everybody is answered within its deadline, dials stay bounded, and calls succeed soon after
//! the server is back. Bare deadpool goes through the same, and its result is printed beside ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::Pool;
use tokio::time::{sleep, timeout};

use crate::support::{
    proxy::{Close, Proxy},
    server::Server,
};

/// What callers have.
const PATIENCE: Duration = Duration::from_millis(300);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_millis(700);
const OUTAGE: Duration = Duration::from_secs(3);
const CALLERS: usize = 5;

/// Either pool, asked for one statement.
#[derive(Clone)]
enum Peer {
    Failfast(Pool),
    /// As it comes, but for a bound on each call, without which it might wait for ever.
    Deadpool(deadpool_postgres::Pool),
}

impl Peer {
    fn both(server: &Server, proxy: &Proxy) -> [Peer; 2] {
        let config = server.config_at(proxy.addr());
        let manager = deadpool_postgres::Manager::new(config.clone(), tokio_postgres::NoTls);
        let deadpool = deadpool_postgres::Pool::builder(manager).max_size(10).build().unwrap();
        let failfast = Pool::builder(config).name("recovery").acquire_timeout(PATIENCE).build().unwrap();
        [Peer::Failfast(failfast), Peer::Deadpool(deadpool)]
    }

    async fn call(&self) -> bool {
        match self {
            Peer::Failfast(pool) => pool.call().deadline(PATIENCE).execute("SELECT 1", &[]).await.is_ok(),
            Peer::Deadpool(pool) => {
                let call = async {
                    let Ok(client) = pool.get().await else { return false };
                    client.execute("SELECT 1", &[]).await.is_ok()
                };
                timeout(Duration::from_secs(2), call).await.unwrap_or(false)
            }
        }
    }
}

/// What the callers of one pool saw.
#[derive(Debug)]
struct Seen {
    slowest_answer: Duration,
    failed: usize,
    dials: u64,
    recovered_after: Duration,
}

/// Callers ask all the time; the server is hurt, and healed.
async fn outage(peer: Peer, proxy: &Proxy, hurt: impl AsyncFnOnce(), heal: impl AsyncFnOnce()) -> Seen {
    assert!(timeout(super::LONG, peer.call()).await.unwrap(), "healthy before the outage");
    hurt().await;
    let dials = proxy.accepted();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (peer, is_over) = (peer.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let (mut slowest, mut failed) = (Duration::ZERO, 0);
                while !is_over.load(SeqCst) {
                    let asked = Instant::now();
                    failed += usize::from(!peer.call().await);
                    slowest = slowest.max(asked.elapsed());
                    sleep(Duration::from_millis(5)).await;
                }
                (slowest, failed)
            })
        })
        .collect();
    sleep(OUTAGE).await;
    let dials = proxy.accepted() - dials;
    heal().await;
    let healed = Instant::now();
    while !peer.call().await {
        assert!(healed.elapsed() < super::LONG, "never recovered");
        sleep(Duration::from_millis(5)).await;
    }
    let mut seen = Seen { slowest_answer: Duration::ZERO, failed: 0, dials, recovered_after: healed.elapsed() };
    is_over.store(true, SeqCst);
    for caller in callers {
        let (slowest, failed) = caller.await.unwrap();
        seen.slowest_answer = seen.slowest_answer.max(slowest);
        seen.failed += failed;
    }
    seen
}

fn judge(fault: &str, peer: &Peer, seen: &Seen) {
    match peer {
        Peer::Deadpool(_) => println!("{fault}: deadpool {seen:?}"),
        Peer::Failfast(_) => {
            println!("{fault}: failfast {seen:?}");
            assert!(seen.slowest_answer <= PATIENCE + SLACK, "{fault}: {seen:?}");
            assert!(seen.recovered_after <= Duration::from_millis(1_500), "{fault}: {seen:?}");
            assert!(seen.failed > 0, "{fault}: there was an outage");
            assert!(seen.dials <= 20, "{fault}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_for_a_while() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    for peer in Peer::both(server, &proxy) {
        let hurt = async || {
            proxy.refuse().await;
            proxy.cut(Close::Reset);
        };
        let seen = outage(peer.clone(), &proxy, hurt, async || proxy.accept().await).await;
        judge("refused", &peer, &seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_swallows_everything_for_a_while() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    for peer in Peer::both(server, &proxy) {
        let seen = outage(peer.clone(), &proxy, async || proxy.stall(), async || proxy.resume()).await;
        judge("black hole", &peer, &seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_frozen_for_a_while() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    for peer in Peer::both(&server, &proxy) {
        let server = std::cell::RefCell::new(&mut server);
        #[allow(clippy::await_holding_refcell_ref, reason = "hurt and heal follow each other")]
        let (hurt, heal) = (async || server.borrow_mut().pause().await, async || server.borrow_mut().unpause().await);
        let seen = outage(peer.clone(), &proxy, hurt, heal).await;
        judge("frozen", &peer, &seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_restarted() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    for peer in Peer::both(&server, &proxy) {
        let server = std::cell::RefCell::new(&mut server);
        #[allow(clippy::await_holding_refcell_ref, reason = "hurt and heal follow each other")]
        let (hurt, heal) = (async || server.borrow_mut().stop().await, async || server.borrow_mut().start().await);
        let seen = outage(peer.clone(), &proxy, hurt, heal).await;
        judge("restarted", &peer, &seen);
    }
}
