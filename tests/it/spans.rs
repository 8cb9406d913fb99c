//! The `tracing` spans of calls: their names, parents and attributes, and the values that they must never contain.

pub(crate) mod notes;

use std::future::Future;
use std::time::Duration;

use failfast::tokio_postgres::Config;
use failfast::{Credentials, Error, Pool, RetryConfig, Transaction};
use futures_util::StreamExt;
use tokio::time::timeout;
use tracing::Instrument;

use self::notes::Notes;
use crate::pool::{LONG, shared};
use crate::support::server::Server;

/// A pool with one connection, which is idle.
async fn pool(name: &str) -> Pool {
    let pool = shared(name).await.max_size(1).retry(RetryConfig::default().initial_backoff(Duration::from_millis(1)));
    let pool = pool.build().unwrap();
    pool.warm_up(1, LONG).await.unwrap();
    pool
}

/// Polls the future once, and asserts that it is not ready.
async fn begin(future: &mut (impl Future + Unpin)) {
    assert!(timeout(Duration::ZERO, future).await.is_err());
}

#[tokio::test]
async fn the_span_of_a_call_contains_its_statement() {
    let (pool, notes) = (pool("span_of_call").await, Notes::begin());
    pool.query_one("SELECT $1::text", &[&"hello"]).await.unwrap();
    pool.call().name("load_dashboard").execute("SELECT 1", &[]).await.unwrap();
    let database = Server::shared().await.config().get_dbname().unwrap().to_owned();
    let tree = format!(
        "call query_one {database}\n  statement query_one {database}\ncall load_dashboard\n  statement execute {database}\n"
    );
    assert_eq!(notes.tree(), tree);

    let (address, port) = (Server::shared().await.addr().ip().to_string(), Server::shared().await.addr().port());
    let port = port.to_string();
    for span in notes.spans() {
        assert!(span.is_over, "{span:?}");
        assert_eq!(span.target, "failfast::spans");
        for (name, value) in [
            ("otel.kind", "client"),
            ("db.system.name", "postgresql"),
            ("db.namespace", &database),
            ("server.address", &address),
            ("server.port", &port),
            ("failfast.pool", "span_of_call"),
        ] {
            assert_eq!(span.get(name), Some(value), "{name} of {span:?}");
        }
        assert_eq!((span.get("error.type"), span.get("otel.status_code")), (None, None));
        assert_eq!(span.get("failfast.attempts"), (span.name == "call").then_some("1"));
    }
    let [_, query_one, named, execute] = notes.spans().try_into().unwrap();
    assert_eq!((query_one.get("failfast.operation"), query_one.get("db.operation.name")), (None, Some("query_one")));
    assert_eq!(named.get("failfast.operation"), Some("load_dashboard"));
    assert_eq!(execute.get("failfast.operation"), Some("load_dashboard"));
}

#[tokio::test]
async fn a_wait_for_a_connection_is_a_span() {
    let (pool, notes) = (pool("span_of_wait").await, Notes::begin());
    let held = pool.get().await.unwrap();
    assert_eq!(notes.tree(), "", "a call without a wait has a span of a wait");
    let mut waits = Box::pin(pool.call().name("waits").batch_execute("SELECT 1"));
    begin(&mut waits).await;
    drop(held);
    waits.await.unwrap();
    assert_eq!(notes.names(), ["call waits", "  acquire", "  statement batch_execute"]);

    let held = pool.get().await.unwrap();
    let error = pool.get_timeout(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, Error::AcquireTimeout { .. }), "{error:?}");
    let mut dropped = Box::pin(pool.get());
    begin(&mut dropped).await;
    assert!(!notes.last().is_over);
    drop(dropped);
    let [.., timed_out, dropped] = &*notes.spans() else { panic!("{}", notes.tree()) };
    assert_eq!((timed_out.name, timed_out.get("error.type")), ("acquire", Some("acquire_timeout")));
    assert_eq!((dropped.name, dropped.get("error.type"), dropped.is_over), ("acquire", None, true));
    drop(held);
}

#[tokio::test]
async fn the_span_of_a_transaction_contains_its_statements_and_the_callers_spans() {
    let (pool, notes) = (pool("span_of_transaction").await, Notes::begin());
    let work = |tx: Transaction| async move {
        tx.query("SELECT 1", &[]).await?;
        tx.savepoint(|tx| async move { tx.execute("SELECT 2", &[]).await }).await?;
        async { tx.batch_execute("SELECT 3").await }.instrument(tracing::info_span!("mine")).await
    };
    pool.transaction(work).await.unwrap();
    let inside =
        ["  BEGIN", "  query", "  SAVEPOINT", "  execute", "  RELEASE", "  mine", "    batch_execute", "  COMMIT"];
    assert_eq!(notes.operations(), [&["transaction"], &inside[..]].concat());
    assert_eq!(notes.spans()[0].get("failfast.attempts"), Some("1"));

    // The caller's own error rolls back. It has no well-known error type.
    let notes = Notes::begin();
    #[derive(Debug)]
    struct Own;
    impl From<Error> for Own {
        fn from(_: Error) -> Self {
            Own
        }
    }
    pool.transaction_once(|_| async { Err::<(), _>(Own) }).await.unwrap_err();
    assert_eq!(notes.operations(), ["transaction", "  BEGIN", "  ROLLBACK"]);
    assert_eq!(notes.spans()[0].get("error.type"), Some("_OTHER"));

    // This transaction cannot be committed.
    let notes = Notes::begin();
    let swallows = |tx: Transaction| async move {
        _ = tx.batch_execute("SELECT 1/0").await;
        Ok::<_, Error>(())
    };
    pool.transaction_once(swallows).await.unwrap_err();
    for operation in ["batch_execute", "COMMIT", "transaction"] {
        let span = notes.find(operation);
        assert_eq!(span.get("error.type"), Some("22012"), "{span:?}");
        assert_eq!(span.get("db.response.status_code"), Some("22012"), "{span:?}");
        assert_eq!(span.get("otel.status_code"), Some("ERROR"), "{span:?}");
    }
}

#[tokio::test]
async fn a_call_that_runs_again_is_one_span_with_all_its_attempts() {
    let (pool, server) = (pool("span_of_retries").await, Server::shared().await);
    server.execute("DROP SEQUENCE IF EXISTS span_of_retries; CREATE SEQUENCE span_of_retries").await;
    let sql = "DO $$ BEGIN IF nextval('span_of_retries') < 3 THEN RAISE EXCEPTION 'a test' USING ERRCODE = '40001'; END IF; END $$";
    let notes = Notes::begin();
    pool.call().idempotent().batch_execute(sql).await.unwrap();
    let call = notes.find("batch_execute");
    assert_eq!((call.get("failfast.attempts"), call.get("error.type")), (Some("3"), None));
    let statements: Vec<_> = notes.spans().into_iter().filter(|span| span.name == "statement").collect();
    let types: Vec<_> = statements.iter().map(|span| span.get("error.type")).collect();
    assert_eq!(types, [Some("40001"), Some("40001"), None]);
    assert!(statements.iter().all(|span| span.parent == Some(call.number)), "{}", notes.tree());

    server.execute("SELECT setval('span_of_retries', 1)").await;
    let notes = Notes::begin();
    pool.transaction(|tx| async move { tx.batch_execute(sql).await }).await.unwrap();
    assert_eq!(notes.find("transaction").get("failfast.attempts"), Some("2"));
}

#[tokio::test]
async fn every_end_of_a_call_ends_its_spans() {
    let (pool, notes) = (pool("span_of_ends").await, Notes::begin());
    let slow = pool.call().timeout(Duration::from_millis(50));
    slow.query("SELECT pg_sleep(60)", &[]).await.unwrap_err();
    let types: Vec<_> = notes.spans().iter().map(|span| span.get("error.type").map(str::to_owned)).collect();
    assert_eq!(types, [Some("query_timeout".to_owned()), Some("query_timeout".to_owned())]);

    // The pool is still cleaning up the connection, so this call waits for it.
    let notes = Notes::begin();
    let mut dropped = Box::pin(pool.query("SELECT pg_sleep(60)", &[]));
    let begins = async {
        while !notes.spans().iter().any(|span| span.name == "statement") {
            begin(&mut dropped).await;
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, begins).await.unwrap();
    drop(dropped);
    assert!(notes.spans().iter().all(|span| span.is_over && span.get("error.type").is_none()), "{}", notes.tree());

    pool.close();
    let notes = Notes::begin();
    pool.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(notes.names(), ["call query"]);
    assert_eq!(notes.last().get("error.type"), Some("closed"));
}

#[tokio::test]
async fn an_answer_of_a_fallback_is_no_error_of_the_call() {
    let (pool, notes) = (pool("span_of_fallback").await, Notes::begin());
    let call = pool.call().timeout(Duration::from_millis(50)).fallback(|_| Some(Vec::new()));
    call.query("SELECT pg_sleep(60)", &[]).await.unwrap();
    let call = &notes.spans()[0];
    assert_eq!((call.get("failfast.fallback"), call.get("error.type")), (Some("query_timeout"), None));
    assert_eq!((call.get("otel.status_code"), call.get("failfast.attempts")), (None, Some("1")));
}

#[tokio::test]
async fn the_span_of_a_stream_ends_with_it() {
    let (pool, notes) = (pool("span_of_stream").await, Notes::begin());
    let rows = pool.query_raw("SELECT * FROM generate_series(1, 3)", Vec::<i32>::new()).await.unwrap();
    assert_eq!(notes.names(), ["call query_raw", "  statement query_raw"]);
    // A subscriber sees the end of a span only after the ends of the spans in it.
    assert!(notes.spans().iter().all(|span| !span.is_over), "{}", notes.tree());
    assert_eq!(rows.count().await, 3);
    assert!(notes.spans().iter().all(|span| span.is_over), "{}", notes.tree());
}

const CANARY: &str = "canary-93ab";

/// Every error of this test quotes the canary.
#[tokio::test]
async fn spans_contain_no_value_no_statement_and_no_password() {
    let notes = Notes::begin();
    let pool = pool("span_of_canary").await;
    let quoting = format!("SELECT '{CANARY}'::int");
    let raising = format!("DO $$ BEGIN RAISE EXCEPTION '{CANARY}' USING DETAIL = '{CANARY}'; END $$");
    pool.query("SELECT $1::text", &[&CANARY]).await.unwrap();
    pool.query(&format!("SELECT '{CANARY}'"), &[]).await.unwrap();
    for sql in [quoting.as_str(), &raising, CANARY] {
        pool.query(sql, &[]).await.unwrap_err();
        pool.simple_query(sql).await.unwrap_err();
        pool.call().uncached().execute(sql, &[]).await.unwrap_err();
        pool.transaction(|tx| async move { tx.batch_execute(sql).await }).await.unwrap_err();
        _ = pool.call().run(|client| async move { client.prepare(sql).await }).await;
    }
    let mut config: Config = Server::shared().await.config();
    config.password(CANARY);
    let refused = Pool::builder(config).credentials(|| async { Ok(Credentials::password(CANARY)) });
    refused.build().unwrap().query("SELECT 1", &[]).await.unwrap_err();
    assert!(notes.spans().len() > 20, "{}", notes.tree());
    let told = notes.everything();
    assert!(!told.contains(CANARY), "{told}");
}
