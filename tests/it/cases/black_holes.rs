//! A silent peer. Each caller pays its own deadline once, and every slot comes back.

use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use failfast::{ConnectErrorKind, Error, Pool, Status};
use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::LONG;
use super::deadpool::{Outcome, bare, call};
use crate::support::{eventually, proxy::Proxy, server::Server};

/// The deadline of each call.
const LIMIT: Duration = Duration::from_millis(200);
/// The delay that a busy machine may add.
const SLACK: Duration = Duration::from_millis(800);

async fn shared_behind_proxy() -> (Proxy, tokio_postgres::Config) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    (proxy, config)
}

async fn idle(pool: &Pool, connections: usize) {
    pool.warm_up(connections, LONG).await.unwrap();
    eventually("all connections are idle", LONG, async || pool.status().idle == connections).await;
}

fn is_at_rest(status: &Status) -> bool {
    status.in_use + status.settling + status.dialing + status.closing + status.waiting == 0
}

#[tokio::test]
async fn case_11_a_frozen_server_costs_one_deadline() {
    let mut server = Server::own(&[]).await;
    let config = server.config();
    server.pause().await;
    let pool = Pool::builder(config.clone()).name("case_11").connect_timeout(2 * LIMIT).build().unwrap();
    let asked = Instant::now();
    let error = pool.call().deadline(LIMIT).query("SELECT 1", &[]).await.unwrap_err();
    let took = asked.elapsed();
    assert!(matches!(error, Error::AcquireTimeout { .. }), "{error:?}");
    assert!((LIMIT..LIMIT + SLACK).contains(&took), "{took:?}");
    let error = pool.get_timeout(LONG).await.unwrap_err();
    let Error::Connect { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(*source.kind(), ConnectErrorKind::Timeout(2 * LIMIT), "the dial has a deadline of its own");

    let deadpool = bare(config, "case_11", 10);
    let outcome = call(&deadpool, "SELECT 1").await;
    println!("case 11: failfast fails after {took:?}; deadpool: {outcome}");
    assert_eq!(outcome, Outcome::Hangs);
}

#[tokio::test]
async fn case_12_idle_connections_into_a_black_hole_cost_one_deadline() {
    const IDLE: usize = 8;
    let (proxy, config) = shared_behind_proxy().await;
    let pool = Pool::builder(config.clone()).name("case_12").max_size(IDLE).build().unwrap();
    idle(&pool, IDLE).await;
    let deadpool = bare(config, "case_12", IDLE);
    drop(join_all((0..IDLE).map(|_| deadpool.get())).await);

    proxy.stall_existing();
    let asked = Instant::now();
    let answers = join_all((0..IDLE).map(|_| pool.call().deadline(LIMIT).query("SELECT 1", &[]))).await;
    let took = asked.elapsed();
    for answer in answers {
        assert!(matches!(answer, Err(Error::QueryTimeout { .. })), "{answer:?}");
    }
    assert!((LIMIT..LIMIT + SLACK).contains(&took), "{took:?}");
    let asked = Instant::now();
    pool.call().deadline(LONG).query("SELECT 1", &[]).await.expect("a caller got a silent connection again");
    let again = asked.elapsed();

    let outcome = call(&deadpool, "SELECT 1").await;
    println!("case 12: failfast fails after {took:?}, and serves again {again:?} later; deadpool: {outcome}");
    assert_eq!(outcome, Outcome::Hangs);
}

#[tokio::test]
async fn case_13_a_black_hole_in_mid_query_gives_the_slot_back() {
    const SLOW: &str = "SELECT pg_sleep(0.3)";
    let (proxy, config) = shared_behind_proxy().await;
    let pool = Pool::builder(config.clone()).name("case_13").max_size(1).build().unwrap();
    idle(&pool, 1).await;
    let deadpool = bare(config, "case_13", 1);
    drop(deadpool.get().await.unwrap());
    let server = Server::shared().await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name LIKE 'case_13%'";

    let (inject, asked) = (Duration::from_millis(1_500), Instant::now());
    let hole = async {
        eventually("the statement runs", LONG, async || server.scalar(running).await != "0").await;
        proxy.stall_existing();
    };
    let query = pool.call().timeout(inject).query("SELECT pg_sleep(60)", &[]);
    let (late, ()) = tokio::join!(query, hole);
    let took = asked.elapsed();
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    assert!((inject..inject + SLACK).contains(&took), "{took:?}");
    pool.call().deadline(LONG).query("SELECT 1", &[]).await.expect("the slot is free again");
    assert!(is_at_rest(&pool.status()), "{}", pool.status());

    let outcome = call(&deadpool, SLOW).await;
    let next = call(&deadpool, "SELECT 1").await;
    println!("case 13: failfast fails after {took:?}, the slot is free; deadpool: {outcome}, then {next}");
    assert_eq!((outcome, next), (Outcome::Hangs, Outcome::Hangs));
}

/// The network is silent while the pool resets connections with changed sessions. Callers give up meanwhile.
#[tokio::test]
async fn case_14_acquire_timeouts_while_validating_leave_the_counts_exact() {
    const SIZE: usize = 3;
    let (proxy, config) = shared_behind_proxy().await;
    let pool = Pool::builder(config.clone()).name("case_14").max_size(SIZE).build().unwrap();
    for round in 0..3 {
        let clients = join_all((0..SIZE).map(|_| pool.get_timeout(LONG))).await;
        for client in &clients {
            client.as_ref().unwrap().batch_execute("SET work_mem = '8MB'").await.unwrap();
        }
        proxy.stall();
        drop(clients);
        assert_eq!((pool.status().settling, pool.status().idle), (SIZE, 0), "round {round}");
        let callers = (0..20).map(|n| pool.get_timeout(Duration::from_millis(n)));
        for late in join_all(callers).await {
            assert!(matches!(late, Err(Error::AcquireTimeout { .. })), "{late:?}");
        }
        let status = pool.status();
        assert_eq!((status.settling + status.closing + status.dialing, status.waiting), (SIZE, 0), "{status}");
        proxy.resume();
        eventually("the slots are free", LONG, async || is_at_rest(&pool.status())).await;
        assert_eq!(pool.status().idle, SIZE, "round {round}: the pool closed good connections");
    }
    let all = join_all((0..SIZE).map(|_| pool.get_timeout(LONG))).await;
    assert!(all.iter().all(Result::is_ok) && pool.try_get().is_err());
    drop(all);
    let server = Server::shared().await;
    eventually("the server has as many connections as the pool", LONG, async || {
        server.connection_count("case_14").await == SIZE as u64
    })
    .await;

    let mut config = config;
    config.application_name("case_14_deadpool");
    let verified = ManagerConfig { recycling_method: RecyclingMethod::Verified };
    let manager = Manager::from_config(config, NoTls, verified);
    let deadpool = deadpool_postgres::Pool::builder(manager).max_size(SIZE).build().unwrap();
    drop(join_all((0..SIZE).map(|_| deadpool.get())).await);
    proxy.stall();
    for n in 0..20 {
        assert!(timeout(Duration::from_millis(n), deadpool.get()).await.is_err());
    }
    let status = deadpool.status();
    proxy.resume();
    let ours = pool.status();
    println!("case 14: failfast {ours}; deadpool, while verifying, {} of {SIZE} left in the pool", status.size);
}
