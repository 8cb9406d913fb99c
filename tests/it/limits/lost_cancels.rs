//! Cancel requests that reach no server, as behind a balancer that sends them to another pooler. Callers do not notice
//! it, and the server keeps a bounded number of sessions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use failfast::{ErrorKind, Pool, PoolBuilder, ServerTimeouts};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{LONG, MILLISECOND};
use crate::support::proxy::{Cut, Proxy};
use crate::support::{eventually, server::Server};

const SLEEP: &str = "SELECT pg_sleep(60)";

/// The settings of a pool none of whose cancels reaches the server.
async fn without_cancels(name: &str) -> (Proxy, PoolBuilder) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    proxy.arm(Cut::at_cancel().times(u64::MAX));
    let builder = Pool::builder(server.config_at(proxy.addr())).name(name);
    (proxy, builder)
}

async fn terminate(name: &str) {
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";
    Server::shared().await.execute(&format!("{terminate}'{name}'")).await;
}

#[tokio::test]
async fn a_cancel_that_is_lost_costs_the_connection_and_no_caller() {
    let (proxy, builder) = without_cancels("lost_cancel").await;
    let pool = builder.max_size(1).acquire_timeout(LONG).build().unwrap();
    let session = async || pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let before = session().await;
    let asked = Instant::now();
    let late = pool.call().timeout(100 * MILLISECOND).batch_execute(SLEEP).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
    assert!(asked.elapsed() < LONG / 4, "the error came after {:?}", asked.elapsed());
    assert_ne!(session().await, before, "the statement still runs there");
    assert!(asked.elapsed() < LONG / 2, "the slot was free after {:?}", asked.elapsed());
    assert!(proxy.fired() >= 2, "the pool has cancelled again");
    terminate("lost_cancel").await;
}

/// The pool gives a connection up 2 s after its timeout. The server then still runs the statement, until it notices
/// that its client has gone: with `connection_check` of 1 s, before the next one is given up. So there are never more
/// than two sessions for each slot.
#[tokio::test]
async fn in_a_storm_of_timeouts_without_cancels_the_number_of_sessions_is_bounded() {
    const SIZE: usize = 3;
    let (proxy, builder) = without_cancels("timeout_storm").await;
    let timeouts = ServerTimeouts::new().connection_check(1_000 * MILLISECOND);
    let pool = builder.max_size(SIZE).acquire_timeout(LONG).server_timeouts(timeouts).build().unwrap();
    pool.breaker().disable("the test causes these timeouts on purpose");
    pool.warm_up(SIZE, LONG).await.unwrap();
    let (is_over, given_up) = (AtomicBool::new(false), AtomicU64::new(0));
    let caller = async || {
        while !is_over.load(SeqCst) {
            let late = pool.call().timeout(100 * MILLISECOND).batch_execute(SLEEP).await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
            given_up.fetch_add(1, SeqCst);
        }
    };
    let watching = async {
        let (mut most, begun) = (0, Instant::now());
        while given_up.load(SeqCst) < 3 * SIZE as u64 {
            most = most.max(Server::shared().await.connection_count("timeout_storm").await);
            assert!(begun.elapsed() < 3 * LONG, "{}", pool.status());
            sleep(20 * MILLISECOND).await;
        }
        is_over.store(true, SeqCst);
        most
    };
    let (most, _) = tokio::join!(watching, join_all((0..SIZE).map(|_| caller())));
    assert!(proxy.fired() > 0);
    assert!(most > SIZE as u64 && most <= 2 * SIZE as u64, "{most} sessions");
    eventually("only those of the pool are left", LONG, async || {
        let status = pool.status();
        let own = (status.idle + status.in_use + status.settling) as u64;
        status.settling + status.closing == 0 && Server::shared().await.connection_count("timeout_storm").await == own
    })
    .await;
}
