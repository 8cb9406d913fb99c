//! A caller drops a call while the driver prepares its statement. The server must not keep that statement.

use std::pin::pin;
use std::time::Duration;

use failfast::{Client, Pool, PoolBuilder};
use tokio::time::timeout;

use super::{Calm, is_over_after};
use crate::pool::LONG;
use crate::support::{
    pgbouncer::PgBouncer,
    proxy::{Proxy, Way},
    server::Server,
};

/// By this time the server has the request of a call.
const MEANWHILE: Duration = Duration::from_millis(20);
/// How late answers are, in calls that make several requests.
const DELAY: Duration = Duration::from_millis(60);

/// Statements with `orphan` in their text, and any that exist twice. The driver keeps its look-ups of types once.
const ODD: &str = "SELECT coalesce(string_agg(statement, '; '), '') FROM (
    SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%orphan%'
    UNION ALL SELECT statement FROM pg_prepared_statements GROUP BY statement HAVING count(*) > 1) odd";

/// Texts that the server has prepared more than once.
const TWICE: &str = "SELECT coalesce(string_agg(statement, '; '), '') FROM (
    SELECT statement FROM pg_prepared_statements GROUP BY statement HAVING count(*) > 1) twice";

async fn text(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap().to_owned()
}

async fn builder(name: &str) -> (PoolBuilder, Proxy) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name(name).max_size(1).acquire_timeout(LONG);
    (builder, proxy)
}

/// The odd statements after the connection was settled.
async fn left(pool: &Pool) -> String {
    text(&pool.get().await.unwrap(), ODD).await
}

#[derive(Debug, Clone, Copy)]
enum How {
    Query,
    Prepare,
    PrepareCached,
    Deref,
}

/// Drops a call before the driver has an answer.
async fn abandon(client: &Client, proxy: &Proxy, how: How, sql: &str) {
    let call = async {
        match how {
            How::Query => drop(client.query(sql, &[&1]).await),
            How::Prepare => drop(client.prepare(sql).await),
            How::PrepareCached => drop(client.prepare_cached(sql).await),
            How::Deref => drop((**client).prepare(sql).await),
        }
    };
    proxy.stall_way(Way::ToClient);
    assert!(timeout(MEANWHILE, call).await.is_err(), "an answer passed the stalled proxy");
    proxy.resume();
}

/// Drops a call without a cache after the answer to its BEGIN, while the driver prepares the statement.
async fn abandon_uncached(client: &Client, proxy: &Proxy, sql: &str) {
    proxy.delay(Way::ToClient, DELAY);
    let _ = timeout(DELAY + MEANWHILE, client.query(sql, &[&1])).await;
    proxy.pass();
}

#[tokio::test]
async fn a_dropped_call_leaves_no_statement() {
    for (size, name) in [(256, "orphans"), (0, "orphans_uncached")] {
        let (builder, proxy) = builder(name).await;
        let pool = builder.statement_cache(size).build().unwrap();
        let mut pid = None;
        for how in [How::Query, How::Prepare, How::PrepareCached, How::Deref] {
            let client = pool.get().await.unwrap();
            pid = pid.or(client.process_id());
            let sql = format!("SELECT $1::int4 -- orphan {how:?}");
            match (size, how) {
                (0, How::Query) => abandon_uncached(&client, &proxy, &sql).await,
                _ => abandon(&client, &proxy, how, &sql).await,
            }
            drop(client);
            assert_eq!(left(&pool).await, "", "{size}, {how:?}");
        }
        assert_eq!(pool.get().await.unwrap().process_id(), pid, "the pool closed the connection");
    }
}

/// The lease goes on, so the end of the lease finds nothing under way.
#[tokio::test]
async fn a_call_dropped_earlier_in_the_lease_leaves_no_statement() {
    let (builder, proxy) = builder("orphans_earlier").await;
    let pool = builder.build().unwrap();
    for is_in_transaction in [false, true] {
        let client = pool.get().await.unwrap();
        if is_in_transaction {
            client.batch_execute("BEGIN").await.unwrap();
        }
        for how in [How::Query, How::Prepare] {
            abandon(&client, &proxy, how, &format!("SELECT $1::int4 -- orphan {how:?}")).await;
            // A late cancel may hit a statement of the open transaction, which then fails.
            let next = client.query_one("SELECT $1::int4", &[&1]).await;
            assert!(next.is_ok() || is_in_transaction, "{next:?}");
        }
        drop(client);
        assert_eq!(left(&pool).await, "", "{is_in_transaction}");
    }
}

#[tokio::test]
async fn a_call_that_is_late_leaves_no_statement() {
    let (builder, proxy) = builder("orphans_late").await;
    let pool = builder.build().unwrap();
    pool.query_one("SELECT $1::int4", &[&1]).await.unwrap();
    for number in 0..5 {
        proxy.stall_way(Way::ToClient);
        let late = pool.call().timeout(MEANWHILE).query(&format!("SELECT 1 -- orphan {number}"), &[]).await;
        assert!(late.is_err());
        proxy.resume();
        assert_eq!(left(&pool).await, "");
    }
    let warm = "SELECT string_agg(statement, ',') FROM pg_prepared_statements";
    assert_eq!(text(&pool.get().await.unwrap(), warm).await, "SELECT $1::int4", "what has run stays prepared");
}

/// Each answer that the driver waits for is one moment: it also prepares its look-ups of types.
#[tokio::test]
async fn a_call_dropped_at_any_moment_leaves_no_statement() {
    let server = Server::shared().await;
    for size in [256, 0] {
        let (builder, _proxy) = builder(&format!("orphans_at_{size}")).await;
        let pool = builder.statement_cache(size).build().unwrap();
        let mut moments = 0;
        for moment in 1.. {
            server.execute(&format!("CREATE TYPE orphan_{size}_{moment} AS ENUM ('calm')")).await;
            pool.get().await.unwrap().discard(); // a new connection has to look up all types
            let client = pool.get().await.unwrap();
            let sql = format!("SELECT 1 WHERE $1 = 'calm'::orphan_{size}_{moment}");
            let is_over = {
                let mut asked = pin!(client.query(&sql, &[&Calm]));
                is_over_after(moment, asked.as_mut()).await
            };
            drop(client);
            if is_over {
                break;
            }
            let next = pool.get().await.unwrap();
            if size > 0 {
                // The cache may have the statement by now. If it does not, the server has none.
                next.query(&sql, &[&Calm]).await.unwrap();
            }
            let odd = if size > 0 { TWICE } else { ODD };
            assert_eq!(text(&next, odd).await, "", "cache of {size}, moment {moment}");
            moments = moment;
        }
        assert!(moments > 5, "fewer moments than Parse, two look-ups of types and the statement: {moments}");
    }
}

/// A statement that was prepared and never run looks like an orphan. The cache forgets it with the orphans.
#[tokio::test]
async fn a_statement_that_has_not_run_is_prepared_again() {
    let (builder, proxy) = builder("orphans_unused").await;
    let pool = builder.build().unwrap();
    let client = pool.get().await.unwrap();
    client.prepare_cached("SELECT 42").await.unwrap();
    let raw: &deadpool_postgres::Client = &client;
    raw.prepare_cached("SELECT 43").await.unwrap();
    drop(client);
    let count = "SELECT count(*) FROM pg_prepared_statements WHERE statement IN ('SELECT 42', 'SELECT 43')";
    assert_eq!(text(&pool.get().await.unwrap(), count).await, "2", "no call was abandoned");
    let client = pool.get().await.unwrap();
    abandon(&client, &proxy, How::Query, "SELECT $1::int4 -- orphan").await;
    drop(client);
    assert_eq!(left(&pool).await, "");
    let run = pool.transaction_once(async |tx| tx.query_one("SELECT 42", &[]).await);
    assert_eq!(run.await.unwrap().get::<_, i32>(0), 42);
    let client = pool.get().await.unwrap();
    let statement = (*client).prepare_cached("SELECT 43").await.unwrap();
    assert_eq!((*client).query_one(&statement, &[]).await.unwrap().get::<_, i32>(0), 43);
}

/// Its owner has not run it yet when a call of another lease is abandoned.
#[tokio::test]
async fn a_statement_of_an_earlier_lease_stays() {
    let (builder, proxy) = builder("orphans_kept").await;
    let pool = builder.build().unwrap();
    let client = pool.get().await.unwrap();
    let tracked = client.prepare("SELECT 44").await.unwrap();
    drop(client);
    let client = pool.get().await.unwrap();
    let raw: &deadpool_postgres::Client = &client;
    let untracked = raw.prepare("SELECT 45").await.unwrap();
    drop(client);
    let client = pool.get().await.unwrap();
    abandon(&client, &proxy, How::Query, "SELECT $1::int4 -- orphan").await;
    drop(client);
    assert_eq!(left(&pool).await, "");
    let client = pool.get().await.unwrap();
    assert_eq!(client.query_one(&tracked, &[]).await.unwrap().get::<_, i32>(0), 44);
    assert_eq!(client.query_one(&untracked, &[]).await.unwrap().get::<_, i32>(0), 45);
}

/// Statements that the server refuses were never prepared. They cost nothing at the end of the lease.
#[tokio::test]
async fn a_refused_statement_needs_no_clean_up() {
    let (builder, proxy) = builder("orphans_refused").await;
    let pool = builder.build().unwrap();
    let client = pool.get().await.unwrap();
    for number in 0..300 {
        client.query(&format!("SELECT nothing_{number}"), &[]).await.unwrap_err();
    }
    client.query_one("SELECT 1", &[]).await.unwrap();
    let sent = proxy.bytes(Way::ToServer);
    drop(client);
    assert_eq!((pool.status().idle, pool.status().settling), (1, 0), "not at once");
    assert_eq!(proxy.bytes(Way::ToServer), sent);
}

/// PgBouncer shares its connections to the server among all clients.
#[tokio::test]
async fn a_dropped_call_leaves_no_statement_behind_pgbouncer() {
    let server = Server::shared().await;
    for (prepared, size) in [(0, 0), (100, 256)] {
        let Some(bouncer) = PgBouncer::start(server, &[&format!("max_prepared_statements = {prepared}")]).await else {
            println!("no PgBouncer here; scripts/postgres-image makes an image that has it");
            return;
        };
        let proxy = Proxy::start(bouncer.addr()).await;
        let builder = Pool::builder(server.config_at(proxy.addr())).name("orphans_bouncer").max_size(2);
        let pool = builder.acquire_timeout(LONG).statement_cache(size).build().unwrap();
        for number in 0..10 {
            let client = pool.get().await.unwrap();
            let sql = format!("SELECT $1::int4 -- orphan {number}");
            if size == 0 {
                abandon_uncached(&client, &proxy, &sql).await;
            } else {
                abandon(&client, &proxy, How::Query, &sql).await;
            }
            drop(client);
            // Two transactions at the same time use both connections to the server.
            let clients = [pool.get().await.unwrap(), pool.get().await.unwrap()];
            let mut looks = Vec::new();
            for client in &clients {
                client.batch_execute("BEGIN").await.unwrap();
            }
            for client in &clients {
                looks.push(text(client, ODD).await);
                client.batch_execute("COMMIT").await.unwrap();
            }
            drop(clients);
            if prepared == 0 {
                assert_eq!(looks, ["", ""], "{number}");
            }
            pool.query_one("SELECT $1::int4 + 1", &[&number]).await.unwrap();
        }
    }
}
