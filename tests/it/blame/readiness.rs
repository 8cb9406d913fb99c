//! When every connection of the pool is in use, it is either busy or stuck.

use std::time::Duration;

use failfast::{NotReady, Pool};
use futures_util::future::join_all;

use super::{LONG, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

const LIMIT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_pool_whose_guards_are_all_leaked_is_not_ready() {
    let pool = shared("leaked").await.max_size(2).unready_after(LIMIT).build().unwrap();
    for client in join_all((0..2).map(|_| pool.get_timeout(LONG))).await {
        std::mem::forget(client.unwrap());
    }
    eventually("ready at first", LONG, async || pool.ready().is_ok()).await;
    eventually("the pool is stuck", LONG, async || matches!(pool.ready(), Err(NotReady::Stuck { held: 2, .. }))).await;
    let line = pool.ready().unwrap_err().to_string();
    assert!(line.starts_with("all 2 connections have been held for "), "{line}");
}

#[tokio::test]
async fn abandoned_transactions_make_the_pool_not_ready_until_one_ends() {
    let pool = shared("stuck_transactions").await.max_size(2).unready_after(LIMIT).build().unwrap();
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(pool.get_timeout(LONG).await.unwrap().transaction().await.unwrap());
    }
    eventually("the pool is stuck", LONG, async || matches!(pool.ready(), Err(NotReady::Stuck { held: 2, .. }))).await;
    drop(open.pop());
    eventually("ready again", LONG, async || pool.ready().is_ok()).await;
}

/// The pool has no free connection for a health check, so it dials one beyond its limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pool_of_a_silent_server_is_not_ready() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("gone_while_busy").max_size(2);
    let pool = builder.unready_after(LIMIT).connect_timeout(LIMIT).build().unwrap();
    eventually("ready without a call", LONG, async || pool.ready().is_ok()).await;
    let busy = {
        let pool = pool.clone();
        tokio::spawn(async move {
            let statement = || pool.call().deadline(LONG).query_one("SELECT pg_sleep(10)", &[]);
            tokio::join!(statement(), statement())
        })
    };
    eventually("both connections are in use", LONG, async || pool.status().in_use == 2).await;
    // This takes twice `unready_after`.
    for _ in 0..20 {
        tokio::time::sleep(LIMIT / 10).await;
        assert_eq!(pool.ready(), Ok(()), "a busy pool is ready");
    }
    proxy.stall();
    eventually("the server is reported as silent", LONG, async || matches!(pool.ready(), Err(NotReady::Silent { .. })))
        .await;
    assert_eq!(pool.status().in_use, 2, "the statements ended too early");
    busy.abort();
}
