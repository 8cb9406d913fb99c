//! However a call ends, its charge is settled: a place among the calls at once is free again, and what was not used is
//! given back.

use failfast::{ErrorKind, Transaction};
use futures_util::{FutureExt, StreamExt};

use super::*;

/// A pool whose report may be under way once.
async fn once(name: &str) -> PoolBuilder {
    with_rate(name, Rate::new().concurrency(1)).await
}

async fn is_free(pool: &Pool, after: &str) {
    report(pool).get().await.map(drop).unwrap_or_else(|error| panic!("after {after}: {error:?}"));
}

#[tokio::test]
async fn a_lease_ends_in_many_ways() {
    let pool = once("rates_endings").await.max_size(4).build().unwrap();
    let taken = async || {
        let client = report(&pool).get().await.unwrap();
        is_refused(report(&pool)).await;
        client
    };
    drop(taken().await);
    is_free(&pool, "a drop").await;
    taken().await.discard();
    is_free(&pool, "discard").await;
    let detached = taken().await.detach();
    is_free(&pool, "detach").await;
    drop(detached);

    let client = taken().await;
    let panicked = tokio::spawn(async move {
        let _client = client;
        std::panic::resume_unwind(Box::new("out"));
    });
    panicked.await.unwrap_err();
    is_free(&pool, "a panic").await;

    let client = taken().await;
    let transaction = client.transaction().await.unwrap();
    is_refused(report(&pool)).await;
    transaction.commit().await.unwrap();
    is_free(&pool, "a transaction").await;

    let work = async |tx: Transaction| {
        tx.execute("SELECT 1", &[]).await?;
        is_refused(report(&pool)).await;
        Err::<(), _>(Error::Closed)
    };
    report(&pool).transaction_once(work).await.unwrap_err();
    is_free(&pool, "a failed transaction").await;

    let mut rows = Box::pin(report(&pool).query_raw("SELECT generate_series(1, 100)", [0_i32; 0]).await.unwrap());
    assert!(rows.next().await.is_some());
    is_refused(report(&pool)).await;
    drop(rows);
    is_free(&pool, "a stream").await;

    let mut late = Box::pin(report(&pool).query("SELECT pg_sleep(20)", &[]));
    assert!((&mut late).now_or_never().is_none());
    eventually("it runs", LONG, async || {
        let _ = timeout(MILLISECOND, &mut late).await;
        pool.holders().iter().any(|holder| holder.running.is_some())
    })
    .await;
    drop(late);
    is_free(&pool, "a cancelled statement").await;
}

#[tokio::test]
async fn a_call_that_gets_no_connection_gives_all_of_it_back() {
    let rate = Rate::new().concurrency(1).calls(0.001).connection_seconds(0.001);
    let pool = with_rate("rates_back", rate).await.max_size(1).max_waiting(1).build().unwrap();
    let client = pool.get().await.unwrap();
    for _ in 0..3 {
        let late = report(&pool).deadline(20 * MILLISECOND).get().await.unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::AcquireTimeout | ErrorKind::Shed), "{late:?}");
        assert_eq!(rate_limited(&late), None, "{late:?}");

        let mut waits = Box::pin(report(&pool).deadline(LONG).get());
        assert!((&mut waits).now_or_never().is_none(), "it waits");
        is_refused(report(&pool)).await;
        drop(waits);

        let mut other = Box::pin(pool.get_timeout(LONG));
        assert!((&mut other).now_or_never().is_none(), "it waits");
        let full = report(&pool).get().await.unwrap_err();
        assert!(matches!(full, Error::Shed { reason: ShedReason::QueueFull, .. }), "{full:?}");
        drop(other);
    }
    drop(client);
    is_free(&pool, "calls that got no connection").await;
    is_refused(report(&pool)).await;
}
