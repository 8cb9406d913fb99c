//! Each further attempt of a call has the same limits as the first.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use failfast::{Error, Pool, RetryConfig};
use futures_util::TryStreamExt;

use super::{LONG, MILLISECOND, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

/// A statement may take 800 ms. Waiting and one statement together may take one second.
async fn pool(name: &str) -> Pool {
    let builder = shared(name).await.max_size(1).retry(RetryConfig::default().initial_backoff(MILLISECOND));
    let pool = builder.acquire_timeout(200 * MILLISECOND).query_timeout(800 * MILLISECOND).build().unwrap();
    pool.warm_up(1, LONG).await.unwrap();
    pool
}

/// A statement that fails on its first run with a conflict between transactions.
fn conflict(run: u32) -> String {
    let raise = if run == 1 { "RAISE serialization_failure;" } else { "" };
    format!("DO $$ BEGIN {raise} END $$")
}

#[tokio::test]
async fn a_stream_after_a_refused_dial_goes_on_while_its_rows_are_in_time() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    proxy.refuse().await;
    let retries = RetryConfig::default().initial_backoff(20 * MILLISECOND).backoff_multiplier(1.0).max_attempts(100);
    let builder = Pool::builder(server.config_at(proxy.addr())).name("refused_stream").retry(retries.budget(1_000));
    let pool = builder.acquire_timeout(200 * MILLISECOND).query_timeout(800 * MILLISECOND).build().unwrap();
    let again = async {
        eventually("refused", LONG, async || pool.status().last_connect_error.is_some()).await;
        proxy.accept().await;
    };
    // The rows are long, so the server sends each of them at once.
    let sql = "SELECT pg_sleep(0.3), repeat('x', 20000) FROM generate_series(1, 6)";
    let rows = async {
        let rows = pool.query_raw(sql, Vec::<i32>::new()).await?;
        pin!(rows).try_collect::<Vec<_>>().await
    };
    let (rows, ()) = tokio::join!(rows, again);
    assert_eq!(rows.unwrap().len(), 6, "the rows took 1.8 s in all");
}

#[tokio::test]
async fn a_transaction_longer_than_the_query_timeout_runs_again_after_a_conflict() {
    let pool = pool("long_conflict").await;
    let runs = AtomicU32::new(0);
    let work = pool.transaction(async |tx| {
        let run = runs.fetch_add(1, Relaxed) + 1;
        for _ in 0..4 {
            tx.batch_execute("SELECT pg_sleep(0.4)").await?;
        }
        tx.batch_execute(&conflict(run)).await
    });
    work.await.unwrap();
    assert_eq!(runs.load(Relaxed), 2);
}

#[tokio::test]
async fn the_commit_of_a_second_run_has_its_full_time() {
    let server = Server::shared().await;
    server
        .execute(
            "DROP TABLE IF EXISTS slow_commit; CREATE TABLE slow_commit (id int);
            CREATE OR REPLACE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow_commit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit()",
        )
        .await;
    let pool = pool("slow_commit").await;
    let runs = AtomicU32::new(0);
    let work = pool.transaction(async |tx| {
        let run = runs.fetch_add(1, Relaxed) + 1;
        tx.batch_execute("SELECT pg_sleep(0.6)").await?;
        tx.batch_execute(&conflict(run)).await?;
        tx.execute("INSERT INTO slow_commit VALUES (1)", &[]).await
    });
    assert_eq!(work.await.unwrap(), 1, "both runs took 1.8 s in all");
    assert_eq!((runs.load(Relaxed), server.scalar("SELECT count(*) FROM slow_commit").await.as_str()), (2, "1"));
}

/// A statement and a copy. Each is in time, and both together take longer than waiting and one statement may.
#[tokio::test]
async fn a_second_run_has_its_full_time() {
    Server::shared().await.execute("DROP TABLE IF EXISTS copied_again; CREATE TABLE copied_again (id int)").await;
    let pool = pool("copied_again").await;
    let runs = AtomicU32::new(0);
    let work = pool.call().idempotent().run(async |client| {
        let run = runs.fetch_add(1, Relaxed) + 1;
        client.batch_execute("SELECT pg_sleep(0.6)").await?;
        client.batch_execute(&conflict(run)).await?;
        let mut copy = client.copy_in("COPY copied_again FROM STDIN").await?;
        for _ in 0..2 {
            tokio::time::sleep(400 * MILLISECOND).await;
            copy.send(&b"1\n"[..]).await?;
        }
        copy.finish().await
    });
    assert_eq!(work.await.unwrap(), 2, "both runs took 2 s in all");
}

/// The work took 600 ms, although none of its statements took half as long.
#[tokio::test]
async fn a_run_that_cannot_end_by_its_deadline_is_not_begun_again() {
    let pool = pool("no_time").await;
    let runs = AtomicU32::new(0);
    let work = pool.call().deadline(1_000 * MILLISECOND).transaction(async |tx| {
        runs.fetch_add(1, Relaxed);
        for _ in 0..3 {
            tx.batch_execute("SELECT pg_sleep(0.2)").await?;
        }
        tx.batch_execute(&conflict(1)).await
    });
    let error: Error = work.await.unwrap_err();
    assert_eq!((error.sqlstate().map(|state| state.code()), runs.load(Relaxed)), (Some("40001"), 1), "{error}");
}
