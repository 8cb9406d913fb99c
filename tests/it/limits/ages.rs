//! Ages are judged at hand-out: whatever became of the pool's own task meanwhile.
//!
//! These tests block the only thread of their runtime, as a process that is stopped blocks all of its threads: the clock goes on, and upkeep does
//! nothing. The first thing that runs after that is a caller.

use std::thread;
use std::time::Duration;

use failfast::{Pool, PoolBuilder};
use futures_util::future::join_all;

use super::{LONG, MILLISECOND, shared};
use crate::support::{proxy::Proxy, server::Server};

const SECOND: Duration = Duration::from_secs(1);

/// A process that is stopped, whose connections the network forgets meanwhile: the calls that come next do not meet them.
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
async fn after_a_stop_no_connection_is_handed_out_that_was_due_for_a_check() {
    forgotten_meanwhile("due_for_a_check", |builder| builder.health_check_after(SECOND)).await;
}

#[tokio::test]
async fn after_a_stop_no_connection_is_handed_out_that_was_idle_for_too_long() {
    let rules = |builder: PoolBuilder| builder.health_check_after(3_600 * SECOND).idle_timeout(SECOND).min_idle(3);
    forgotten_meanwhile("idle_for_too_long", rules).await;
}

#[tokio::test]
async fn after_a_stop_no_connection_is_handed_out_that_is_too_old() {
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

/// A check costs one round trip, and no connection.
#[tokio::test]
async fn after_a_stop_connections_that_are_alive_serve_again() {
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
