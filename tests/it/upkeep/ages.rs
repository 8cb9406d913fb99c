//! Connections are kept ready, checked, and closed when they are old.

use std::time::Duration;

use failfast::Pool;
use tokio::runtime::{Handle, Runtime};
use tokio::time::sleep;

use super::{LONG, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

#[tokio::test]
async fn connections_are_kept_idle_from_the_beginning() {
    let pool = shared("kept").await.max_size(6).min_idle(4).build().unwrap();
    eventually("four are made, and nobody asked", LONG, async || pool.status().idle == 4).await;
    let held = pool.get().await.unwrap();
    eventually("another is made", LONG, async || pool.status().idle == 4).await;
    drop(held);
}

#[tokio::test]
async fn the_old_and_the_bored_are_closed_and_the_kept_replaced() {
    let server = Server::shared().await;
    let pool = shared("old").await.max_size(4).min_idle(1).idle_timeout(Duration::from_millis(500)).build().unwrap();
    pool.warm_up(4, LONG).await.unwrap();
    eventually("three were idle for too long", LONG, async || server.connection_count("old").await == 1).await;
    let pool = shared("older").await.max_size(2).min_idle(2).max_lifetime(Duration::from_millis(500)).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    let pid = pool.get().await.unwrap().process_id().unwrap();
    let is_gone =
        async || server.scalar(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await == "0";
    eventually("it is too old", LONG, is_gone).await;
    eventually("replaced", LONG, async || pool.status().idle == 2).await;
}

/// A firewall forgot them: nobody says that they are dead.
#[tokio::test]
async fn silent_connections_are_found_together_before_anybody_asks() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let builder = Pool::builder(config).name("silent").max_size(8);
    let pool = builder.health_check_after(Duration::from_millis(300)).build().unwrap();
    pool.warm_up(8, LONG).await.unwrap();
    proxy.stall_existing();
    eventually("all eight are given up", LONG, async || pool.status().idle == 0 && pool.status().settling == 0).await;
    let answer = pool.call().deadline(Duration::from_secs(5)).query_one("SELECT 1", &[]).await;
    answer.expect("a new connection");
}

/// Of the server that says nothing.
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
    // Of different ages, so that they are not given up together.
    for client in held {
        drop(client);
        sleep(Duration::from_millis(110)).await;
    }
    proxy.stall_existing();
    let is_over = async || pool.status().idle == 0 && pool.status().settling == 0;
    eventually("all are given up", LONG, is_over).await;
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
    // Several rounds of checks.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(server.scalar(pids).await, before);
}

/// Counted in a runtime of its own, and on the server.
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
        assert!(tasks() >= before + 6, "one for each connection, and one for the pool");
        drop(pool);
        eventually("no task is left", LONG, async || tasks() == before).await;
        eventually("nor a connection", LONG, async || server.connection_count("dropped").await == 0).await;
    });
}
