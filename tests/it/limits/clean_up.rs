//! The pool measures clean-up in round trips, not in seconds, so a distant server loses no connection by it.

use failfast::{ErrorKind, Pool, PoolBuilder};

use super::{LONG, MILLISECOND, shared};
use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, server::Server};

/// A pool of one connection to a server with a round trip of 600 ms.
async fn far_away(name: &str) -> (Proxy, PoolBuilder) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    for way in [Way::ToServer, Way::ToClient] {
        proxy.delay(way, 300 * MILLISECOND);
    }
    let builder = Pool::builder(server.config_at(proxy.addr())).name(name).max_size(1);
    (proxy, builder.connect_timeout(LONG).acquire_timeout(LONG).query_timeout(LONG))
}

async fn process(pool: &Pool) -> Option<i32> {
    pool.get_timeout(LONG).await.unwrap().process_id()
}

/// Gives a statement up. The statement stops on the server, and the next caller gets the same connection.
async fn gives_up(pool: &Pool, name: &str) {
    let before = process(pool).await;
    let late = pool.call().timeout(100 * MILLISECOND).batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
    let running =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'active'");
    let stopped = async || Server::shared().await.scalar(&running).await == "0";
    eventually("the statement stops", LONG, stopped).await;
    assert_eq!(process(pool).await, before, "the pool lost the connection");
}

#[tokio::test]
async fn a_cancel_at_600_ms_a_round_trip_stops_the_statement_and_keeps_the_connection() {
    let (_proxy, builder) = far_away("far_plain").await;
    gives_up(&builder.build().unwrap(), "far_plain").await;
}

/// The answer is on its way, so waiting for it costs less than a cancel.
#[tokio::test]
async fn an_ended_statement_of_a_distant_server_is_not_cancelled() {
    let (proxy, builder) = far_away("far_ended").await;
    let pool = builder.build().unwrap();
    let before = process(&pool).await;
    let late = pool.call().timeout(100 * MILLISECOND).batch_execute("SELECT 1").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
    assert_eq!(process(&pool).await, before, "the pool lost the connection");
    assert_eq!(proxy.accepted(), 1, "the pool opened more than its one connection");
}

/// ROLLBACK, the reset and the owner's hook take three round trips of 600 ms. A fourth shows that the connection is
/// quiet.
#[tokio::test]
async fn a_transaction_and_a_session_left_behind_on_a_distant_server_cost_no_connection() {
    let (_proxy, builder) = far_away("far_leftovers").await;
    let hook = "SET work_mem = '5MB'";
    let pool = builder.after_connect(|client| Box::pin(client.batch_execute(hook))).build().unwrap();
    let client = pool.get_timeout(LONG).await.unwrap();
    let before = client.process_id();
    client.batch_execute("SET work_mem = '9MB'; BEGIN").await.unwrap();
    drop(client);
    assert_eq!(process(&pool).await, before);
}

#[tokio::test]
async fn the_owners_hook_has_its_own_time_after_a_reset() {
    let slow = "SELECT pg_sleep(2.5)";
    let builder = shared("slow_hook").await.max_size(1);
    let pool = builder.after_connect(|client| Box::pin(client.batch_execute(slow))).build().unwrap();
    let client = pool.get_timeout(LONG).await.unwrap();
    let before = client.process_id();
    client.batch_execute("SET work_mem = '9MB'").await.unwrap();
    drop(client);
    assert_eq!(process(&pool).await, before);
}
