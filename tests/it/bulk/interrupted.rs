//! Bulk work that is interrupted: a future dropped at any await, a deadline or a lost server in the middle. What was
//! applied is all or nothing, the next caller gets a clean connection, and the metrics count each operation once.

use std::time::Duration;

use failfast::{Effect, Error, ErrorKind, Pool};
use tokio_postgres::types::{ToSql, Type};

use super::{WAYS, Way, count, polled, with_table};
use crate::pool::LONG;
use crate::support::eventually;
use crate::support::server::Server;

type Value = Box<dyn ToSql + Sync + Send>;

const TYPES: [Type; 2] = [Type::INT4, Type::TEXT];

#[derive(Debug, Clone, Copy)]
enum Work {
    CopyInRows,
    ExecuteMany,
}

const WORKS: [Work; 2] = [Work::CopyInRows, Work::ExecuteMany];

impl Work {
    async fn run(self, way: Way, pool: &Pool, table: &str, rows: std::ops::Range<i32>) -> Result<u64, Error> {
        let rows = rows.map(|n| [Box::new(n) as Value, Box::new("some text that takes space")]);
        match self {
            Self::CopyInRows => {
                let sql = format!("COPY {table} FROM STDIN (FORMAT binary)");
                way.copy_in_rows(pool, &sql, &TYPES, rows).await
            }
            Self::ExecuteMany => way.execute_many(pool, &format!("INSERT INTO {table} VALUES ($1, $2)"), rows).await,
        }
    }
}

#[tokio::test]
async fn a_future_dropped_at_any_await_leaves_all_or_nothing() {
    const ROWS: i32 = 4_000;
    for work in WORKS {
        for way in WAYS {
            let table = format!("dropped_{work:?}_{way:?}").to_lowercase();
            let pool = with_table(&table).await;
            let mut polls = 0;
            let ended = loop {
                let ended = polled(polls, work.run(way, &pool, &table, 0..ROWS)).await;
                let left = count(&pool, &table).await;
                assert!(left == 0 || left == i64::from(ROWS), "{work:?} {way:?}: {left} rows after {polls} polls");
                if ended.is_some() {
                    break ended;
                }
                if left > 0 {
                    pool.execute(&format!("TRUNCATE {table}"), &[]).await.unwrap();
                }
                polls = polls + 1 + polls / 8;
            };
            assert_eq!(ended.unwrap().unwrap(), 4_000, "{work:?} {way:?} after {polls} polls");
            println!("{work:?} {way:?}: {polls} polls");
            assert_eq!(pool.breaker().snapshot().counts.failures, 0);
        }
    }
}

#[tokio::test]
async fn a_dropped_future_leaves_a_guard_without_a_transaction() {
    let pool = with_table("dropped_on_guard").await;
    let client = pool.get().await.unwrap();
    let sql = "INSERT INTO dropped_on_guard VALUES ($1, $2)";
    for polls in 1..40 {
        let rows = (0..3_000).map(|n| [Box::new(n) as Value, Box::new("x")]);
        if polled(polls, client.execute_many(sql, rows)).await.is_some() {
            client.execute("TRUNCATE dropped_on_guard", &[]).await.unwrap();
        }
        let row = client.query_one("SELECT count(*) FROM dropped_on_guard", &[]).await.unwrap();
        let left = row.get::<_, i64>(0);
        assert!(left == 0 || left == 3_000, "{left} rows after {polls} polls");
        let outside = client.batch_execute("SAVEPOINT only_in_a_transaction").await.unwrap_err();
        assert_eq!(outside.sqlstate().unwrap().code(), "25P01", "{outside} after {polls} polls");
        client.execute("TRUNCATE dropped_on_guard", &[]).await.unwrap();
    }
}

/// So many rows that they take much longer than the deadline.
#[tokio::test]
async fn a_deadline_in_the_middle_leaves_nothing() {
    for work in WORKS {
        let table = format!("late_{work:?}").to_lowercase();
        let pool = with_table(&table).await;
        let rows = (0..i32::MAX).map(|n| [Box::new(n) as Value, Box::new("some text")]);
        let call = pool.call().deadline(Duration::from_millis(300));
        let late = match work {
            Work::CopyInRows => {
                let sql = format!("COPY {table} FROM STDIN (FORMAT binary)");
                call.copy_in_rows(&sql, &TYPES, rows).await
            }
            Work::ExecuteMany => call.execute_many(&format!("INSERT INTO {table} VALUES ($1, $2)"), rows).await,
        };
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{work:?}: {late}");
        assert!(!matches!(work, Work::ExecuteMany) || late.effect() == Effect::NotApplied, "{work:?}: {late}");
        let served = async || pool.query_one("SELECT 1", &[]).await.is_ok();
        eventually("the pool serves", LONG, served).await;
        assert_eq!(count(&pool, &table).await, 0, "{work:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_has_applied_nothing() {
    let mut server = Server::own(&[]).await;
    for work in WORKS {
        for way in WAYS {
            let table = format!("killed_{work:?}_{way:?}").to_lowercase();
            let pool = Pool::builder(server.config()).name("killed").max_size(1).build().unwrap();
            pool.batch_execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, name text)")).await.unwrap();
            let (of_the_task, its_table) = (pool.clone(), table.clone());
            let done = tokio::spawn(async move { work.run(way, &of_the_task, &its_table, 0..i32::MAX).await });
            let pages = format!("SELECT pg_relation_size('{table}') > 100000");
            eventually("rows arrive", LONG, async || server.scalar(&pages).await == "t").await;
            let process = "SELECT pid FROM pg_stat_activity WHERE application_name = 'killed'";
            let process = server.scalar(process).await.parse().unwrap();
            server.kill_backend(process).await;
            let lost = done.await.unwrap().unwrap_err();
            assert_eq!(lost.effect(), Effect::NotApplied, "{work:?} {way:?}: {lost}");
            assert!(!matches!(lost, Error::QueryTimeout { .. }), "{work:?} {way:?}: {lost}");
            server.accepting().await;
            eventually("the pool serves", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
            assert_eq!(count(&pool, &table).await, 0, "{work:?} {way:?}");
        }
    }
}

#[cfg(feature = "prometheus")]
#[tokio::test]
async fn each_operation_is_counted_once() {
    use crate::metrics::recorded;

    const OPERATIONS: &str = "db_client_operation_duration_seconds_count";
    let (builder, scraper) = recorded(crate::pool::shared("bulk_counted").await.max_size(1));
    let pool = builder.build().unwrap();
    pool.batch_execute("CREATE TABLE bulk_counted (id int PRIMARY KEY, name text)").await.unwrap();
    // Operations that have ended, and those that failed.
    let operations = || {
        let scrape = scraper.scrape();
        let of_all = scrape.series.iter().filter(|series| series.name == OPERATIONS);
        let (failed, done): (Vec<_>, Vec<_>) = of_all.partition(|series| series.labels.contains_key("error_type"));
        let sum = |series: Vec<&crate::metrics::Series>| series.iter().map(|series| series.value as u64).sum::<u64>();
        (sum(done), sum(failed))
    };
    let mut expected = operations();
    let mut failures;
    for work in WORKS {
        for way in WAYS {
            failures = pool.breaker().snapshot().counts.failures;
            work.run(way, &pool, "bulk_counted", 0..1_000).await.unwrap();
            expected.0 += 1;
            assert_eq!(operations(), expected, "{work:?} {way:?}");
            work.run(way, &pool, "bulk_counted", 0..1_000).await.unwrap_err();
            expected.1 += 1;
            assert_eq!(operations(), expected, "{work:?} {way:?}, twice the same key");
            pool.execute("TRUNCATE bulk_counted", &[]).await.unwrap();
            expected.0 += 1;
            assert_eq!(pool.breaker().snapshot().counts.failures, failures, "{work:?} {way:?}");

            // Its session ends.
            let sleeps = "CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NEW; END';
                CREATE TRIGGER sleeps BEFORE INSERT ON bulk_counted FOR EACH ROW EXECUTE FUNCTION sleeps()";
            Server::shared().await.execute(sleeps).await;
            work.run(way, &pool, "bulk_counted", 0..10).await.unwrap_err();
            expected.1 += 1;
            assert_eq!(operations(), expected, "{work:?} {way:?}, ended");
            Server::shared().await.execute("DROP TRIGGER sleeps ON bulk_counted; DROP FUNCTION sleeps").await;
            let served = async || pool.get().await.is_ok();
            eventually("the pool is connected", LONG, served).await;
        }
    }

    // A copy that is dropped is not counted, as no call is whose future is dropped.
    let mut copy = pool.copy_in("COPY bulk_counted FROM STDIN").await.unwrap();
    copy.send(&b"1\tone\n"[..]).await.unwrap();
    drop(copy);
    assert_eq!(count(&pool, "bulk_counted").await, 0);
    expected.0 += 1;
    assert_eq!(operations(), expected);
}

/// A connection that is lost counts for the circuit, whoever uses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_counts_once_for_the_circuit() {
    use crate::support::proxy::{Close, Proxy, Way as To};
    for work in WORKS {
        for way in WAYS {
            let table = format!("lost_{work:?}_{way:?}").to_lowercase();
            let server = Server::shared().await;
            let proxy = Proxy::start(server.addr()).await;
            let builder = Pool::builder(server.config_at(proxy.addr())).name(table.as_str()).max_size(1);
            let pool = builder.retry(failfast::RetryConfig::off()).build().unwrap();
            pool.batch_execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, name text)")).await.unwrap();
            let (of_the_task, its_table) = (pool.clone(), table.clone());
            let before = proxy.bytes(To::ToServer);
            let done = tokio::spawn(async move { work.run(way, &of_the_task, &its_table, 0..i32::MAX).await });
            eventually("data flow", LONG, async || proxy.bytes(To::ToServer) > before + 100_000).await;
            proxy.cut(Close::Reset);
            let lost = done.await.unwrap().unwrap_err();
            assert!(lost.to_string().contains("connection lost"), "{work:?} {way:?}: {lost}");
            assert_eq!(lost.effect(), Effect::NotApplied, "{work:?} {way:?}: {lost}");
            assert_eq!(pool.breaker().snapshot().counts.failures, 1, "{work:?} {way:?}");
            eventually("the session has ended", LONG, async || server.connection_count(&table).await == 0).await;
            assert_eq!(server.scalar(&format!("SELECT count(*) FROM {table}")).await, "0", "{work:?} {way:?}");
        }
    }
}
