//! A real PgBouncer in transaction mode between the pool and the server. Each transaction may run on another server
//! connection.

use std::pin::pin;
use std::time::Duration;

use failfast::{Error, Pool};
use futures_util::future::{Either, join_all, select};
use tokio::time::timeout;

use super::LONG;
use super::deadpool::{Outcome, bare, call_within};
use crate::support::{eventually, pgbouncer::PgBouncer, server::Server};

const CALLERS: i32 = 8;
const ROUNDS: i32 = 25;
const ZONE: &str = "SELECT current_setting('TimeZone')";

async fn start(prepared: u32) -> Option<PgBouncer> {
    let prepared = format!("max_prepared_statements = {prepared}");
    let started = PgBouncer::start(Server::shared().await, &[&prepared]).await;
    if started.is_none() {
        println!("case 25: no PgBouncer here; scripts/postgres-image makes an image that has it");
    }
    started
}

/// Each client has its own time zone. PgBouncer keeps them apart, because the server reports their changes.
async fn pool(bouncer: &PgBouncer, name: &str, statements: usize, zone: &'static str) -> Pool {
    let config = Server::shared().await.config_at(bouncer.addr());
    Pool::builder(config)
        .name(name)
        .acquire_timeout(LONG)
        .max_size(CALLERS as usize)
        .statement_cache(statements)
        .after_connect(move |client| {
            Box::pin(async move { client.batch_execute(&format!("SET TIME ZONE '{zone}'")).await })
        })
        .build()
        .unwrap()
}

/// Runs one-shots, streams and transactions on eight connections to PgBouncer, which has two to the server.
async fn work(pool: &Pool, table: &str, first: i32, zone: &str) -> Result<(), Error> {
    let working = (0..CALLERS).map(|caller| async move {
        for n in 0..ROUNDS {
            let id = first + caller * ROUNDS + n;
            let sum = pool.query_one("SELECT $1::int4 + $2::int4", &[&id, &1]).await?;
            assert_eq!(sum.get::<_, i32>(0), id + 1);
            pool.execute(&format!("INSERT INTO {table} VALUES ($1)"), &[&id]).await?;
            let statement = format!("UPDATE {table} SET id = id + $1 WHERE id = $2");
            let moved = pool.transaction(|tx| {
                let statement = statement.clone();
                async move {
                    tx.batch_execute("SET LOCAL work_mem = '1MB'").await?;
                    tx.execute(&statement, &[&10_000, &id]).await
                }
            });
            assert_eq!(moved.await?, 1);
            let different = format!("SELECT {} + $1::int4", n % 5);
            assert_eq!(pool.query_one(&different, &[&1]).await?.get::<_, i32>(0), n % 5 + 1);
            assert_eq!(pool.query_one(ZONE, &[]).await?.get::<_, &str>(0), zone);
            let memory = pool.query_one("SELECT current_setting('work_mem')", &[]).await?;
            assert_eq!(memory.get::<_, &str>(0), "4MB", "SET LOCAL outlived its transaction");
        }
        Ok(())
    });
    join_all(working).await.into_iter().collect()
}

/// The pool also cleans up through PgBouncer.
async fn leave_things_behind(pool: &Pool, table: &str, zone: &str) {
    let client = pool.get().await.unwrap();
    client.batch_execute(&format!("BEGIN; INSERT INTO {table} VALUES (-1)")).await.unwrap();
    drop(client);
    let prepared = pool.transaction(|tx| async move {
        let statement = tx.prepare("SELECT 7").await?;
        tx.query_one(&statement, &[]).await
    });
    assert_eq!(prepared.await.unwrap().get::<_, i32>(0), 7);
    pool.batch_execute("SET TIME ZONE 'Africa/Cairo'").await.unwrap();
    let server = Server::shared().await;
    let sleep = format!("SELECT pg_sleep(60) AS {table}");
    let is_running = async || {
        let like = format!("query LIKE '%pg_sleep(60) AS {table}' AND state = 'active'");
        server.scalar(&format!("SELECT count(*) FROM pg_stat_activity WHERE {like}")).await == "1"
    };
    {
        let dropped = pin!(pool.query(&sleep, &[]));
        match select(dropped, pin!(eventually("the statement runs", LONG, is_running))).await {
            Either::Left((ended, _)) => panic!("{ended:?}"),
            Either::Right(_) => {}
        }
    }
    eventually("it is cancelled through PgBouncer", LONG, async || !is_running().await).await;
    let late = pool.call().timeout(Duration::from_millis(100)).query(&sleep, &[]).await;
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    eventually("it is cancelled through PgBouncer", LONG, async || !is_running().await).await;
    let name = pool.status().name;
    for client in join_all((0..CALLERS).map(|_| pool.get())).await {
        let client = client.unwrap();
        assert_eq!(client.query_one(ZONE, &[]).await.unwrap().get::<_, &str>(0), zone);
        let kept = client.query_one("SELECT current_setting('application_name')", &[]).await.unwrap();
        assert_eq!(kept.get::<_, &str>(0), &*name, "a reset changed the application name");
    }
    assert_eq!(server.scalar(&format!("SELECT count(*) FROM {table} WHERE id < 0")).await, "0");
}

async fn run(table: &str, prepared: u32, statements: usize) {
    let Some(bouncer) = start(prepared).await else { return };
    let server = Server::shared().await;
    server.execute(&format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int)")).await;
    let tokyo = pool(&bouncer, &format!("{table}_tokyo"), statements, "Asia/Tokyo").await;
    let lima = pool(&bouncer, &format!("{table}_lima"), statements, "America/Lima").await;
    let (one, other) = tokio::join!(work(&tokyo, table, 0, "Asia/Tokyo"), work(&lima, table, 1_000, "America/Lima"));
    one.unwrap();
    other.unwrap();
    let count = format!("SELECT count(*) FROM {table} WHERE id >= 10000");
    assert_eq!(server.scalar(&count).await, (2 * CALLERS * ROUNDS).to_string());
    leave_things_behind(&tokyo, table, "Asia/Tokyo").await;

    let deadpool = bare(server.config_at(bouncer.addr()), table, CALLERS as usize);
    let theirs = join_all((0..CALLERS).map(|n| {
        let deadpool = &deadpool;
        async move {
            let mut outcomes = Vec::new();
            for round in 0..ROUNDS {
                outcomes.push(call_within(LONG, deadpool, &format!("SELECT {n} + {}", round % 5)).await);
            }
            outcomes
        }
    }));
    let theirs = timeout(LONG, theirs).await.unwrap();
    let failed: Vec<_> = theirs.iter().flatten().filter(|outcome| **outcome != Outcome::Done).collect();
    let example = failed.first().map(ToString::to_string).unwrap_or_default();
    println!(
        "case 25, max_prepared_statements = {prepared}: failfast 0 of {} failed; deadpool: {} of {} failed {example}",
        2 * CALLERS * ROUNDS * 6,
        failed.len(),
        CALLERS * ROUNDS,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn case_25_pgbouncer_that_tracks_prepared_statements() {
    run("case_25_tracked", 100, 256).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_25_pgbouncer_that_does_not_track_prepared_statements() {
    run("case_25_untracked", 0, 0).await;
}
