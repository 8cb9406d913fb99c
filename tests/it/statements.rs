//! Prepared statements: which statements a connection prepares, and which it keeps.

mod deallocated;
mod orphans;
mod replaced;

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use failfast::{Client, Pool};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::pool::{LONG, shared};
use crate::support::{
    proxy::{Proxy, Way},
    server::Server,
};

/// Asks by a simple query, which is not prepared itself.
async fn prepared(client: &Client) -> String {
    let names = "SELECT coalesce(string_agg(statement, ',' ORDER BY statement), '') FROM pg_prepared_statements";
    let messages = client.simple_query(names).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap().to_owned()
}

async fn ask(client: &Client, n: i32) {
    let row = client.query_one(&format!("SELECT {n}"), &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), n);
}

#[tokio::test]
async fn the_most_recently_used_statements_stay_prepared() {
    let pool = shared("lru").await.max_size(1).statement_cache(2).build().unwrap();
    let client = pool.get().await.unwrap();
    for n in [1, 2, 1, 3] {
        ask(&client, n).await;
    }
    assert_eq!(prepared(&client).await, "SELECT 1,SELECT 3");
    drop(client);
    let client = pool.get().await.unwrap();
    assert_eq!(prepared(&client).await, "SELECT 1,SELECT 3", "the statements were closed with the lease");
    for n in 4..100 {
        ask(&client, n).await;
    }
    assert_eq!(prepared(&client).await, "SELECT 98,SELECT 99");
}

/// Generated text is long, and different each time.
#[tokio::test]
async fn a_long_statement_is_not_kept() {
    for size in [0, 256] {
        let pool = shared(&format!("long_{size}")).await.max_size(1).statement_cache(size).build().unwrap();
        let client = pool.get().await.unwrap();
        for number in 0..20 {
            let sql = format!("SELECT $1::int + {number} -- {}", "x".repeat(500_000));
            let row = client.query_one(&sql, &[&1]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), 1 + number);
        }
        assert_eq!(prepared(&client).await, "");
        let short = format!("SELECT 1 -- {}", "x".repeat(16_000));
        client.query_one(&short, &[]).await.unwrap();
        assert_eq!(prepared(&client).await == short, size > 0, "a shorter statement is kept");
    }
}

async fn leaves_nothing(client: &Client) {
    for _ in 0..3 {
        ask(client, 1).await;
        let row = client.query_one("SELECT $1::int + 1", &[&1]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 2);
        client.execute("SELECT $1::text", &[&"a"]).await.unwrap();
        assert!(client.query("SELECT", &[]).await.is_ok());
        assert!(client.query("NONSENSE", &[]).await.is_err());
        assert_eq!(prepared(client).await, "");
    }
}

#[tokio::test]
async fn uncached_calls_leave_nothing_prepared() {
    let pool = shared("uncached").await.max_size(1).build().unwrap();
    leaves_nothing(&pool.call().uncached().get().await.unwrap()).await;
    ask(&pool.get().await.unwrap(), 7).await;
    assert_eq!(prepared(&pool.get().await.unwrap()).await, "SELECT 7");
}

#[tokio::test]
async fn without_a_cache_nothing_stays_prepared() {
    let pool = shared("no_cache").await.max_size(1).statement_cache(0).build().unwrap();
    let client = pool.get().await.unwrap();
    leaves_nothing(&client).await;
    let tx = client.transaction().await.unwrap();
    leaves_nothing_in(&tx).await;
    tx.commit().await.unwrap();
}

async fn leaves_nothing_in(client: &Client) {
    let row = client.query_one("SELECT $1::int + 2", &[&1]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 3);
    assert_eq!(prepared(client).await, "");
}

/// The driver learns the types of the parameters in a transaction, which must not stay open.
#[tokio::test]
async fn a_dropped_uncached_call_leaves_no_transaction_open() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE learning (n int)").await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("learning").max_size(1).build().unwrap();
    let client = pool.call().uncached().timeout(LONG).get().await.unwrap();
    proxy.delay(Way::ToClient, Duration::from_millis(4));
    for n in 1..=20 {
        let sql = format!("INSERT INTO learning SELECT {n} WHERE $1::bool");
        let insert = client.execute(&sql, &[&true]);
        let _ = timeout(Duration::from_micros(900) * n, insert).await;
        client.batch_execute(&format!("INSERT INTO learning VALUES ({})", n + 1_000)).await.unwrap();
    }
    drop(client);
    assert_eq!(server.scalar("SELECT count(*) FROM learning WHERE n > 1000").await, "20");
}

/// The driver learns the types of a statement in a transaction that it rolls back. No other statement may be in it.
#[tokio::test]
async fn a_write_beside_a_look_up_of_types_is_not_rolled_back() {
    let server = Server::shared().await;
    server.execute("DROP TABLE IF EXISTS beside; CREATE TABLE beside (n int)").await;
    let pool = shared("beside").await.build().unwrap();
    let client = pool.call().uncached().get().await.unwrap();
    let insert = "INSERT INTO beside VALUES (1)";
    client.execute(insert, &[]).await.unwrap();
    for n in 0..20 {
        let new = format!("SELECT {n}");
        let (asked, inserted) = tokio::join!(biased; client.query(&new, &[]), client.execute(insert, &[]));
        assert_eq!((asked.unwrap().len(), inserted.unwrap()), (1, 1));
        let wrong = format!("SELECT {n} FROM nowhere");
        let (asked, inserted) = tokio::join!(biased; client.query(&wrong, &[]), client.batch_execute(insert));
        asked.unwrap_err();
        inserted.unwrap();
        let new = format!("SELECT {n} + 0");
        let (inserted, asked) = tokio::join!(biased; client.batch_execute(insert), client.query(&new, &[]));
        assert!(inserted.is_ok() && asked.is_ok());
    }
    assert_eq!(server.scalar("SELECT count(*) FROM beside").await, "61");
}

/// A value of an enum, which the driver has to look up in the catalog.
#[derive(Debug)]
struct Calm;

impl ToSql for Calm {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(b"calm");
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Enum(_))
    }

    to_sql_checked!();
}

/// Polls the call at most `polls` times, and returns whether it has ended.
async fn is_over_after<T>(mut polls: u32, mut call: Pin<&mut impl Future<Output = T>>) -> bool {
    poll_fn(|cx| {
        let is_over = call.as_mut().poll(cx).is_ready();
        polls -= 1;
        if is_over || polls == 0 { Poll::Ready(is_over) } else { Poll::Pending }
    })
    .await
}

/// Polls a new statement `moment` times, then inserts beside it. Returns `false` if the statement had already ended.
async fn insert_at(moment: u32, client: &Client) -> bool {
    let insert = "INSERT INTO whenever VALUES ($1)";
    client.execute(insert, &[&0_i64]).await.unwrap();
    let new = format!("SELECT 1 WHERE $1 = 'calm'::mood_{moment}");
    let mut asked = pin!(client.query(&new, &[&Calm]));
    if is_over_after(moment, asked.as_mut()).await {
        return false;
    }
    let params: [&(dyn ToSql + Sync); 1] = [&i64::from(moment)];
    let (inserted, asked) = tokio::join!(biased; client.execute(insert, &params), asked);
    assert_eq!((inserted.unwrap(), asked.unwrap().len()), (1, 1), "at moment {moment}");
    true
}

/// Repeats the test above at each moment. Each answer that the driver waits for is one moment.
#[tokio::test]
async fn a_write_at_any_moment_of_a_look_up_of_types_is_not_rolled_back() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE whenever (moment int8)").await;
    let pool = shared("whenever").await.max_size(1).build().unwrap();
    let mut kept = Vec::new();
    for moment in 1.. {
        server.execute(&format!("CREATE TYPE mood_{moment} AS ENUM ('calm')")).await;
        let client = pool.call().uncached().get().await.unwrap();
        if !insert_at(moment, &client).await {
            assert!(
                moment > 6,
                "fewer moments than BEGIN, Parse, two type queries, ROLLBACK and the statement: {moment}"
            );
            break;
        }
        client.discard(); // a new connection has to look up all types
        kept.push(moment.to_string());
    }
    let inserted = "SELECT string_agg(moment::text, ',' ORDER BY moment) FROM whenever WHERE moment > 0";
    assert_eq!(server.scalar(inserted).await, kept.join(","));
}

/// The pool does not see statements that use the connection through the deref.
#[tokio::test]
async fn an_untracked_write_beside_a_look_up_of_types_is_not_rolled_back() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE untracked_beside (n int)").await;
    let pool = shared("untracked_beside").await.build().unwrap();
    let client = pool.call().uncached().get().await.unwrap();
    let raw: &deadpool_postgres::Client = &client;
    for n in 0..3 {
        let new = format!("SELECT {n}");
        let insert = "INSERT INTO untracked_beside VALUES (1)";
        let (asked, inserted) = tokio::join!(biased; client.query(&new, &[]), raw.batch_execute(insert));
        assert!(asked.is_ok() && inserted.is_ok());
    }
    assert_eq!(server.scalar("SELECT count(*) FROM untracked_beside").await, "3");
}

/// Several threads share one lease. Each acknowledged write is applied, whatever call is dropped at whatever moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_statement_dropped_during_a_look_up_of_types_undoes_no_write() {
    const LASTS: Duration = Duration::from_secs(2);
    let server = Server::shared().await;
    server.execute("CREATE TABLE shared_lease (n int)").await;
    let pool = shared("shared_lease").await.max_size(1).build().unwrap();
    let client = Arc::new(pool.call().uncached().get().await.unwrap());
    let (begun, pause) = (Instant::now(), || Duration::from_micros(fastrand::u64(..3_000)));
    let write = |client: Arc<Client>| async move {
        let mut written = 0;
        while begun.elapsed() < LASTS {
            client.batch_execute("INSERT INTO shared_lease VALUES (1)").await.unwrap();
            written += 1;
            sleep(pause()).await;
        }
        written
    };
    let writers = [0, 1].map(|_| tokio::spawn(write(Arc::clone(&client))));
    let mut asked = 0;
    while begun.elapsed() < LASTS {
        asked += 1;
        let _ = timeout(pause(), client.query(&format!("SELECT {asked}"), &[])).await;
    }
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    drop(client);
    println!("shared lease: {written} writes beside {asked} statements");
    assert_eq!(server.scalar("SELECT count(*) FROM shared_lease").await, written.to_string());
}
