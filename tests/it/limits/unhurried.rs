//! The server's own timeouts never end work that the pool allows.

use std::pin::pin;

use failfast::{Error, ErrorKind, Pool, Reset, ServerTimeouts};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::sleep;

use super::{LONG, MILLISECOND, shared};

/// A statement may take 200 ms in this pool, and 1,200 ms by the server's clock.
async fn pool(name: &str, reset: Reset) -> Pool {
    let builder = shared(name).await.max_size(1).query_timeout(800 * MILLISECOND).reset(reset);
    let timeouts = ServerTimeouts::new().longest_call(200 * MILLISECOND);
    builder.server_timeouts(timeouts).acquire_timeout(LONG).build().unwrap()
}

/// Eight rows in 2.4 s. Each row is at least as long as a packet.
const SLOW_ROWS: &str = "SELECT pg_sleep(0.3), repeat('x', 20000) FROM generate_series(1, 8)";

/// Asserts that the next caller has the server's timeout again, and that nothing counted against the server.
async fn has_it_again(pool: &Pool) {
    let timeout: String = pool.query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(timeout, "1200ms");
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

#[tokio::test]
async fn a_stream_goes_on_while_every_row_is_in_time() {
    for reset in [Reset::WhenSeen, Reset::Never] {
        let pool = pool("unhurried_stream", reset).await;
        let rows = pin!(pool.query_raw(SLOW_ROWS, Vec::<i32>::new()).await.unwrap());
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap().len(), 8);
        has_it_again(&pool).await;
    }
}

#[tokio::test]
async fn a_stream_in_a_transaction_goes_on() {
    let pool = pool("unhurried_in_tx", Reset::WhenSeen).await;
    let rows = pool.transaction(async |tx| {
        let rows = pin!(tx.query_raw(SLOW_ROWS, Vec::<i32>::new()).await?);
        rows.try_collect::<Vec<_>>().await
    });
    assert_eq!(rows.await.unwrap().len(), 8);
    has_it_again(&pool).await;
}

#[tokio::test]
async fn a_slow_consumer_reads_all_rows() {
    let pool = pool("unhurried_consumer", Reset::WhenSeen).await;
    let sql = "SELECT repeat('x', 100000) FROM generate_series(1, 500)";
    let mut rows = pin!(pool.query_raw(sql, Vec::<i32>::new()).await.unwrap());
    rows.next().await.unwrap().unwrap();
    sleep(2_000 * MILLISECOND).await;
    assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap().len(), 499);
    has_it_again(&pool).await;
}

#[tokio::test]
async fn copies_in_both_directions_go_on() {
    let pool = pool("unhurried_copies", Reset::WhenSeen).await;
    let client = pool.get().await.unwrap();
    client.batch_execute("CREATE TEMP TABLE copied (line text)").await.unwrap();
    let mut copy = client.copy_in("COPY copied FROM STDIN").await.unwrap();
    for _ in 0..5 {
        sleep(400 * MILLISECOND).await;
        copy.send(&b"x\n"[..]).await.unwrap();
    }
    assert_eq!(copy.finish().await.unwrap(), 5);
    let out = pin!(client.copy_out(format!("COPY ({SLOW_ROWS}) TO STDOUT").as_str()).await.unwrap());
    assert_eq!(out.try_collect::<Vec<_>>().await.unwrap().len(), 8);
    drop(client);
    has_it_again(&pool).await;
}

/// A timeout for a whole call ends the call. The owner's `statement_timeout` in the connection string ends it too.
#[tokio::test]
async fn server_timeouts_end_calls_that_take_longer_as_a_whole() {
    let whole = pool("hurried", Reset::WhenSeen).await;
    let late = whole.call().timeout(LONG).query(SLOW_ROWS, &[]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");

    let mut config = crate::support::server::Server::shared().await.config();
    config.options("-c statement_timeout=1000");
    let builder = Pool::builder(config).name("owners_own").max_size(1).server_timeouts(ServerTimeouts::new());
    let owners = builder.build().unwrap();
    let rows = pin!(owners.query_raw(SLOW_ROWS, Vec::<i32>::new()).await.unwrap());
    let late: Error = rows.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(late.sqlstate().map(|state| state.code()), Some("57014"), "{late}");
    assert_eq!(owners.breaker().snapshot().counts.failures, 0, "the owner's limit counted against the server");
}
