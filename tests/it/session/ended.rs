//! The server ends sessions by its own timeouts. The caller learns the reason, and the pool goes on.

use std::time::{Duration, Instant};

use failfast::breaker::State;
use failfast::{Client, Effect, Error, Pool};
use tokio_postgres::error::SqlState;

use super::LONG;
use crate::support::{eventually, server::Server};

/// A pool whose sessions begin with this option.
async fn pool(name: &str, option: &str) -> Pool {
    let mut config = Server::shared().await.config();
    config.options(format!("-c {option}"));
    Pool::builder(config).name(name).max_size(2).build().unwrap()
}

async fn goes_on(pool: &Pool) {
    for _ in 0..4 {
        pool.query_one("SELECT 1", &[]).await.unwrap();
    }
    assert_eq!(pool.breaker().state(), State::Closed);
}

async fn is_ended(client: &Client) {
    eventually("the server ends the session", LONG, async || client.is_closed()).await;
}

/// The reason, and that nothing was applied.
fn assert_ended(error: &Error, state: &SqlState) {
    assert_eq!((error.sqlstate(), error.effect()), (Some(state), Effect::NotApplied), "{error:?}");
}

#[tokio::test]
async fn idle_session_timeout_of_a_lease_names_itself_and_reaches_no_other_caller() {
    let pool = pool("ended_idle", "idle_session_timeout=2000").await;
    let held = pool.get_timeout(LONG).await.unwrap();
    is_ended(&held).await;
    let error = held.query("SELECT 1", &[]).await.unwrap_err();
    assert_ended(&error, &SqlState::IDLE_SESSION_TIMEOUT);
    drop(held);
    goes_on(&pool).await;
    eventually("the server ends the idle connections", LONG, async || pool.status().idle == 0).await;
    goes_on(&pool).await;
}

#[tokio::test]
async fn idle_in_transaction_session_timeout_rolls_back_and_names_itself() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE ended_in_transaction (id int)").await;
    let pool = pool("ended_in_transaction", "idle_in_transaction_session_timeout=2000").await;
    let insert = "INSERT INTO ended_in_transaction VALUES (1)";

    let client = pool.get_timeout(LONG).await.unwrap();
    client.batch_execute(&format!("BEGIN; {insert}")).await.unwrap();
    is_ended(&client).await;
    assert_ended(&client.query("SELECT 1", &[]).await.unwrap_err(), &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT);
    drop(client);

    let client = pool.get_timeout(LONG).await.unwrap();
    let pid = client.process_id().unwrap();
    let tx = client.transaction().await.unwrap();
    tx.execute(insert, &[]).await.unwrap();
    let is_there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    eventually("the server ends the session", LONG, async || server.scalar(&is_there).await == "0").await;
    let error = tx.commit().await.unwrap_err();
    assert_ended(&error, &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT);

    goes_on(&pool).await;
    assert_eq!(server.scalar("SELECT count(*) FROM ended_in_transaction").await, "0");
}

#[tokio::test]
async fn transaction_timeout_ends_a_statement_and_names_itself() {
    let server = Server::shared().await;
    if server.scalar("SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'").await == "0" {
        return; // before version 17
    }
    let pool = pool("ended_transaction", "transaction_timeout=2000").await;
    let state = SqlState::from_code("25P04");
    let begun = Instant::now();
    let in_transaction = pool.transaction(|tx| async move { tx.query("SELECT pg_sleep(60)", &[]).await });
    let error = in_transaction.await.unwrap_err();
    assert_ended(&error, &state);
    let error = pool.query("SELECT pg_sleep(60)", &[]).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.effect()), (Some(&state), Effect::Unknown), "{error:?}");
    assert!(begun.elapsed() < LONG / 2 && begun.elapsed() > Duration::from_secs(4));
    goes_on(&pool).await;
}
