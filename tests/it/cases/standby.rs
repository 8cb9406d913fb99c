//! Recovery conflicts on a standby: the primary's clean-up ends sessions and statements there.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use failfast::{Client, Effect, Error, IsolationLevel, Pool, Transaction, TransactionOptions};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::LONG;
use super::deadpool::bare;
use crate::support::{eventually, server::Server};

/// In a subtransaction the server cannot end the statement alone.
const READ: &str = "SELECT pg_sleep(600) FROM case_20";
const CONFLICTS: Option<&SqlState> = Some(&SqlState::T_R_SERIALIZATION_FAILURE);

fn pid(client: &Client) -> i32 {
    client.process_id().unwrap()
}

async fn read_in_savepoint(tx: Transaction) -> Result<(), Error> {
    tx.savepoint(async |tx| tx.batch_execute(READ).await).await
}

#[tokio::test]
async fn case_20_a_session_ended_by_a_recovery_conflict_is_replaced() {
    let primary = Server::own(&[]).await;
    primary.execute("CREATE TABLE case_20 (id int); INSERT INTO case_20 VALUES (0)").await;
    let standby = Server::standby(&primary, &[("max_standby_streaming_delay", "0")]).await;
    // Removes rows that the standby's readers may still see.
    let clean_up = async || {
        primary.execute("DELETE FROM case_20").await;
        primary.execute("VACUUM case_20").await;
        primary.execute("INSERT INTO case_20 VALUES (0)").await;
    };
    let has_row = async || standby.scalar("SELECT count(*) FROM case_20").await == "1";
    let sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let get_in_the_way = async || {
        eventually("the standby runs the reader", LONG, async || standby.scalar(sleepers).await == "1").await;
        clean_up().await;
    };
    let pool = Pool::builder(standby.config()).name("case_20").max_size(1).query_timeout(4 * LONG).build().unwrap();

    eventually("the standby has replayed the row", LONG, has_row).await;
    let first = pid(&pool.get().await.unwrap());
    let (read, ()) = tokio::join!(pool.transaction_once(read_in_savepoint), get_in_the_way());
    let read = read.unwrap_err();
    assert_eq!((read.sqlstate(), read.effect()), (CONFLICTS, Effect::NotApplied), "{read}");
    let second = pid(&pool.get().await.unwrap());
    assert_ne!(first, second, "the pool kept the old connection");

    // A session that is idle in its transaction gets the error with its next statement.
    eventually("the standby has replayed the row", LONG, has_row).await;
    let options = TransactionOptions::new().isolation(IsolationLevel::RepeatableRead);
    let tx = pool.get().await.unwrap().transaction_with(options).await.unwrap();
    tx.query("SELECT * FROM case_20", &[]).await.unwrap();
    clean_up().await;
    let is_gone = async || standby.connection_count("case_20").await == 0;
    eventually("the session is gone", LONG, is_gone).await;
    let asked = tx.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((asked.sqlstate(), asked.effect()), (CONFLICTS, Effect::NotApplied), "{asked}");
    drop(tx);
    assert_eq!(pool.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);

    // A transaction that may run again does so on a new connection.
    eventually("the standby has replayed the row", LONG, has_row).await;
    let runs = AtomicU32::new(0);
    let again = pool.transaction(|tx| {
        let is_first = runs.fetch_add(1, SeqCst) == 0;
        async move { if is_first { read_in_savepoint(tx).await } else { tx.batch_execute("SELECT 1").await } }
    });
    let (again, ()) = tokio::join!(again, get_in_the_way());
    again.unwrap();
    assert_eq!(runs.into_inner(), 2);

    eventually("the standby has replayed the row", LONG, has_row).await;
    let bare = bare(standby.config(), "case_20", 1);
    let mut client = bare.get().await.unwrap();
    let bare_read = async {
        let mut tx = client.transaction().await.unwrap();
        tx.transaction().await.unwrap().batch_execute(READ).await.unwrap_err()
    };
    let (bares, ()) = timeout(2 * LONG, async { tokio::join!(bare_read, get_in_the_way()) }).await.unwrap();
    drop(client);
    let next = bare.get().await.unwrap().query("SELECT 1", &[]).await.is_ok();
    println!("case 20: failfast: {read}; deadpool: {bares}, next call served: {next}");
}
