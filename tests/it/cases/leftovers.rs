//! What a caller leaves behind never reaches the next one.

use std::time::{Duration, Instant};

use failfast::Error;

use super::deadpool::{Outcome, bare, call, call_within, said};
use super::{LONG, shared};
use crate::support::{eventually, server::Server};

const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name = ";

async fn running(name: &str) -> String {
    Server::shared().await.scalar(&format!("{RUNNING}'{name}'")).await
}

#[tokio::test]
async fn case_06_a_dropped_future_delays_no_caller() {
    let pool = shared("case_06").await.max_size(1).build().unwrap();
    for way in 0..3 {
        let client = pool.get_timeout(LONG).await.unwrap();
        match way {
            0 => given_up(client.query("SELECT pg_sleep(60)", &[]), "case_06").await,
            1 => given_up((*client).query("SELECT pg_sleep(60)", &[]), "case_06").await,
            _ => given_up(client.batch_execute("SELECT pg_sleep(60)"), "case_06").await,
        }
        drop(client);
        let asked = Instant::now();
        let row = pool.call().deadline(LONG).query_one("SELECT 7", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 7);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        eventually("the statement is gone", LONG, async || running("case_06").await == "0").await;
    }

    let deadpool = bare(Server::shared().await.config(), "case_06", 1);
    let client = deadpool.get().await.unwrap();
    given_up(client.query("SELECT pg_sleep(60)", &[]), "case_06_deadpool").await;
    drop(client);
    let outcome = call(&deadpool, "SELECT 7").await;
    println!("case 06: failfast serves the next borrower; deadpool: {outcome}");
    assert_eq!(outcome, Outcome::Hangs);
    terminate("case_06_deadpool").await;
}

/// Drops the future once its statement runs. `name` is the caller's application name.
async fn given_up(statement: impl Future, name: &str) {
    tokio::select! {
        _ = statement => panic!("{name}: the statement ended"),
        () = eventually("the statement runs", LONG, async || running(name).await == "1") => {}
    }
}

async fn terminate(name: &str) {
    let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";
    Server::shared().await.execute(&format!("{all}'{name}'")).await;
}

#[tokio::test]
async fn case_07_timed_out_query_is_gone_from_the_server() {
    const LOCKED: &str = "SELECT count(*) FROM pg_locks WHERE relation = 'case_07'::regclass";
    const SLOW: &str = "INSERT INTO case_07 SELECT 1 FROM pg_sleep(60)";
    let server = Server::shared().await;
    server.execute("CREATE TABLE IF NOT EXISTS case_07 (id int)").await;
    let pool = shared("case_07").await.max_size(1).build().unwrap();
    let first = pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let late = pool.call().timeout(Duration::from_millis(100)).execute(SLOW, &[]).await;
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    eventually("the statement is gone", Duration::from_secs(2), async || running("case_07").await == "0").await;
    assert_eq!(server.scalar(LOCKED).await, "0");
    let again = pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    assert_eq!(first, again, "the pool closed the connection instead of settling it");

    let deadpool = bare(server.config(), "case_07", 1);
    given_up(call_within(LONG, &deadpool, SLOW), "case_07_deadpool").await;
    let (running, locked) = (running("case_07_deadpool").await, server.scalar(LOCKED).await);
    println!("case 07: failfast 0 running, 0 locks; deadpool: {running} running, {locked} locks");
    terminate("case_07_deadpool").await;
}

#[tokio::test]
async fn case_09_a_transaction_left_open_is_rolled_back() {
    let pool = shared("case_09").await.max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE IF NOT EXISTS case_09 (id int)").await.unwrap();
    let client = pool.get().await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO case_09 VALUES (1)").await.unwrap();
    drop(client);
    assert_eq!(pool.execute("INSERT INTO case_09 VALUES (2)", &[]).await.unwrap(), 1);
    assert_eq!(Server::shared().await.scalar("SELECT string_agg(id::text, ',') FROM case_09").await, "2");

    let bare = bare(Server::shared().await.config(), "case_09", 1);
    let client = bare.get().await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO case_09 VALUES (3)").await.unwrap();
    drop(client);
    let written = bare.get().await.unwrap().execute("INSERT INTO case_09 VALUES (4)", &[]).await;
    drop(bare);
    let there = Server::shared().await.scalar("SELECT count(*) FROM case_09 WHERE id = 4").await;
    println!("case 09: failfast: committed; deadpool: {}, then {there} rows", said(&written));
    assert_eq!((written.unwrap(), there.as_str()), (1, "0"));
}
