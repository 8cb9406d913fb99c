//! The error types of failed operations, the last values of a dropped pool, and recorders that panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use failfast::{Client, Error, Transaction};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::{OPERATIONS, comes_to, pool, recorded};
use crate::pool::{LONG, shared};
use crate::support::eventually;
use crate::support::server::Server;

const TAKEN: &str = "DO $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '23505'; END $$";

async fn taken_in(tx: Transaction) -> Result<(), Error> {
    tx.batch_execute(TAKEN).await
}

/// An expected unique violation in a transaction must not count as an unknown failure, because that would page
/// somebody.
#[tokio::test]
async fn a_failure_in_the_callers_closure_has_the_type_of_its_error() {
    let (pool, scraper) = pool("metrics_within").await;
    let call = |name| pool.call().name(name);
    call("whole").transaction(taken_in).await.unwrap_err();
    call("once").transaction_once(taken_in).await.unwrap_err();
    let nested = |tx: Transaction| async move { tx.savepoint(taken_in).await };
    call("nested").transaction(nested).await.unwrap_err();
    call("several").run(|client: Client| async move { client.batch_execute(TAKEN).await }).await.unwrap_err();
    // The closure returns an error of its own.
    call("own").transaction(|_| async { Err::<(), _>(Error::Closed) }).await.unwrap_err();
    call("alone").run(|_| async { Err::<(), _>(Error::Closed) }).await.unwrap_err();
    for (name, error) in [
        ("whole", "23505"),
        ("once", "23505"),
        ("nested", "23505"),
        ("several", "23505"),
        ("own", "_OTHER"),
        ("alone", "_OTHER"),
    ] {
        let labels = [("failfast_operation", name), ("error_type", error)];
        assert_eq!(scraper.value(OPERATIONS, &labels), Some(1.0), "{name}");
    }
}

#[tokio::test]
async fn a_refused_call_does_not_get_the_type_of_an_earlier_failure() {
    let builder = shared("metrics_refused").await;
    let (builder, scraper) = recorded(builder.credentials(|| async { Ok(failfast::Credentials::password("wrong")) }));
    let pool = builder.build().unwrap();
    let refused = pool.get().await.unwrap_err();
    let state = refused.sqlstate().expect("the server says why").code().to_owned();
    assert_eq!(scraper.value(OPERATIONS, &[("error_type", &state)]), Some(1.0));
    pool.breaker().force_open("a test");
    let refused = pool.get().await.unwrap_err();
    assert!(matches!(&refused, Error::CircuitOpen { .. }), "{refused:?}");
    assert!(refused.sqlstate().is_some(), "the error has no SQLSTATE of the failed dial");
    assert_eq!(scraper.value(OPERATIONS, &[("error_type", "circuit_open")]), Some(1.0));
}

/// `commit_unknown` needs an operator, so it takes precedence over the SQLSTATE of the lost connection.
#[tokio::test]
async fn a_commit_without_an_answer_has_the_type_commit_unknown() {
    let (pool, scraper) = pool("metrics_commit").await;
    let server = Server::shared().await;
    server
        .execute(
            "DROP TABLE IF EXISTS lingering; CREATE TABLE lingering (n int);
            CREATE OR REPLACE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(20); RETURN NULL; END';
            CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON lingering DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION linger()",
        )
        .await;
    let insert = |tx: Transaction| async move { tx.execute("INSERT INTO lingering VALUES (1)", &[]).await };
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'metrics_commit' AND state = 'active' AND query = 'COMMIT'";
    let kill = async { eventually("the session is killed", LONG, async || server.scalar(kill).await == "1").await };
    let (result, ()) = tokio::join!(pool.transaction(insert), kill);
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::CommitUnknown { .. }), "{error:?}");
    assert_eq!(error.sqlstate().map(|state| state.code()), Some("57P01"));
    assert_eq!(scraper.value(OPERATIONS, &[("error_type", "commit_unknown")]), Some(1.0));
}

/// The pool lived for less than one interval of the metrics.
#[tokio::test]
async fn a_dropped_pool_reports_its_last_counts() {
    let (builder, scraper) = recorded(shared("metrics_short").await.max_size(1));
    let pool = builder.build().unwrap();
    let held = pool.get().await.unwrap();
    pool.try_get().unwrap_err();
    drop(held);
    drop(pool.get().await.unwrap());
    drop(pool);
    comes_to(&scraper, "failfast_shed_total", &[("reason", "none_idle")], 1.0).await;
    assert_eq!(scraper.value("db_client_connection_wait_time_seconds_count", &[]), Some(2.0));
}

/// Otherwise an alert on an open circuit would never end.
#[tokio::test]
async fn the_breaker_of_a_dropped_pool_reports_no_state() {
    let (pool, scraper) = pool("metrics_after").await;
    let (client, breaker) = (pool.get().await.unwrap(), pool.breaker().clone());
    comes_to(&scraper, "failfast_breaker_state", &[("state", "closed")], 1.0).await;
    drop(pool);
    breaker.force_open("a test");
    let moved = [("from", "closed"), ("to", "forced_open")];
    assert_eq!(scraper.value("failfast_breaker_transitions_total", &moved), Some(1.0));
    assert_eq!(scraper.value("failfast_breaker_state", &[("state", "forced_open")]), Some(0.0));
    drop(client);
}

/// A histogram that panics.
struct Panics;

impl HistogramFn for Panics {
    fn record(&self, _: f64) {
        panic!("a recorder that panics");
    }
}

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name().ends_with("use_time") { Histogram::from_arc(Arc::new(Self)) } else { Histogram::noop() }
    }
}

#[tokio::test]
async fn a_recorder_that_panics_costs_no_connection() {
    let pool = shared("metrics_panics").await.max_size(1).recorder(Panics).build().unwrap();
    for _ in 0..3 {
        let client = pool.get().await.unwrap();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(client)));
        assert_eq!(pool.status().in_use, 0, "the connection did not come back");
    }
}
