//! The pool keeps connections ready, checks them, and closes them when they are old.

use std::time::Duration;

use failfast::Pool;
use tokio::runtime::{Handle, Runtime};
use tokio::time::sleep;

use super::{LONG, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

#[tokio::test]
async fn min_idle_is_kept_from_the_beginning() {
    let pool = shared("kept").await.max_size(6).min_idle(4).build().unwrap();
    eventually("the pool makes four connections without a call", LONG, async || pool.status().idle == 4).await;
    let held = pool.get().await.unwrap();
    eventually("the pool makes another connection", LONG, async || pool.status().idle == 4).await;
    drop(held);
}

#[tokio::test]
async fn old_and_idle_connections_are_closed_and_min_idle_is_restored() {
    let server = Server::shared().await;
    let pool = shared("old").await.max_size(4).min_idle(1).idle_timeout(Duration::from_millis(500)).build().unwrap();
    pool.warm_up(4, LONG).await.unwrap();
    eventually("the pool closes three connections that were idle for too long", LONG, async || {
        server.connection_count("old").await == 1
    })
    .await;
    let pool = shared("older").await.max_size(2).min_idle(2).max_lifetime(Duration::from_millis(500)).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    let pid = pool.get().await.unwrap().process_id().unwrap();
    let is_gone =
        async || server.scalar(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await == "0";
    eventually("the pool closes the connection that is too old", LONG, is_gone).await;
    eventually("the pool has replaced the closed connections", LONG, async || pool.status().idle == 2).await;
}

/// A firewall forgot the connections, so neither side learns that they are dead.
#[tokio::test]
async fn silent_connections_are_found_together_before_any_call() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let builder = Pool::builder(config).name("silent").max_size(8);
    let pool = builder.health_check_after(Duration::from_millis(300)).build().unwrap();
    pool.warm_up(8, LONG).await.unwrap();
    proxy.stall_existing();
    eventually("the pool gives up all eight connections", LONG, async || {
        pool.status().idle == 0 && pool.status().settling == 0
    })
    .await;
    let answer = pool.call().deadline(Duration::from_secs(5)).query_one("SELECT 1", &[]).await;
    answer.expect("a new connection");
}

/// These are connections of a server that says nothing.
#[tokio::test]
async fn silent_connections_do_not_open_the_circuit() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("forgotten").max_size(24).max_connecting(24);
    let pool = builder.health_check_after(Duration::from_secs(3)).build().unwrap();
    let mut held = Vec::new();
    for _ in 0..24 {
        held.push(pool.get_timeout(LONG).await.unwrap());
    }
    // The connections have different ages, so the pool does not give them up together.
    for client in held {
        drop(client);
        sleep(Duration::from_millis(110)).await;
    }
    proxy.stall_existing();
    let is_over = async || pool.status().idle == 0 && pool.status().settling == 0;
    eventually("the pool gives up all connections", LONG, is_over).await;
    assert_eq!(pool.breaker().snapshot().history.len(), 0);
    pool.query_one("SELECT 1", &[]).await.expect("the server is well");
}

#[tokio::test]
async fn healthy_connections_stay() {
    let pool = shared("healthy").await.max_size(3).health_check_after(Duration::from_millis(100)).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    let server = Server::shared().await;
    let pids =
        "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE application_name = 'healthy'";
    let before = server.scalar(pids).await;
    // This takes several rounds of checks.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(server.scalar(pids).await, before);
}

/// The test counts tasks in a runtime of its own, and connections on the server.
#[test]
fn a_pool_that_is_dropped_leaves_nothing_behind() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::shared().await;
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let pool = shared("dropped").await.max_size(5).min_idle(3).build().unwrap();
        pool.warm_up(5, LONG).await.unwrap();
        pool.query_one("SELECT 1", &[]).await.unwrap();
        assert!(tasks() >= before + 6, "fewer than one task for each connection and one for the pool");
        drop(pool);
        eventually("no task is left", LONG, async || tasks() == before).await;
        eventually("no connection is left", LONG, async || server.connection_count("dropped").await == 0).await;
    });
}
