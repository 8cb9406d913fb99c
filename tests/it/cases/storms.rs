//! A server that has no connections left, or accepts them again. The pool dials a few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::breaker::State;
use failfast::{BreakerConfig, Error, Pool};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use super::LONG;
use super::deadpool::{Outcome, bare, call_within};
use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, server::Server};

/// Opens connections until the server accepts no more.
async fn crowd(config: &Config) -> Vec<Client> {
    let mut crowd = Vec::new();
    loop {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                crowd.push(client);
            }
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{error:?}");
                return crowd;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_22_too_many_clients_cause_no_storm_and_no_flush() {
    const OWN: usize = 3;
    const CALLERS: usize = 20;
    const WORK: &str = "SELECT pg_backend_pid() FROM pg_sleep(0.01)";
    let server = Server::own(&[("max_connections", "12"), ("superuser_reserved_connections", "0")]).await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config.clone()).name("case_22").max_size(8).build().unwrap();
    pool.warm_up(OWN, LONG).await.unwrap();
    let before = join_all((0..OWN).map(|_| pool.get_timeout(LONG))).await;
    let pids: Vec<_> = before.iter().filter_map(|client| client.as_ref().ok()?.process_id()).collect();
    drop(before);
    let others = crowd(&server.config()).await;

    let dials = proxy.accepted();
    let is_over = Arc::new(AtomicBool::new(false));
    let (shared, told) = (Arc::new(pool.clone()), Arc::clone(&is_over));
    let callers = (0..CALLERS).map(|_| {
        let (pool, is_over) = (Arc::clone(&shared), Arc::clone(&told));
        tokio::spawn(async move {
            let mut answers = Vec::new();
            while !is_over.load(SeqCst) {
                let answer = pool.call().deadline(LONG).query_one(WORK, &[]).await;
                answers.push(answer.map(|row| row.get::<_, i32>(0)).map_err(|error| error.to_string()));
            }
            answers
        })
    });
    let callers: Vec<_> = callers.collect();
    sleep(Duration::from_millis(1_000)).await;
    is_over.store(true, SeqCst);
    let dials = proxy.accepted() - dials;
    let mut seen: Vec<i32> = Vec::new();
    let mut served = 0;
    for caller in callers {
        for answer in caller.await.unwrap() {
            served += 1;
            seen.push(answer.expect("the existing connections serve every call"));
        }
    }
    seen.sort_unstable();
    seen.dedup();
    let mut pids = pids;
    pids.sort_unstable();
    assert_eq!(seen, pids, "the pool lost or made a connection");
    assert!((1..=12).contains(&dials), "{dials}");

    drop(others);
    let asked = Instant::now();
    let held: Vec<_> = join_all((0..2 * OWN).map(|_| pool.get_timeout(LONG))).await;
    assert!(held.iter().all(Result::is_ok), "{held:?}");
    let grown = asked.elapsed();
    drop(held);
    pool.close();
    eventually("all connections are closed", LONG, async || proxy.open() == 0).await;

    let deadpool = bare(config, "case_22", 8);
    drop(join_all((0..OWN).map(|_| deadpool.get())).await);
    let _others = crowd(&server.config()).await;
    let theirs = proxy.accepted();
    let end = Instant::now() + Duration::from_millis(1_000);
    let asking = join_all((0..CALLERS).map(|_| async {
        let mut failed = 0;
        while Instant::now() < end {
            failed += usize::from(call_within(LONG, &deadpool, WORK).await != Outcome::Done);
        }
        failed
    }));
    let failed: usize = asking.await.into_iter().sum();
    println!(
        "case 22: failfast 0 of {served} failed, {dials} dials in 1 s, the pool has grown after {grown:?}; deadpool: {failed} failed, {} dials in 1 s",
        proxy.accepted() - theirs
    );
}

/// The existing connections serve their callers, so the circuit stays closed, even if most results are failed dials.
#[tokio::test(flavor = "multi_thread")]
async fn case_22_a_full_server_opens_no_circuit_while_any_connection_works() {
    let server = Server::own(&[("max_connections", "6"), ("superuser_reserved_connections", "0")]).await;
    let proxy = Proxy::start(server.addr()).await;
    let breaker = BreakerConfig::default().volume_threshold(3);
    let pool = Pool::builder(server.config_at(proxy.addr())).name("case_22_full").max_size(4).breaker(breaker);
    let pool = pool.build().unwrap();
    let held = pool.get_timeout(LONG).await.unwrap();
    let _others = crowd(&server.config()).await;
    let dials = proxy.accepted();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get_timeout(LONG).await.map(drop) }
    });
    eventually("dials fail", LONG, async || proxy.accepted() >= dials + 5).await;
    assert_eq!(pool.breaker().state(), State::Closed, "{}", pool.breaker().snapshot());
    held.query_one("SELECT 1", &[]).await.unwrap();
    drop(held);
    waiting.await.unwrap().unwrap();

    // Without any connection, a full server is as bad as none.
    drop(pool.get().await.unwrap().detach());
    eventually("no connection is left", LONG, async || proxy.open() == 0).await;
    let refused = async || matches!(pool.get().await, Err(Error::CircuitOpen { .. }));
    let _others_too = crowd(&server.config()).await;
    eventually("the circuit opens", LONG, refused).await;
}

/// Each dial takes at least 60 ms here, so any younger connection is a dial.
#[tokio::test]
async fn case_23_a_recovered_server_gets_no_storm_of_dials() {
    const CALLERS: usize = 500;
    const SIZE: usize = 20;
    const AT_ONCE: usize = 4;
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    for way in [Way::ToServer, Way::ToClient] {
        proxy.delay(way, Duration::from_millis(10));
    }
    // This role's password is cheap to check, because this process makes many dials.
    let quick = "CREATE ROLE case_23 LOGIN PASSWORD 'secret'";
    server.execute(&format!("SET scram_iterations = 1; DROP ROLE IF EXISTS case_23; {quick}")).await;
    let mut config = server.config_at(proxy.addr());
    config.user("case_23");
    let pool = Pool::builder(config.clone()).name("case_23").max_size(SIZE).build().unwrap();
    proxy.refuse().await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                while let Err(error) = pool.call().deadline(LONG).query("SELECT 1", &[]).await {
                    sleep(error.retry_after().expect("the error says when to try again")).await;
                }
            })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    proxy.accept().await;
    let back = Instant::now();
    let (mut before, mut most) = (0, 0);
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        let status = pool.status();
        let ready = status.idle + status.in_use + status.settling + status.closing;
        let dials = (proxy.open() as usize).saturating_sub(ready);
        most = most.max(dials);
        if ready == 0 {
            before = before.max(dials);
        }
        assert!(back.elapsed() < LONG, "{status}");
        sleep(Duration::from_millis(1)).await;
    }
    let served = back.elapsed();
    assert!(before <= 1, "more than one dial before the server was known to be back: {before}");
    assert!((1..=AT_ONCE).contains(&most), "{most} at once");
    assert!(proxy.accepted() <= SIZE as u64);
    drop(pool);
    eventually("all connections are closed", LONG, async || proxy.open() == 0).await;

    proxy.refuse().await;
    let deadpool = bare(config, "case_23", SIZE);
    let is_over = Arc::new(AtomicBool::new(false));
    for _ in 0..CALLERS {
        let (deadpool, is_over) = (deadpool.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            while !is_over.load(SeqCst) && call_within(LONG, &deadpool, "SELECT 1").await != Outcome::Done {
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
    sleep(Duration::from_millis(300)).await;
    proxy.accept().await;
    let mut theirs = 0;
    let _ = timeout(Duration::from_millis(50), async {
        loop {
            theirs = theirs.max(proxy.open());
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    is_over.store(true, SeqCst);
    println!(
        "case 23: failfast {before}, then {most} dials at once, all served after {served:?}; deadpool: {theirs} at once"
    );
}
