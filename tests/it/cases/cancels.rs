//! Cancels that race the end of the statement for which they are meant.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use failfast::{Effect, Error, Pool};
use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::LONG;
use super::deadpool;
use crate::support::{eventually, proxy::Proxy, server::Server};

const CANCELS: u64 = 1_000;
const CONNECTIONS: usize = 8;
const SLEEP: &str = "SELECT pg_sleep($1)";
/// The deadline of each statement.
const LIMIT: Duration = Duration::from_millis(3);

/// Returns how long a statement takes, in seconds, if it should end at about the moment at which its cancel arrives.
fn about(milliseconds: Range<f64>) -> f64 {
    (milliseconds.start + fastrand::f64() * (milliseconds.end - milliseconds.start)) / 1e3
}

#[tokio::test(flavor = "multi_thread")]
async fn case_08_no_cancel_hits_another_statement() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let builder = Pool::builder(config).name("case_08").max_size(CONNECTIONS).acquire_timeout(LONG).query_timeout(LONG);
    let pool = builder.build().unwrap();
    pool.warm_up(CONNECTIONS, LONG).await.unwrap();
    pool.breaker().disable("the test causes these timeouts on purpose");
    let (dials, lost) = (proxy.accepted(), AtomicU64::new(0));
    let cancels = || proxy.accepted() - dials;

    let callers = (0..CONNECTIONS).map(|caller| {
        let (pool, cancels, lost) = (&pool, &cancels, &lost);
        async move {
            let mut n = 0;
            while cancels() < CANCELS {
                n += 1;
                // Half of the callers time out and give the connection back. The other half drop the future and keep
                // the connection.
                let next = if caller % 2 == 0 {
                    let late = pool.call().timeout(LIMIT).query(SLEEP, &[&about(4.0..11.0)]).await;
                    assert!(matches!(late, Ok(_) | Err(Error::QueryTimeout { .. })), "{late:?}");
                    let next = pool.query_one("SELECT $1::int", &[&n]).await;
                    Ok(next.expect("the pool serves the call, even if a connection was lost"))
                } else {
                    let client = pool.get().await.unwrap();
                    let _ = timeout(LIMIT, client.query(SLEEP, &[&about(4.0..11.0)])).await;
                    client.query_one("SELECT $1::int", &[&n]).await
                };
                match next {
                    Ok(row) => assert_eq!(row.get::<_, i32>(0), n),
                    // A cancel that hangs for a second costs the connection. This may happen on a busy machine.
                    Err(next) => {
                        assert!(next.sqlstate().is_none() && next.effect() == Effect::NotApplied, "{next:?}");
                        lost.fetch_add(1, Relaxed);
                    }
                }
            }
        }
    });
    join_all(callers).await;

    assert!(20 * lost.load(Relaxed) <= cancels(), "{lost:?} connections lost by {} cancels", cancels());
    let client = deadpool::client(server.config(), "case_08").await;
    let mut hit = 0;
    for _ in 0..100 {
        let _ = timeout(LIMIT, client.query(SLEEP, &[&about(3.0..5.0)])).await;
        let _ = client.cancel_token().cancel_query(NoTls).await;
        let next = client.query_one("SELECT 1", &[]).await;
        hit += u32::from(next.is_err_and(|error| error.code() == Some(&SqlState::QUERY_CANCELED)));
    }
    let cancels = cancels();
    println!(
        "case 08: failfast: {cancels} cancels hit 0 statements; deadpool, with the driver's own cancel: 100 hit {hit}"
    );
}

/// A pool with one connection. A call of `get` has a short timeout.
async fn with_one(name: &str) -> (&'static Server, Proxy, Pool) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name(name).max_size(1).acquire_timeout(LONG);
    (server, proxy, builder.build().unwrap())
}

/// A statement through the deref, so long that many cancels could hit it.
async fn through_the_deref(client: &failfast::Client) -> Result<i32, tokio_postgres::Error> {
    let statement = (**client).prepare("SELECT 7 FROM pg_sleep(1)").await?;
    Ok((**client).query_one(&statement, &[]).await?.get(0))
}

const SHORT: Duration = Duration::from_millis(50);

/// The abandoned statement ends by itself, because nothing else is sure to hit only it.
#[tokio::test]
async fn a_statement_through_the_deref_right_after_a_timeout_is_not_cancelled() {
    let (_, proxy, pool) = with_one("deref_at_once").await;
    pool.warm_up(1, LONG).await.unwrap();
    let client = pool.call().timeout(SHORT).get().await.unwrap();
    let dials = proxy.accepted();
    let late = client.batch_execute("SELECT pg_sleep(2)").await.unwrap_err();
    assert!(matches!(late, Error::QueryTimeout { .. }), "{late}");
    assert_eq!(through_the_deref(&client).await.unwrap(), 7);
    assert_eq!(proxy.accepted(), dials, "a cancel was sent");
    drop(client);
    assert_eq!(pool.query_one("SELECT 9", &[]).await.unwrap().get::<_, i32>(0), 9);
}

#[tokio::test]
async fn a_statement_through_the_deref_after_the_first_cancel_is_not_cancelled() {
    const STUBBORN: &str = "DO $$ BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN
        PERFORM pg_advisory_xact_lock(4711); PERFORM pg_sleep(1); END $$";
    let (server, _proxy, pool) = with_one("deref_later").await;
    let client = pool.call().timeout(SHORT).get().await.unwrap();
    let late = client.batch_execute(STUBBORN).await.unwrap_err();
    assert!(matches!(late, Error::QueryTimeout { .. }), "{late}");
    let locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711";
    eventually("the first cancel", LONG, async || server.scalar(locked).await == "1").await;
    assert_eq!(through_the_deref(&client).await.unwrap(), 7);
    drop(client);
    assert_eq!(pool.query_one("SELECT 9", &[]).await.unwrap().get::<_, i32>(0), 9);
}
