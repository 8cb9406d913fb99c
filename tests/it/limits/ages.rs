//! The pool checks the age of a connection when it hands it out, even if its maintenance task has not run.
//!
//! These tests block the only thread of their runtime, as a stopped process blocks all of its threads. The clock goes
//! on, and maintenance does nothing. Afterwards a caller runs first.

use std::thread;
use std::time::Duration;

use failfast::{Pool, PoolBuilder};
use futures_util::future::join_all;

use super::{LONG, MILLISECOND, shared};
use crate::support::{proxy::Proxy, server::Server};

const SECOND: Duration = Duration::from_secs(1);

/// Stops the process while the network forgets its connections. The next calls must not get those connections.
async fn forgotten_meanwhile(name: &str, rules: impl Fn(PoolBuilder) -> PoolBuilder) {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    let config = Server::shared().await.config_at(proxy.addr());
    let builder = Pool::builder(config).name(name).max_size(3).acquire_timeout(LONG).query_timeout(5 * SECOND);
    let pool = rules(builder).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    proxy.stall_existing();
    thread::sleep(SECOND + 500 * MILLISECOND);
    for answer in join_all((0..5).map(|_| pool.execute("SELECT 1", &[]))).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn after_a_stop_a_connection_due_for_a_check_is_not_handed_out() {
    forgotten_meanwhile("due_for_a_check", |builder| builder.health_check_after(SECOND)).await;
}

#[tokio::test]
async fn after_a_stop_a_connection_idle_for_too_long_is_not_handed_out() {
    let rules = |builder: PoolBuilder| builder.health_check_after(3_600 * SECOND).idle_timeout(SECOND).min_idle(3);
    forgotten_meanwhile("idle_for_too_long", rules).await;
}

#[tokio::test]
async fn after_a_stop_a_connection_that_is_too_old_is_not_handed_out() {
    let pool = shared("too_old").await.max_size(2).max_lifetime(SECOND).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    let processes = async || {
        let clients = join_all((0..2).map(|_| pool.get_timeout(LONG))).await;
        clients.into_iter().map(|client| client.unwrap().process_id()).collect::<Vec<_>>()
    };
    let before = processes().await;
    thread::sleep(SECOND + 500 * MILLISECOND);
    let after = processes().await;
    assert!(after.iter().all(|process| !before.contains(process)), "{before:?}, {after:?}");
}

/// A check costs one round trip and keeps the connection.
#[tokio::test]
async fn after_a_stop_live_connections_serve_again() {
    let pool = shared("alive_after_a_stop").await.max_size(3).health_check_after(SECOND).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    let processes = async || {
        let clients = join_all((0..3).map(|_| pool.get_timeout(LONG))).await;
        let mut processes: Vec<_> = clients.into_iter().map(|client| client.unwrap().process_id()).collect();
        processes.sort_unstable();
        processes
    };
    let before = processes().await;
    thread::sleep(SECOND + 500 * MILLISECOND);
    assert_eq!(processes().await, before);
}
