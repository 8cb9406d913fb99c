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
use crate::support::{proxy::Proxy, server::Server};

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
