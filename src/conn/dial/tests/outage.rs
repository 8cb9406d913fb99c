//! A pool of one connection, and a name with two addresses. The first one accepts no connection and does not answer, as
//! a dead IPv6 address does.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::super::names::{HANGS_FIRST, TWO_ADDRESSES};
use super::*;
use crate::Pool;
use crate::breaker::State;

const PACE: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

/// The way to the server over the other address. While it is shut, it refuses connections.
struct Way {
    at: SocketAddr,
    server: SocketAddr,
    relay: Option<JoinHandle<()>>,
}

impl Way {
    async fn open(&mut self) {
        let (listener, server) = (TcpListener::bind(self.at).await.unwrap(), self.server);
        self.relay = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut stream = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut stream).await;
                });
            }
        }));
    }

    async fn shut(&mut self) {
        let relay = self.relay.take().unwrap();
        relay.abort();
        let _ = relay.await;
    }
}

/// Runs callers every 100 ms, until `is_over` returns `true` for an answer. Returns how long that took.
async fn callers(pool: &Pool, mut is_over: impl FnMut(Result<(), crate::Error>) -> bool) -> Duration {
    let (begun, mut callers) = (Instant::now(), JoinSet::new());
    loop {
        assert!(begun.elapsed() < LONG, "{}", pool.status());
        let asking = pool.clone();
        callers.spawn(async move { asking.batch_execute("SELECT 1").await });
        let next = Instant::now() + PACE;
        while let Ok(Some(answer)) = time::timeout_at(next, callers.join_next()).await {
            if is_over(answer.unwrap()) {
                return begun.elapsed();
            }
        }
        time::sleep_until(next).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_one_serves_within_three_seconds_though_one_address_is_dead() {
    let server = address(1, shared_server().await.config().get_ports()[0]);
    let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _dead = Dead::at(address(2, at.port()));
    let mut way = Way { at, server, relay: None };
    way.open().await;
    let config = config_at(TWO_ADDRESSES, at.port()).await;
    let breaker = BreakerConfig::default().volume_threshold(3);
    let pool = Pool::builder(config).name("two_addresses").max_size(1).breaker(breaker).build().unwrap();

    let cold = callers(&pool, |answer| answer.map(|()| true).unwrap()).await;
    pool.flush();
    let flushed = callers(&pool, |answer| answer.map(|()| true).unwrap()).await;
    println!("first success after {cold:.1?}, and {flushed:.1?} after a flush");
    assert!(cold < Duration::from_secs(1) && flushed < Duration::from_secs(1), "{cold:?}, {flushed:?}");
    for _ in 0..3 {
        way.shut().await;
        callers(&pool, |_| pool.breaker().state() == State::Open).await;
        // The pool's check of the server has reached the dead address and waits for it.
        let mut waits = 0;
        let is_waiting = |_| {
            waits = if pool.status().dialing == 1 { waits + 1 } else { 0 };
            waits == 5
        };
        callers(&pool, is_waiting).await;
        way.open().await;
        let back = callers(&pool, |answer| answer.is_ok()).await;
        println!("first success {back:.1?} after the outage");
        assert!(back < Duration::from_secs(3), "{back:?}: {}", pool.status());
    }
}

/// The name service answers again, but the look-up that was begun before never returns.
#[tokio::test]
async fn a_look_up_that_hangs_costs_a_pool_one_dial() {
    let port = shared_server().await.config().get_ports()[0];
    let config = config_at(HANGS_FIRST, port).await;
    let within = Duration::from_millis(500);
    let builder = Pool::builder(config).name("hanging_name").max_size(1).acquire_timeout(LONG);
    let pool = builder.connect_timeout(within).build().unwrap();
    let back = callers(&pool, |answer| answer.is_ok()).await;
    println!("first success after {back:.1?}");
    assert!(back >= within, "the first look-up hung: {back:?}");
}
