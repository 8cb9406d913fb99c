//! The end of a pool: what is left on the server when `drain` returns.

use std::time::{Duration, Instant};

use failfast::Pool;
use futures_util::future::join_all;

use super::{LONG, shared};
use crate::support::server::Server;

/// What often follows: dropping the database that the pool used. The server refuses that while it has a session there
/// (55006), unless the session ends within a few seconds.
#[tokio::test]
async fn after_a_drain_the_server_has_no_session_of_the_pool() {
    const SIZE: usize = 4;
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'drained_away'";
    let server = Server::shared().await;
    let admin = server.admin().await;
    let mut config = server.config();
    config.dbname("drained_away");
    for _ in 0..20 {
        admin.batch_execute("CREATE DATABASE drained_away").await.unwrap();
        let pool = Pool::builder(config.clone()).name("drained_away").max_size(SIZE).build().unwrap();
        let clients = join_all((0..SIZE).map(|_| pool.get_timeout(LONG))).await;
        let [idle, changed, open, late] = clients.try_into().unwrap();
        drop(idle.unwrap());
        let (changed, open, late) = (changed.unwrap(), open.unwrap(), late.unwrap());
        changed.batch_execute("SET work_mem = '9MB'").await.unwrap();
        open.batch_execute("BEGIN; CREATE TABLE t ()").await.unwrap();
        let draining = pool.drain(LONG);
        let ends = async move {
            drop((changed, open));
            let asleep = tokio::time::timeout(Duration::from_millis(10), late.batch_execute("SELECT pg_sleep(60)"));
            assert!(asleep.await.is_err());
            drop(late);
        };
        let (left, ()) = tokio::join!(draining, ends);
        let sessions: i64 = admin.query_one(SESSIONS, &[]).await.unwrap().get(0);
        assert_eq!((left, sessions), (0, 0));
        admin.batch_execute("DROP DATABASE drained_away").await.unwrap();
    }
}

/// The server never closes the connections.
#[tokio::test]
async fn a_drain_waits_at_most_a_second_for_a_server_that_is_frozen() {
    let mut server = Server::own(&[]).await;
    let pool = Pool::builder(server.config()).name("frozen").max_size(3).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    server.pause().await;
    let begun = Instant::now();
    assert_eq!(pool.drain(LONG).await, 0);
    let took = begun.elapsed();
    server.unpause().await;
    assert!(took >= Duration::from_millis(900) && took < LONG / 2, "{took:?}");
}

#[tokio::test]
async fn a_lease_that_is_left_keeps_no_drain_waiting() {
    let pool = shared("left_over").await.max_size(2).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    let held = pool.get_timeout(LONG).await.unwrap();
    let begun = Instant::now();
    assert_eq!(pool.drain(Duration::from_millis(100)).await, 1);
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert_eq!(Server::shared().await.connection_count("left_over").await, 1);
    held.batch_execute("SELECT 1").await.unwrap();
}
