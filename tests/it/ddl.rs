//! Changes of the schema give way to those that queue behind them, and are done in the end.

mod traps;
mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use failfast::{Effect, Error, ErrorKind, GiveWayReason, Pool, Shedding};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::Client;

use crate::pool::{LONG, shared};
use crate::support::{eventually, server::Server};

const MILLISECOND: Duration = Duration::from_millis(1);
/// How long a session may wait behind a change that gives way after half a second.
const SOON: Duration = Duration::from_millis(1_500);

/// Makes a table with one row, and a pool of this size.
async fn table(name: &str, size: usize) -> Pool {
    let table = format!("CREATE TABLE {name} (id int PRIMARY KEY, n int); INSERT INTO {name} VALUES (1, 0)");
    Server::shared().await.execute(&table).await;
    shared(name).await.max_size(size).build().unwrap()
}

/// A session that has begun a transaction with this statement, and holds its locks until it is dropped.
async fn hold(server: &Server, sql: &str) -> Client {
    let session = server.admin().await;
    session.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    session
}

/// Waits until this many sessions wait for a lock on the table.
async fn queued(server: &Server, table: &str, sessions: u32) {
    let sql = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    eventually("sessions wait", LONG, async || server.scalar(&sql).await == sessions.to_string()).await;
}

/// Runs a statement in the background, once the change waits for or has its lock. Returns how long it took.
fn behind(server: &'static Server, sql: &str) -> tokio::task::JoinHandle<Duration> {
    let sql = sql.to_owned();
    tokio::spawn(async move {
        let begun = Instant::now();
        server.execute(&sql).await;
        begun.elapsed()
    })
}

async fn has_column(server: &Server, table: &str, column: &str) -> bool {
    let sql =
        format!("SELECT count(*) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = '{column}'");
    server.scalar(&sql).await == "1"
}

fn gave_way(error: &Error) -> &GiveWayReason {
    assert_eq!((error.effect(), error.kind()), (Effect::NotApplied, ErrorKind::GaveWay), "{error}");
    match error {
        Error::GaveWay { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// Calls at a constant rate until `until`, whatever they take. Returns how long each took.
async fn calls(pool: &Pool, sql: &'static str, per_second: u32, until: Instant) -> Vec<Duration> {
    let (mut due, mut calls) = (Instant::now(), Vec::new());
    while due < until {
        sleep_until(due).await;
        let pool = pool.clone();
        calls.push(tokio::spawn(async move {
            pool.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error}"));
            due.elapsed()
        }));
        due += Duration::from_secs(1) / per_second;
    }
    join_all(calls).await.into_iter().map(Result::unwrap).collect()
}

/// A report has the table for this long, 200 calls a second read it, and a change wants to have it for itself.
async fn beside_a_report(
    name: &'static str,
    sql: &'static str,
    report: Duration,
    backoff: Option<(Duration, Duration)>,
) {
    let server = Server::shared().await;
    let pool = table(name, 1).await;
    let readers = shared(name).await.max_size(40).acquire_timeout(LONG).query_timeout(LONG);
    let readers = readers.shedding(Shedding::QueueOnly).max_waiting(10_000).build().unwrap();
    readers.warm_up(40, LONG).await.unwrap();

    let reporter = server.admin().await;
    let begun = Instant::now();
    let reading = tokio::spawn(async move {
        let seconds = report.as_secs_f64();
        reporter.batch_execute(&format!("SELECT count(*), pg_sleep({seconds}) FROM {name}")).await.unwrap();
        begun.elapsed()
    });
    sleep(100 * MILLISECOND).await;
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let changing = tokio::spawn(async move {
        let mut ddl = pool.ddl();
        if let Some((first, longest)) = backoff {
            // Only the watch of its queue keeps others from waiting longer.
            ddl = ddl.lock_timeout(LONG).attempts(100).backoff(first, longest);
        }
        let change = format!("ALTER TABLE {name} ADD COLUMN note text");
        ddl.transaction(async |tx| {
            counted.fetch_add(1, SeqCst);
            tx.batch_execute(&change).await
        })
        .await
        .unwrap();
        begun.elapsed()
    });
    let changed = async {
        let took = changing.await.unwrap();
        (took, Instant::now())
    };
    let calling = calls(&readers, sql, 200, begun + report + report / 2);
    let ((done, _), mut took) = tokio::join!(changed, calling);
    let reported = reading.await.unwrap();
    took.sort_unstable();
    let (count, slowest) = (took.len(), took[took.len() - 1]);
    let percentile = |share: f64| took[(count as f64 * share) as usize];
    println!(
        "report {reported:?}, change done after {done:?} in {} attempts; {count} calls: p50 {:?}, p95 {:?}, p99 {:?}, \
         slowest {slowest:?}",
        attempts.load(SeqCst),
        percentile(0.5),
        percentile(0.95),
        percentile(0.99),
    );
    assert!(done > reported, "the change did not wait for the report");
    assert!(attempts.load(SeqCst) > 1, "the change never gave way");
    assert!(has_column(server, name, "note").await);
    assert!(percentile(0.99) < Duration::from_secs(1), "p99 {:?}", percentile(0.99));
    assert!(slowest < SOON, "slowest {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_stay_fast_beside_a_report_and_a_change() {
    let sql = "SELECT count(*) FROM ddl_series";
    beside_a_report("ddl_series", sql, 4_000 * MILLISECOND, Some((300 * MILLISECOND, 600 * MILLISECOND))).await;
}

/// The same with a report of a minute, and the defaults.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes"]
async fn calls_stay_fast_beside_a_report_of_a_minute() {
    beside_a_report("ddl_minute", "SELECT count(*) FROM ddl_minute", Duration::from_secs(60), None).await;
}

#[tokio::test]
async fn a_change_gives_way_while_it_waits() {
    let (server, pool) = (Server::shared().await, table("ddl_waits", 1).await);
    let report = hold(server, "SELECT * FROM ddl_waits").await;
    let change = pool.ddl().lock_timeout(LONG).attempts(1);
    let change = change.batch_execute("ALTER TABLE ddl_waits ADD COLUMN note text");
    let queue = async {
        queued(server, "ddl_waits", 1).await;
        behind(server, "SELECT * FROM ddl_waits").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    let error = changed.unwrap_err();
    assert!(waited < SOON && waited > 400 * MILLISECOND, "{waited:?}");
    assert!(
        matches!(gave_way(&error), GiveWayReason::Waiting { sessions: 1, longest, .. } if *longest < SOON),
        "{error}"
    );
    assert_eq!((error.http_status(), error.is_unavailable()), (503, false));
    assert!(error.to_string().contains(": 1 session waited for its locks, the first for "), "{error}");
    // Nobody waits any more: it waits for its lock as long as it may.
    let change = pool.ddl().lock_timeout(LONG).batch_execute("ALTER TABLE ddl_waits ADD COLUMN note text");
    let release = async {
        queued(server, "ddl_waits", 1).await;
        sleep(SOON).await;
        drop(report);
    };
    let (changed, ()) = tokio::join!(change, release);
    changed.unwrap();
    assert!(has_column(server, "ddl_waits", "note").await);
}

#[tokio::test]
async fn a_change_gives_way_while_it_works_and_between_its_statements() {
    let (server, pool) = (Server::shared().await, table("ddl_works", 1).await);
    for on_server in [true, false] {
        let locked = tokio::sync::Notify::new();
        let change = pool.ddl().attempts(1).transaction(async |tx| {
            tx.batch_execute("ALTER TABLE ddl_works ADD COLUMN note text").await?;
            locked.notify_one();
            if on_server {
                return tx.batch_execute("SELECT pg_sleep(4)").await;
            }
            sleep(LONG).await;
            Ok(())
        });
        let queue = async {
            locked.notified().await;
            behind(server, "SELECT * FROM ddl_works").await.unwrap()
        };
        let (changed, waited) = tokio::join!(change, queue);
        assert!(waited < SOON, "{on_server}: {waited:?}");
        assert!(matches!(gave_way(&changed.unwrap_err()), GiveWayReason::Waiting { .. }), "{on_server}");
        assert!(!has_column(server, "ddl_works", "note").await);
    }
    let still_there = pool.query_one("SELECT count(*) FROM ddl_works", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(still_there, 1, "the connection of the pool is clean");
}

#[tokio::test]
async fn a_change_without_anybody_in_the_way_is_done_at_once_as_a_whole() {
    let (server, pool) = (Server::shared().await, table("ddl_free", 2).await);
    let runs = AtomicU32::new(0);
    let value = pool.call().name("migration").ddl().transaction(async |tx| {
        runs.fetch_add(1, SeqCst);
        tx.batch_execute("ALTER TABLE ddl_free ADD COLUMN note text; UPDATE ddl_free SET note = 'new'").await?;
        Ok::<_, Error>(tx.query_one("SELECT note FROM ddl_free", &[]).await?.get::<_, String>(0))
    });
    assert_eq!(value.await.unwrap(), "new");
    assert_eq!(runs.load(SeqCst), 1);
    assert_eq!(server.scalar("SELECT note FROM ddl_free").await, "new");
    let other = pool.clone();
    let spawned = tokio::spawn(async move { other.ddl().batch_execute("ALTER TABLE ddl_free DROP COLUMN n").await });
    spawned.await.unwrap().unwrap();
    assert!(!has_column(server, "ddl_free", "n").await);
    eventually("it is given back", LONG, async || pool.status().in_use == 0).await;
    // The limits have ended with the transaction, and no connection is left beside the pool.
    let lock_timeout = pool.query_one("SELECT current_setting('lock_timeout')", &[]).await.unwrap();
    assert_eq!(lock_timeout.get::<_, &str>(0), "0");
    let mine =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%ddl_free%' OR query LIKE '%blocking_pids%ddl%'";
    eventually("the watch has ended", LONG, async || server.scalar(mine).await.parse::<u32>().unwrap() <= 3).await;
}
