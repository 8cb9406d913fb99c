//! The metrics as an exporter renders them. The tests compare their names and values with what the pool did.

mod scrape;
mod telling;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use failfast::metrics::{Kind, METRICS};
use failfast::{Error, Lane, Pool, RetryConfig};
use metrics::set_default_local_recorder;
use tokio::task::JoinSet;

pub(crate) use self::scrape::{Scraper, Series, recorded};
use crate::pool::{LONG, shared};
use crate::support::server::Server;
use crate::support::{eventually, free_port};

const MILLISECOND: Duration = Duration::from_millis(1);
const OPERATIONS: &str = "db_client_operation_duration_seconds_count";

async fn pool(name: &str) -> (Pool, Scraper) {
    let (builder, scraper) = recorded(shared(name).await.retry(RetryConfig::default().initial_backoff(MILLISECOND)));
    (builder.max_size(2).build().unwrap(), scraper)
}

/// Waits until the metric has this value. The pool sets its gauges at intervals, so this may take one interval.
async fn comes_to(scraper: &Scraper, name: &str, labels: &[(&str, &str)], value: f64) {
    let what = format!("{name} {labels:?} is {value}");
    eventually(&what, LONG, async || scraper.value(name, labels) == Some(value)).await;
}

#[tokio::test]
async fn each_lease_counts_once_with_its_wait_and_its_duration() {
    let (pool, scraper) = pool("metrics_leases").await;
    for _ in 0..5 {
        drop(pool.get().await.unwrap());
    }
    let both = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    comes_to(&scraper, "db_client_connection_count", &[("db_client_connection_state", "used")], 2.0).await;
    comes_to(&scraper, "failfast_utilization_ratio", &[], 1.0).await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.unwrap().discard() }
    });
    comes_to(&scraper, "db_client_connection_pending_requests", &[], 1.0).await;
    drop(both);
    waiting.await.unwrap();
    comes_to(&scraper, "db_client_connection_wait_time_seconds_count", &[], 8.0).await;
    assert_eq!(scraper.value("db_client_connection_use_time_seconds_count", &[]), Some(8.0));
    assert_eq!(scraper.value("db_client_connection_create_time_seconds_count", &[]), Some(2.0));
    let waited = scraper.value("db_client_connection_wait_time_seconds_sum", &[]).unwrap();
    let used = scraper.value("db_client_connection_use_time_seconds_sum", &[]).unwrap();
    assert!(waited > 0.1 && used > 0.2, "the two leases lasted for about one interval each: {waited}, {used}");
    let at_once = scraper.value("db_client_connection_wait_time_seconds_bucket", &[("le", "0.0001")]).unwrap();
    assert!(at_once >= 4.0, "a call with an idle connection waited: {at_once}");
    assert_eq!(scraper.value(OPERATIONS, &[]), None, "a lease counted as an operation");
}

#[tokio::test]
async fn operations_are_counted_by_name_and_outcome() {
    let (pool, scraper) = pool("metrics_operations").await;
    let named = |name| [("failfast_operation", name)];
    pool.call().name("whole").query_one("SELECT 1", &[]).await.unwrap();
    pool.call()
        .name("several")
        .transaction(|tx| async move {
            tx.execute("SELECT 1", &[]).await?;
            tx.execute("SELECT 2", &[]).await.map(drop)
        })
        .await
        .unwrap();
    let once = pool.call().name("once").transaction_once(|tx| async move { tx.execute("SELECT 1", &[]).await });
    once.await.unwrap();
    for name in ["whole", "several", "once"] {
        assert_eq!(scraper.value(OPERATIONS, &named(name)), Some(1.0), "{name}");
    }

    let client = pool.call().name("single").get().await.unwrap();
    client.query("SELECT 1", &[]).await.unwrap();
    client.query("SELECT 2", &[]).await.unwrap();
    drop(client);
    assert_eq!(scraper.value(OPERATIONS, &named("single")), Some(2.0), "each statement on a guard counts");

    pool.call().name("broken").execute("SELECT nowhere", &[]).await.unwrap_err();
    let late = pool.call().name("late").timeout(20 * MILLISECOND).execute("SELECT pg_sleep(5)", &[]).await.unwrap_err();
    assert!(matches!(late, Error::QueryTimeout { .. }), "{late:?}");
    let client = pool.call().name("late").timeout(20 * MILLISECOND).get().await.unwrap();
    client.execute("SELECT pg_sleep(5)", &[]).await.unwrap_err();
    drop(client);
    for (name, error, count) in [("broken", "42703", 1.0), ("late", "query_timeout", 2.0)] {
        let labels = [("failfast_operation", name), ("error_type", error), ("db_system_name", "postgresql")];
        assert_eq!(scraper.value(OPERATIONS, &labels), Some(count), "{name}");
    }
    let took = scraper.value("db_client_operation_duration_seconds_sum", &named("late")).unwrap();
    assert!((0.04..2.0).contains(&took), "{took}");

    let dropped = pool.call().name("dropped").execute("SELECT pg_sleep(5)", &[]);
    tokio::time::timeout(20 * MILLISECOND, dropped).await.unwrap_err();
    assert_eq!(scraper.value(OPERATIONS, &named("dropped")), None, "a dropped call counted as an operation");
}

#[tokio::test]
async fn refusals_are_counted_by_reason_and_as_failed_operations() {
    let (builder, scraper) = recorded(shared("metrics_refusals").await.max_size(1).max_waiting(1));
    let pool = builder.build().unwrap();
    let held = pool.get().await.unwrap();
    pool.try_get().unwrap_err();
    pool.get_timeout(20 * MILLISECOND).await.unwrap_err();
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        let pool = pool.clone();
        calls.spawn(async move { pool.call().name("crowd").execute("SELECT 1", &[]).await });
    }
    calls.join_next().await.unwrap().unwrap().unwrap_err();
    drop(held);
    calls.join_next().await.unwrap().unwrap().unwrap();
    pool.breaker().force_open("a test");
    pool.get().await.unwrap_err();
    pool.query("SELECT 1", &[]).await.unwrap_err();

    comes_to(&scraper, "failfast_breaker_rejected_total", &[], 2.0).await;
    assert_eq!(scraper.value("db_client_connection_timeouts_total", &[]), Some(1.0));
    assert_eq!(scraper.value("failfast_shed_total", &[("reason", "none_idle")]), Some(1.0));
    assert_eq!(scraper.value("failfast_shed_total", &[("reason", "queue_full")]), Some(1.0));
    assert_eq!(scraper.value("failfast_shed_total", &[("reason", "hopeless")]), Some(0.0));
    assert_eq!(scraper.value("failfast_breaker_state", &[("state", "forced_open")]), Some(1.0));
    assert_eq!(scraper.value("failfast_breaker_state", &[("state", "closed")]), Some(0.0));
    let moved = [("from", "closed"), ("to", "forced_open")];
    assert_eq!(scraper.value("failfast_breaker_transitions_total", &moved), Some(1.0));
    for (error, count) in [("acquire_timeout", 1.0), ("circuit_open", 2.0)] {
        assert_eq!(scraper.value(OPERATIONS, &[("error_type", error)]), Some(count), "{error}");
    }
    let crowd = [("failfast_operation", "crowd"), ("error_type", "shed")];
    assert_eq!(scraper.value(OPERATIONS, &crowd), Some(1.0), "the call counts once, not for its lease too");
}

#[tokio::test]
async fn retries_are_counted_by_the_reason_of_the_failure() {
    let (pool, scraper) = pool("metrics_retries").await;
    let fail = |state: &str| format!("DO $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '{state}'; END $$");
    pool.call().idempotent().batch_execute(&fail("55P03")).await.unwrap_err();
    pool.batch_execute(&fail("23505")).await.unwrap_err();
    assert_eq!(scraper.value("failfast_retries_total", &[("reason", "55P03")]), Some(2.0));
    assert_eq!(
        scraper.value("failfast_retry_exhausted_total", &[]),
        Some(1.0),
        "only the call with 55P03 used up its attempts, because 23505 may not run again"
    );
    assert_eq!(
        scraper.value(OPERATIONS, &[("error_type", "55P03")]),
        Some(1.0),
        "a call of several attempts is one operation"
    );
    pool.call()
        .transaction(|tx| {
            let fail = fail("40001");
            async move { tx.batch_execute(&fail).await }
        })
        .await
        .unwrap_err();
    assert_eq!(scraper.value("failfast_retries_total", &[("reason", "conflict")]), Some(2.0));
}

#[tokio::test]
async fn the_gauges_of_a_dropped_pool_become_zero() {
    let (pool, scraper) = pool("metrics_gone").await;
    drop(pool.get().await.unwrap());
    comes_to(&scraper, "db_client_connection_count", &[("db_client_connection_state", "idle")], 1.0).await;
    comes_to(&scraper, "db_client_connection_max", &[], 2.0).await;
    drop(pool);
    comes_to(&scraper, "db_client_connection_max", &[], 0.0).await;
    comes_to(&scraper, "db_client_connection_count", &[("db_client_connection_state", "idle")], 0.0).await;
    comes_to(&scraper, "failfast_breaker_state", &[("state", "closed")], 0.0).await;
}

/// The test installs the recorder when the pool already works. The runtime has one thread.
#[tokio::test]
async fn a_recorder_installed_late_is_found() {
    let pool = shared("metrics_late").await.max_size(1).build().unwrap();
    drop(pool.get().await.unwrap());
    let recorder = failfast::metrics::prometheus().unwrap().build_recorder();
    let _installed = set_default_local_recorder(&recorder);
    let is_there = || recorder.handle().render().contains("db_client_connection_max{");
    eventually("the pool finds the recorder", LONG, async || is_there()).await;
    pool.query_one("SELECT 1", &[]).await.unwrap();
    assert!(recorder.handle().render().contains("db_client_operation_duration_seconds_count"));
}

/// Provokes every metric, and compares the rendered metrics with the table in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_renders_exactly_the_table() {
    const SLOW_FROM: Duration = Duration::from_secs(11);
    let (pool, scraper) = pool("metrics_table").await;
    let began = Instant::now();
    pool.call()
        .idempotent()
        .batch_execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55P03'; END $$")
        .await
        .unwrap_err();
    let inflated = [("failfast_operation", "inflated")];
    let is_inflated = async || {
        let hold = if began.elapsed() > SLOW_FROM { 0.3 } else { 0.02 };
        pool.call().name("inflated").execute("SELECT pg_sleep($1)", &[&hold]).await.unwrap();
        scraper.value("failfast_lease_inflation_ratio", &inflated).is_some_and(|ratio| ratio > 3.0)
    };
    eventually("the pool reports longer leases", 2 * LONG, is_inflated).await;
    pool.lane(Lane::Critical).execute("SELECT 1", &[]).await.unwrap();
    let has_lanes = async || scraper.value("failfast_lane_connections_max", &[("failfast_lane", "critical")]).is_some();
    eventually("the pool reports its lanes", LONG, has_lanes).await;
    pool.breaker().force_open("a test");
    pool.call().name("cached").fallback(|_| Some(())).batch_execute("SELECT 1").await.unwrap();

    let scrape = scraper.scrape();
    let (mut named, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for metric in METRICS {
        let (name, labels) = (metric.prometheus_name(), metric.labels.iter().map(|label| label.replace('.', "_")));
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            _ => "histogram",
        };
        assert_eq!(scrape.types.get(&name).map(String::as_str), Some(kind), "{name}");
        assert_eq!(scrape.helps.get(&name).map(String::as_str), Some(metric.help), "{name}");
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        let pool_and: BTreeSet<String> = labels.chain(["db_client_connection_pool_name".to_owned()]).collect();
        let mut found = BTreeSet::new();
        for series in &scrape.series {
            if suffixes.iter().any(|suffix| series.name == format!("{name}{suffix}")) {
                seen.insert(&series.name);
                assert_eq!(series.label("db_client_connection_pool_name"), Some("metrics_table"), "{series:?}");
                found.extend(series.labels.keys().filter(|label| *label != "le").cloned());
            }
        }
        assert_eq!(found, pool_and, "the labels of {name}");
        named.insert(name);
    }
    assert_eq!(scrape.types.keys().collect::<BTreeSet<_>>(), named.iter().collect(), "no others");
    assert_eq!(scrape.series.iter().map(|series| &series.name).collect::<BTreeSet<_>>(), seen, "no others");
    let buckets = scrape.series.iter().filter(|series| series.name == "db_client_connection_use_time_seconds_bucket");
    assert_eq!(buckets.count(), failfast::metrics::POOL_BUCKETS.len() + 1, "and +Inf");
}

/// A lost connection, and a failed dial.
#[tokio::test]
async fn lost_connections_and_failed_dials_are_counted() {
    let (pool, scraper) = pool("metrics_lost").await;
    let client = pool.get().await.unwrap();
    let kill = format!("SELECT pg_terminate_backend({})", client.process_id().unwrap());
    Server::shared().await.execute(&kill).await;
    eventually("the pool notices the lost connection", LONG, async || client.is_closed()).await;
    drop(client);
    comes_to(&scraper, "failfast_connections_lost_total", &[], 1.0).await;
    let event = [("event", "connection_lost"), ("severity", "warning")];
    comes_to(&scraper, "failfast_events_total", &event, 1.0).await;

    let nobody = format!("host=127.0.0.1 port={} user=nobody", free_port());
    let (builder, scraper) = recorded(Pool::builder(nobody.parse().unwrap()).name("metrics_nobody"));
    let pool = builder.build().unwrap();
    pool.get().await.unwrap_err();
    let failures = || scraper.value("failfast_connect_failures_total", &[]).unwrap_or(0.0);
    eventually("the dial is counted", LONG, async || failures() >= 1.0).await;
    assert_eq!(scraper.value(OPERATIONS, &[("error_type", "connect")]), Some(1.0));
}
