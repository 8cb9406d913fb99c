//! Fallbacks: which failures they answer, for which methods, and what the pool counts.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use failfast::{Call, Client, Error, ErrorKind, Pool, RetryConfig, Transaction};
use tokio_postgres::types::Type;

use crate::pool::{LONG, shared};
use crate::support::eventually;
use crate::support::proxy::{Close, Proxy};
use crate::support::server::Server;

const SLOW: &str = "SELECT 1 FROM pg_sleep(60)";

async fn pool(name: &str) -> Pool {
    shared(name).await.retry(RetryConfig::off()).build().unwrap()
}

fn briefly(pool: &Pool) -> Call<'_> {
    pool.call().timeout(Duration::from_millis(100))
}

/// An error type of the service.
#[derive(Debug, PartialEq)]
enum Own {
    Database(Option<ErrorKind>),
    Forbidden,
}

impl From<Error> for Own {
    fn from(error: Error) -> Self {
        Self::Database(Some(error.kind()))
    }
}

#[tokio::test]
async fn every_method_gets_the_answer_of_its_fallback() {
    let pool = pool("fallback_methods").await;
    let row = pool.query_one("SELECT 7", &[]).await.unwrap();
    let messages = pool.simple_query("SELECT 7").await.unwrap();
    pool.breaker().force_open("a test");
    let call = || pool.call();
    let seven = |row: &tokio_postgres::Row| row.get::<_, i32>(0) == 7;

    let rows = call().fallback(|_| Some(vec![row.clone()])).query("SELECT 1", &[]).await.unwrap();
    assert!(rows.iter().all(seven));
    assert!(seven(&call().fallback(|_| Some(row.clone())).query_one("SELECT 1", &[]).await.unwrap()));
    assert!(call().fallback(|_| Some(None)).query_opt("SELECT 1", &[]).await.unwrap().is_none());
    assert_eq!(call().fallback(|_| Some(3)).execute("SELECT 1", &[]).await.unwrap(), 3);
    let rows = call().fallback(|_| Some(Vec::new())).query_typed("SELECT $1", &[(&1, Type::INT4)]).await.unwrap();
    assert!(rows.is_empty());
    call().fallback(|_| Some(())).batch_execute("SELECT 1").await.unwrap();
    let told = call().fallback(|_| Some(messages)).simple_query("SELECT 1").await.unwrap();
    assert!(!told.is_empty());

    let unused = |_: Client| async { Err::<i32, Error>(Error::Closed) };
    assert_eq!(call().fallback(|_| Some(5)).run(unused).await.unwrap(), 5);
    let unused = |_: Transaction| async { Err::<i32, Own>(Own::Forbidden) };
    assert_eq!(call().fallback(|_| Some(6)).transaction(unused).await, Ok(6));
    assert_eq!(call().fallback(|_: &Own| Some(7)).transaction_once(unused).await, Ok(7));
}

/// The fallback replaces a missing answer of the database, but not an error that the database returned.
#[tokio::test]
async fn a_fallback_answers_only_when_the_database_does_not() {
    let pool = pool("fallback").await;
    let asked = Cell::new(0);
    let instead = |error: &Error| {
        assert!(error.is_unavailable(), "{error}");
        asked.set(asked.get() + 1);
        (asked.get() < 3).then(Vec::new)
    };
    assert_eq!(pool.call().fallback(instead).query("SELECT 1", &[]).await.unwrap().len(), 1);
    let error = pool.call().fallback(instead).query("SELECT 1/0", &[]).await.unwrap_err();
    assert_eq!((error.kind(), asked.get()), (ErrorKind::Postgres, 0), "the database has answered");
    assert!(briefly(&pool).fallback(instead).query(SLOW, &[]).await.unwrap().is_empty());
    let killed = "SELECT pg_terminate_backend(pg_backend_pid())";
    assert!(pool.call().fallback(instead).query(killed, &[]).await.unwrap().is_empty());
    pool.breaker().force_open("a test");
    let error = pool.call().fallback(instead).query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((error.kind(), asked.get()), (ErrorKind::CircuitOpen, 3), "a fallback without a value keeps the error");
}

/// The pool cannot look into the caller's own error. It goes by the last statement on the connection.
#[tokio::test]
async fn an_error_of_the_callers_own_is_answered_if_its_last_statement_was_not() {
    let pool = pool("fallback_own").await;
    let forbidden = async |client: Client, sql: &'static [&'static str]| {
        for sql in sql {
            _ = client.query(*sql, &[]).await;
        }
        Err::<i32, _>(Own::Forbidden)
    };
    let cases: [(&'static [&'static str], Result<i32, Own>); 5] = [
        (&[SLOW], Ok(7)),
        (&["SELECT 1"], Err(Own::Forbidden)),
        (&[], Err(Own::Forbidden)),
        (&[SLOW, "SELECT 1"], Err(Own::Forbidden)),
        (&[SLOW, "SELECT 1/0"], Err(Own::Forbidden)),
    ];
    for (sql, expected) in cases {
        // The second statement has to wait until the first one is stopped.
        let call = pool.call().timeout(Duration::from_millis(500));
        let found = call.fallback(|_| Some(7)).run(|client| forbidden(client, sql)).await;
        assert_eq!(found, expected, "{sql:?}");
    }
    let found = briefly(&pool).fallback(|_| Some(7)).run(|client| async move {
        client.query(SLOW, &[]).await.map_err(|_| Own::Database(None))?;
        Ok::<_, Own>(0)
    });
    assert_eq!(found.await, Ok(7));
}

#[tokio::test]
async fn a_transaction_of_any_error_type_has_a_fallback() {
    let pool = pool("fallback_transaction").await;
    let late = |tx: Transaction| async move {
        tx.query(SLOW, &[]).await.map_err(|_| Own::Database(None))?;
        Ok::<_, Own>(0)
    };
    assert_eq!(briefly(&pool).fallback(|_| Some(7)).transaction(late).await, Ok(7));
    assert_eq!(briefly(&pool).fallback(|_| Some(7)).transaction_once(late).await, Ok(7));
    let refused = |tx: Transaction| async move {
        tx.query("SELECT 1", &[]).await?;
        Err::<i32, _>(Own::Forbidden)
    };
    assert_eq!(pool.call().fallback(|_| Some(7)).transaction(refused).await, Err(Own::Forbidden));
    let answered = |tx: Transaction| async move { Ok::<_, Own>(tx.query("SELECT 1/0", &[]).await.map(|_| 0)?) };
    let found = pool.call().fallback(|_| Some(7)).transaction(answered).await;
    assert_eq!(found, Err(Own::Database(Some(ErrorKind::Postgres))));
    let unknown = Own::Database(Some(ErrorKind::TransactionAborted));
    let swallowed = |tx: Transaction| async move {
        _ = tx.query("SELECT 1/0", &[]).await;
        Ok::<_, Own>(0)
    };
    assert_eq!(pool.call().fallback(|_| Some(7)).transaction(swallowed).await, Err(unknown));
}

/// The closure gives its connection back early. What the next caller meets on it says nothing about the closure's own
/// error.
#[tokio::test]
async fn a_closure_is_not_judged_by_what_another_caller_meets_on_its_connection() {
    let pool = shared("fallback_early").await.max_size(1).build().unwrap();
    let runs = AtomicU64::new(0);
    let work = async |client: Client| {
        runs.fetch_add(1, SeqCst);
        let process: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        drop(client);
        let other = pool.call().timeout(Duration::from_millis(500)).get().await?;
        assert_eq!(other.process_id(), Some(process));
        assert_eq!(other.batch_execute(SLOW).await.unwrap_err().kind(), ErrorKind::QueryTimeout);
        Err::<(), _>(Own::Forbidden)
    };
    let result = pool.call().idempotent().fallback(|_| Some(())).run(work).await;
    assert_eq!((result, runs.load(SeqCst)), (Err(Own::Forbidden), 1));
}

#[tokio::test]
async fn a_connection_lost_through_the_deref_is_no_answer() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("fallback_deref");
    let pool = builder.retry(RetryConfig::off()).build().unwrap();
    let (cutter, pool) = (&proxy, &pool);
    let work = |client: Client| async move {
        let waits = (**client).query_one("SELECT 1 FROM pg_sleep(60)", &[]);
        let (answer, ()) = tokio::join!(waits, async {
            eventually("the statement runs", LONG, async || cutter.open() > 0).await;
            cutter.cut(Close::Reset);
        });
        answer.map(|row| row.get(0)).map_err(|_| Own::Database(None))
    };
    assert_eq!(pool.call().fallback(|_| Some(7)).run(work).await, Ok(7));
}

/// The fallback is asked once, after the last attempt.
#[tokio::test]
async fn a_fallback_is_asked_after_the_last_attempt() {
    let pool = shared("fallback_attempts").await.retry(RetryConfig::default()).build().unwrap();
    let (runs, asked) = (AtomicU64::new(0), Cell::new(0));
    let instead = |_: &Error| {
        asked.set(asked.get() + 1);
        assert_eq!(runs.load(SeqCst), 3);
        Some(7)
    };
    let call = pool.call().idempotent().fallback(instead);
    let lost = |client: Client| {
        runs.fetch_add(1, SeqCst);
        async move { Ok(client.query_one("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await?.get::<_, i32>(0)) }
    };
    assert_eq!(call.run(lost).await.unwrap(), 7);
    assert_eq!((runs.load(SeqCst), asked.get()), (3, 1));
}

#[cfg(feature = "prometheus")]
#[tokio::test]
async fn answers_of_fallbacks_are_no_failed_operations_but_the_breaker_sees_the_failures() {
    use crate::metrics::recorded;
    const OPERATIONS: &str = "db_client_operation_duration_seconds_count";
    let breaker = failfast::BreakerConfig::default().volume_threshold(4);
    let builder = shared("fallback_metrics").await.retry(RetryConfig::off()).breaker(breaker);
    let (builder, scraper) = recorded(builder);
    let pool = builder.build().unwrap();
    let rate = || briefly(&pool).name("rate").fallback(|_| Some(Vec::new()));
    for _ in 0..5 {
        rate().query(SLOW, &[]).await.unwrap();
    }
    assert_eq!(pool.breaker().state(), failfast::breaker::State::Open, "the breaker does not see the failures");
    pool.breaker().reset("a test");
    rate().query("SELECT 1", &[]).await.unwrap();
    rate().query("SELECT 1/0", &[]).await.unwrap_err();
    pool.call().name("rate").fallback(|_: &Error| None::<Vec<_>>).query("SELECT 1/0", &[]).await.unwrap_err();
    briefly(&pool).name("rate").fallback(|_: &Error| None::<Vec<_>>).query(SLOW, &[]).await.unwrap_err();

    let by =
        |error| scraper.value("failfast_fallbacks_total", &[("failfast_operation", "rate"), ("error_type", error)]);
    assert_eq!(by("query_timeout").unwrap() + by("circuit_open").unwrap(), 5.0);
    assert_eq!(by("22012"), None);
    let failed = |error| scraper.value(OPERATIONS, &[("failfast_operation", "rate"), ("error_type", error)]);
    assert_eq!((failed("query_timeout"), failed("circuit_open"), failed("22012")), (Some(1.0), None, Some(2.0)));
    let operations = scraper.scrape().series.into_iter().filter(|series| series.name == OPERATIONS);
    assert_eq!(operations.map(|series| series.value).sum::<f64>(), 9.0);
}
