//! The pool reports a commit only if the server committed.

use std::pin::pin;
use std::time::Duration;

use failfast::{AbortReason, Effect, Error, Pool, Transaction};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::deadpool::{bare, client, said};
use super::{LONG, shared};
use crate::support::{
    proxy::{Proxy, Way},
    server::Server,
};

const NO_PARAMS: [&(dyn ToSql + Sync); 0] = [];

fn is_aborted(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::TransactionAborted { reason: AbortReason::Failed { .. }, .. }))
}

/// Swallows an error in one of five ways. Only in the last was the error undone by a rollback to a savepoint.
async fn swallow(tx: Transaction, way: usize) -> Result<(), Error> {
    tx.execute("INSERT INTO case_01 VALUES ($1)", &[&(way as i32)]).await?;
    match way {
        0 => assert!(tx.execute("SELECT 1/0", &[]).await.is_err()),
        1 => assert!(raw(&tx).execute("SELECT 1/0", &[]).await.is_err()),
        2 => {
            assert!(tx.savepoint(fail_in_savepoint).await.is_err());
            assert!(raw(&tx).batch_execute("SELECT 1/0").await.is_err());
        }
        3 => {
            assert!(tx.batch_execute("SELECT 1/0").await.is_err());
            assert!(tx.savepoint(async |_| Ok::<_, Error>(())).await.is_err());
        }
        _ => assert!(is_aborted(&tx.savepoint(fail_in_savepoint).await)),
    }
    Ok(())
}

/// Fails, and returns success.
async fn fail_in_savepoint(tx: Transaction) -> Result<(), Error> {
    tx.execute("INSERT INTO case_01 VALUES (-1)", &[]).await?;
    assert!(raw(&tx).execute("SELECT 1/0", &[]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn case_01_a_swallowed_error_is_never_committed() {
    let pool = shared("case_01").await.max_size(4).acquire_timeout(LONG).build().unwrap();
    pool.batch_execute("CREATE TABLE case_01 (way int); CREATE TABLE case_01_bare (id int)").await.unwrap();
    let callers = (0..4).map(|_| async {
        for n in 0..250 {
            let committed = pool.transaction(|tx| swallow(tx, n % 5)).await;
            assert!(if n % 5 == 4 { committed.is_ok() } else { is_aborted(&committed) }, "{}: {committed:?}", n % 5);
        }
    });
    futures_util::future::join_all(callers).await;
    let server = Server::shared().await;
    assert_eq!(
        server.scalar("SELECT string_agg(DISTINCT way::text, ',') || ' ' || count(*) FROM case_01").await,
        "4 200"
    );

    let mut client = client(server.config(), "case_01").await;
    let mut committed = 0;
    for _ in 0..100 {
        let tx = client.transaction().await.unwrap();
        tx.execute("INSERT INTO case_01_bare VALUES (1)", &[]).await.unwrap();
        assert!(tx.execute("SELECT 1/0", &[]).await.is_err());
        committed += i32::from(tx.commit().await.is_ok());
    }
    let there = server.scalar("SELECT count(*) FROM case_01_bare").await;
    println!("case 01: failfast: aborted; deadpool: {committed} of 100 committed, {there} are there");
    assert_eq!((committed, there.as_str()), (100, "0"));
}

#[tokio::test]
async fn case_02_a_stream_dropped_before_its_error_is_not_committed() {
    let pool = shared("case_02").await.max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE case_02 (id int)").await.unwrap();
    let fails_late = "SELECT 1 / (20000 - g) FROM generate_series(1, 40000) g";
    let committed = pool
        .transaction(|tx| async move {
            tx.execute("INSERT INTO case_02 VALUES (1)", &[]).await?;
            let mut rows = tx.query_raw(fails_late, NO_PARAMS).await?;
            assert!(rows.next().await.unwrap().is_ok());
            Ok(())
        })
        .await;
    assert!(is_aborted(&committed), "{committed:?}");

    let server = Server::shared().await;
    let mut client = client(server.config(), "case_02").await;
    let tx = client.transaction().await.unwrap();
    tx.execute("INSERT INTO case_02 VALUES (1)", &[]).await.unwrap();
    let mut rows = Box::pin(tx.query_raw(fails_late, NO_PARAMS).await.unwrap());
    assert!(rows.next().await.unwrap().is_ok());
    drop(rows);
    let bare = tx.commit().await;
    println!("case 02: failfast: {}; deadpool: {}", committed.unwrap_err(), said(&bare));
    assert!(bare.is_ok());
    assert_eq!(server.scalar("SELECT count(*) FROM case_02").await, "0");
}

#[tokio::test]
async fn case_03_a_copy_that_breaks_a_deferred_constraint_fails() {
    let pool = shared("case_03").await.max_size(1).build().unwrap();
    let table = "CREATE TABLE case_03 (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO case_03 VALUES (1)";
    pool.batch_execute(table).await.unwrap();
    let copy = "COPY case_03 FROM STDIN";

    let client = pool.get().await.unwrap();
    let mut sink = client.copy_in(copy).await.unwrap();
    sink.send(&b"1\n"[..]).await.unwrap();
    let copied = sink.finish().await.unwrap_err();
    assert_eq!((copied.sqlstate(), copied.effect()), (Some(&SqlState::UNIQUE_VIOLATION), Effect::NotApplied));
    drop(sink);
    assert_eq!(client.query_one("SELECT count(*) FROM case_03", &[]).await.unwrap().get::<_, i64>(0), 1);
    drop(client);

    let committed = pool
        .transaction(|tx| async move {
            let mut sink = tx.copy_in(copy).await?;
            sink.send(&b"1\n"[..]).await?;
            assert_eq!(sink.finish().await?, 1);
            Ok::<_, Error>(())
        })
        .await
        .unwrap_err();
    assert_eq!((committed.sqlstate(), committed.effect()), (Some(&SqlState::UNIQUE_VIOLATION), Effect::NotApplied));

    let bare = super::deadpool::client(Server::shared().await.config(), "case_03").await;
    let mut sink = pin!(bare.copy_in(copy).await.unwrap());
    sink.send(&b"1\n"[..]).await.unwrap();
    let finished = sink.finish().await;
    println!("case 03: failfast: {copied}; deadpool: {}", said(&finished));
    assert!(finished.is_ok());
    assert_eq!(Server::shared().await.scalar("SELECT count(*) FROM case_03").await, "1");
}

/// Makes one insert, and another in a savepoint.
async fn write_twice(pool: &Pool) -> Result<(), Error> {
    let write = |tx: Transaction| async move {
        tx.batch_execute("INSERT INTO case_10 VALUES (0)").await?;
        tx.savepoint(async |tx| tx.batch_execute("INSERT INTO case_10 VALUES (0)").await).await
    };
    pool.transaction(write).await
}

#[tokio::test]
async fn case_10_an_abandoned_transaction_does_not_reach_the_next_caller() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config.clone()).name("case_10").max_size(1).acquire_timeout(LONG).build().unwrap();
    pool.batch_execute("CREATE TABLE case_10 (id int)").await.unwrap();
    proxy.delay(Way::ToClient, Duration::from_millis(4));
    // These take about 24 ms: BEGIN, INSERT, SAVEPOINT, INSERT, RELEASE, COMMIT.
    for round in 1..=20 {
        let _ = timeout(Duration::from_micros(1_300) * round, write_twice(&pool)).await;
        let client = pool.get().await.unwrap();
        let outside = client.batch_execute("SAVEPOINT outside").await.unwrap_err();
        assert_eq!(outside.sqlstate(), Some(&SqlState::NO_ACTIVE_SQL_TRANSACTION), "round {round}: {outside}");
        client.batch_execute("INSERT INTO case_10 VALUES (1)").await.unwrap();
    }
    assert_eq!(server.scalar("SELECT count(*) FROM case_10 WHERE id = 1").await, "20");
    assert_eq!(
        server.scalar("SELECT count(*) % 2 FROM case_10 WHERE id = 0").await,
        "0",
        "a transaction was applied in part"
    );

    let bare = bare(config, "case_01", 1);
    let client = bare.get().await.unwrap();
    assert!(timeout(Duration::from_millis(1), client.batch_execute("BEGIN")).await.is_err());
    drop(client);
    let client = bare.get().await.unwrap();
    let outside = client.batch_execute("SAVEPOINT outside").await;
    println!(
        "case 10: failfast: the next caller is in no transaction; deadpool: SAVEPOINT outside: {}",
        said(&outside)
    );
    assert!(outside.is_ok());
}

#[tokio::test]
async fn a_transaction_commits() {
    let pool = shared("commits").await.acquire_timeout(LONG).build().unwrap();
    pool.batch_execute("CREATE TABLE IF NOT EXISTS commits (id int)").await.unwrap();
    pool.transaction(|tx| async move {
        tx.execute("INSERT INTO commits VALUES (1)", &[]).await?;
        let undone = tx
            .savepoint(|tx| async move {
                tx.execute("INSERT INTO commits VALUES (2)", &[]).await?;
                tx.execute("SELECT 1/0", &[]).await?;
                Ok::<_, Error>(())
            })
            .await;
        assert!(matches!(undone, Err(Error::Postgres { .. })), "{undone:?}");
        tx.execute("INSERT INTO commits VALUES (3)", &[]).await?;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    assert_eq!(Server::shared().await.scalar("SELECT string_agg(id::text, ',' ORDER BY id) FROM commits").await, "1,3");
}

/// Returns the type that code written for deadpool takes.
fn raw(client: &deadpool_postgres::Client) -> &deadpool_postgres::Client {
    client
}
