//! Pretended outcomes: each kind of error without a server, and what is left on a real one.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use failfast::breaker::State;
use failfast::testing::{self, Outcome, Pretence, ServerError};
use failfast::{AbortReason, Effect, Error, ErrorKind, Pool, RetryConfig, TransactionOptions};
use futures_util::TryStreamExt;
use tokio::time::Instant;

use tokio_postgres::error::SqlState;

use crate::pool::{LONG, shared};

fn without_server() -> Pool {
    testing::without_server().build().unwrap()
}

/// What a handler does, in its three forms.
async fn statement(pool: &Pool) -> Result<(), Error> {
    pool.execute("UPDATE items SET stock = 0", &[]).await.map(drop)
}

async fn stream(pool: &Pool) -> Result<(), Error> {
    pin!(pool.query_raw("SELECT 1", Vec::<i32>::new()).await?).try_next().await.map(drop)
}

async fn transaction(pool: &Pool) -> Result<(), Error> {
    pool.transaction(async |_| Ok(())).await
}

#[tokio::test]
async fn each_kind_of_error_is_reached_without_a_server() {
    let pool = without_server();
    let taken = ServerError::new(SqlState::UNIQUE_VIOLATION).constraint("users_pkey");
    for (outcome, kind, status) in [
        (Outcome::Shed, ErrorKind::Shed, 503),
        (Outcome::CircuitOpen, ErrorKind::CircuitOpen, 503),
        (Outcome::AcquireTimeout, ErrorKind::AcquireTimeout, 503),
        (Outcome::Connect, ErrorKind::Connect, 503),
        (Outcome::Closed, ErrorKind::Closed, 503),
        (Outcome::QueryTimeout, ErrorKind::QueryTimeout, 504),
        (Outcome::Busy, ErrorKind::Busy, 503),
        (Outcome::StreamIdle, ErrorKind::StreamIdle, 504),
        (Outcome::ConnectionLost, ErrorKind::Postgres, 500),
        (Outcome::Server(taken), ErrorKind::Postgres, 500),
        (Outcome::sqlstate(SqlState::T_R_SERIALIZATION_FAILURE), ErrorKind::Postgres, 503),
    ] {
        let pretending = pool.pretend(outcome.clone());
        let is_stream = outcome == Outcome::StreamIdle;
        let error = if is_stream { stream(&pool).await } else { statement(&pool).await }.unwrap_err();
        assert_eq!((error.kind(), error.http_status()), (kind, status), "{outcome:?}: {error}");
        assert!(pretending.met() >= 1, "{outcome:?}");
        drop(pretending);
        let error = statement(&pool).await.unwrap_err();
        assert_eq!(error.sqlstate().map(SqlState::code), Some("0A000"), "after {outcome:?}: {error}");
        assert!(error.to_string().contains("no server"), "{error}");
    }
    for (outcome, kind) in [
        (Outcome::CommitUnknown { committed: false }, ErrorKind::CommitUnknown),
        (Outcome::CommitUnknown { committed: true }, ErrorKind::CommitUnknown),
        (Outcome::TransactionAborted, ErrorKind::TransactionAborted),
    ] {
        let pretending = pool.pretend(outcome.clone());
        assert_eq!(statement(&pool).await.unwrap_err().kind(), ErrorKind::Postgres, "{outcome:?} is only for a COMMIT");
        let error = transaction(&pool).await.unwrap_err();
        assert_eq!((error.kind(), error.http_status(), pretending.met()), (kind, 500, 1), "{outcome:?}: {error}");
        drop(pretending);
        transaction(&pool).await.unwrap();
    }
    assert_eq!(pool.status().in_use, 0);
}

/// Each kind is in the lists above.
#[test]
fn each_kind_of_error_has_an_outcome() {
    let names = include_str!("../../src/error/meaning.rs").split("fn as_str").nth(1).unwrap().split("\n    }").next();
    let tests = include_str!("pretend.rs");
    let kinds = names.unwrap().lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split(" =>").next());
    let kinds: Vec<_> = kinds.collect();
    assert!(kinds.len() >= 11, "{kinds:?}");
    // A cluster's errors come before a pool is asked, so no pool can pretend them. A change of the schema that gives
    // way is no matter of a service.
    let of_none = ["NoPrimary", "TwoPrimaries", "TwoSystems", "NoFreshReplica", "GaveWay"];
    for kind in kinds.into_iter().filter(|kind| !of_none.contains(kind)) {
        assert!(tests.contains(&format!("ErrorKind::{kind}")), "no outcome is tested that leads to {kind}");
    }
}

/// The fields of the driver's error are those that the test gave.
#[tokio::test]
async fn a_pretended_answer_has_its_fields() {
    let pool = without_server();
    let taken = ServerError::new(SqlState::UNIQUE_VIOLATION).table("users").constraint("users_pkey").message("taken");
    let _pretending = pool.pretend(taken);
    let error = statement(&pool).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::UNIQUE_VIOLATION), Effect::NotApplied));
    assert_eq!(error.to_string(), "ERROR: taken (23505)");
    let Error::Postgres { source, .. } = error else { panic!("{error}") };
    let db = source.as_db_error().unwrap();
    assert_eq!((db.table(), db.constraint(), db.message()), (Some("users"), Some("users_pkey"), "taken"));
}

#[tokio::test]
async fn only_calls_of_the_named_operation_meet_a_pretence_as_often_as_it_says() {
    let pool = without_server();
    let pretending = pool.pretend(Outcome::Shed.operation("login").times(2));
    let named = |name| pool.call().name(name).execute("SELECT 1", &[]);
    let kinds = async || {
        let (other, unnamed) = (named("logout").await, statement(&pool).await);
        [other.map(drop), unnamed].map(|result| result.unwrap_err().kind())
    };
    assert_eq!(kinds().await, [ErrorKind::Postgres; 2]);
    for expected in [ErrorKind::Shed, ErrorKind::Shed, ErrorKind::Postgres] {
        assert_eq!(named("login").await.unwrap_err().kind(), expected);
    }
    assert_eq!(pretending.met(), 2);
    let _other = pool.pretend(Pretence::from(Outcome::Closed));
    assert_eq!(pool.try_get().unwrap_err().kind(), ErrorKind::Closed);
    pretending.clear();
}

#[tokio::test]
async fn retries_and_fallbacks_follow_as_after_a_real_outcome() {
    let builder = testing::without_server().retry(RetryConfig::default().initial_backoff(Duration::from_millis(1)));
    let pool = builder.build().unwrap();

    // A conflict runs the transaction again, a refusal does not.
    let runs = AtomicU32::new(0);
    let work = async |tx: failfast::Transaction| {
        runs.fetch_add(1, Relaxed);
        let _ = tx.execute("UPDATE accounts SET cents = 0", &[]).await?;
        Ok::<_, Error>(())
    };
    let conflict = pool.pretend(Outcome::sqlstate(SqlState::T_R_SERIALIZATION_FAILURE));
    let serializable = TransactionOptions::new().isolation(failfast::IsolationLevel::Serializable);
    let error = pool.call().options(serializable).transaction(&work).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    assert_eq!((runs.swap(0, Relaxed), conflict.met()), (3, 3));
    drop(conflict);
    let _shed = pool.pretend(Outcome::Shed.times(1));
    assert_eq!(pool.transaction(&work).await.unwrap_err().kind(), ErrorKind::Shed);
    assert_eq!(runs.swap(0, Relaxed), 0);

    // Nobody knows whether a lost statement was applied.
    let lost = pool.pretend(Outcome::ConnectionLost.times(1));
    let error = statement(&pool).await.unwrap_err();
    assert_eq!((error.effect(), error.is_unavailable(), lost.met()), (Effect::Unknown, true, 1));
    let lost = pool.pretend(Outcome::ConnectionLost.times(1));
    let error = pool.call().idempotent().execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((error.kind(), lost.met()), (ErrorKind::Postgres, 1));
    assert!(error.sqlstate().is_none(), "the first error tells more than that of the retry: {error}");

    let _slow = pool.pretend(Outcome::QueryTimeout);
    let read =
        async |client: failfast::Client| Ok::<_, Error>(client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0));
    assert_eq!(pool.call().fallback(|_: &Error| Some(7)).run(read).await.unwrap(), 7);
}

#[tokio::test]
async fn the_circuit_breaker_counts_a_pretended_outcome() {
    let pool = without_server();
    let _slow = pool.pretend(Outcome::QueryTimeout);
    let begun = Instant::now();
    while pool.breaker().snapshot().state == State::Closed {
        assert!(begun.elapsed() < LONG, "pretended timeouts do not open the circuit");
        let _ = statement(&pool).await;
    }
    assert_eq!(statement(&pool).await.unwrap_err().kind(), ErrorKind::CircuitOpen);
}

#[tokio::test]
async fn a_delayed_statement_runs_later_or_out_of_time() {
    let pool = shared("pretend-delay").await.max_size(1).min_idle(1).build().unwrap();
    statement_on(&pool, "SELECT 1").await.unwrap();
    let delay = Duration::from_millis(50);
    let slow = pool.pretend(Outcome::Delay(delay).times(1));
    let begun = Instant::now();
    statement_on(&pool, "SELECT 1").await.unwrap();
    assert!(begun.elapsed() >= delay && slow.met() == 1, "{:?}", begun.elapsed());
    let _slower = pool.pretend(Outcome::Delay(Duration::from_secs(3_600)));
    let error = pool.call().timeout(delay).execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueryTimeout);
}

async fn statement_on(pool: &Pool, sql: &str) -> Result<(), Error> {
    pool.execute(sql, &[]).await.map(drop)
}

#[tokio::test]
async fn a_pretended_idle_reader_ends_a_stream() {
    let pool = shared("pretend-stream").await.max_size(1).build().unwrap();
    let idle = pool.pretend(Outcome::StreamIdle.times(1));
    let error = stream(&pool).await.unwrap_err();
    assert_eq!((error.kind(), idle.met()), (ErrorKind::StreamIdle, 1));
    stream(&pool).await.unwrap();
    let _idle = pool.pretend(Outcome::StreamIdle);
    let client = pool.get().await.unwrap();
    let mut rows = pin!(client.query_raw("SELECT 1", Vec::<i32>::new()).await.unwrap());
    assert_eq!(rows.try_next().await.unwrap_err().kind(), ErrorKind::StreamIdle);
    assert!(rows.try_next().await.unwrap().is_none());
}

/// Returns how many rows the table has.
async fn rows(pool: &Pool, table: &str) -> i64 {
    pool.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_real_transaction_ends_as_pretended() {
    let pool = shared("pretend-commit").await.max_size(2).build().unwrap();
    pool.batch_execute("CREATE TABLE pretend_commit (n int)").await.unwrap();
    let insert = async |tx: failfast::Transaction| {
        tx.execute("INSERT INTO pretend_commit VALUES (1)", &[]).await?;
        Ok::<_, Error>(())
    };
    for (outcome, kind, left) in [
        (Outcome::TransactionAborted, ErrorKind::TransactionAborted, 0),
        (Outcome::CommitUnknown { committed: false }, ErrorKind::CommitUnknown, 0),
        (Outcome::CommitUnknown { committed: true }, ErrorKind::CommitUnknown, 1),
    ] {
        let pretending = pool.pretend(outcome.clone().times(1));
        assert_eq!(pool.transaction(&insert).await.unwrap_err().kind(), kind);
        assert_eq!((rows(&pool, "pretend_commit").await, pretending.met()), (left, 1), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_pretended_error_fails_a_real_transaction() {
    let pool = shared("pretend-failed").await.max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE pretend_failed (n int)").await.unwrap();
    let tx = pool.get().await.unwrap().transaction().await.unwrap();
    let pretending = pool.pretend(Outcome::sqlstate(SqlState::CHECK_VIOLATION).times(1));
    let inner = tx.savepoint(async |tx| tx.execute("INSERT INTO pretend_failed VALUES (1)", &[]).await).await;
    assert_eq!(inner.unwrap_err().sqlstate(), Some(&SqlState::CHECK_VIOLATION));
    tx.execute("INSERT INTO pretend_failed VALUES (2)", &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((rows(&pool, "pretend_failed").await, pretending.met()), (1, 1));

    let _again = pool.pretend(Outcome::sqlstate(SqlState::CHECK_VIOLATION).times(1));
    let tx = pool.get().await.unwrap().transaction().await.unwrap();
    tx.execute("INSERT INTO pretend_failed VALUES (3)", &[]).await.unwrap_err();
    let next = tx.execute("INSERT INTO pretend_failed VALUES (4)", &[]).await.unwrap_err();
    assert_eq!(next.sqlstate(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    let Error::TransactionAborted { reason, .. } = tx.commit().await.unwrap_err() else { panic!("committed") };
    let AbortReason::Failed { sqlstate, .. } = reason else { panic!("{reason}") };
    assert_eq!(sqlstate, Some(SqlState::CHECK_VIOLATION));

    for outcome in [Outcome::QueryTimeout, Outcome::ConnectionLost] {
        let _once = pool.pretend(outcome.clone().times(1));
        let tx = pool.get().await.unwrap().transaction().await.unwrap();
        let error = tx.execute("INSERT INTO pretend_failed VALUES (5)", &[]).await.unwrap_err();
        assert_eq!(error.effect(), Effect::NotApplied, "{outcome:?}: {error}");
        tx.commit().await.unwrap_err();
        assert_eq!(rows(&pool, "pretend_failed").await, 1, "{outcome:?}");
    }
}
