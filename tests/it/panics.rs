//! Panics of a caller's code: the connection that it had harms no other caller.
//!
//! A value may panic while the driver encodes it. The driver keeps what it has encoded until then, and would send it
//! with the next message on the connection.

use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;

use bytes::{BufMut, BytesMut};
use failfast::{Client, Error, Pool};
use futures_util::{FutureExt, StreamExt};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::pool::{LONG, shared};

const SQL: &str = "SELECT $1::text";

/// A value that panics after some of its bytes.
#[derive(Debug, Clone, Copy)]
struct Panics;

impl ToSql for Panics {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.put_slice(b"some");
        panic!("a value panics")
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

async fn one(name: &str) -> Pool {
    shared(name).await.max_size(1).acquire_timeout(LONG).build().unwrap()
}

async fn process(pool: &Pool) -> i32 {
    pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Each of many calls succeeds.
async fn serves(pool: &Pool, after: &str) {
    for n in 0..20 {
        let row = pool.query_one("SELECT $1::int", &[&n]).await;
        let row = row.unwrap_or_else(|error| panic!("after {after}, call {n}: {error}"));
        assert_eq!(row.get::<_, i32>(0), n, "after {after}");
    }
    assert_eq!(pool.breaker().snapshot().counts.failures, 0, "after {after}");
}

/// Runs `work`, which panics. Afterwards the pool serves.
async fn serves_after(name: &str, work: impl AsyncFnOnce(&Pool)) {
    let pool = one(&format!("panics_{name}")).await;
    pool.execute(SQL, &[&"learned"]).await.unwrap();
    assert!(AssertUnwindSafe(work(&pool)).catch_unwind().await.is_err(), "{name}");
    serves(&pool, name).await;
}

#[tokio::test]
async fn a_value_that_panics_in_a_tracked_call_harms_no_other_caller() {
    serves_after("execute", async |pool| _ = pool.execute(SQL, &[&Panics]).await).await;
    serves_after("uncached", async |pool| _ = pool.call().uncached().execute(SQL, &[&Panics]).await).await;
    serves_after("raw", async |pool| _ = pool.query_raw(SQL, [Panics]).await).await;
    serves_after("typed", async |pool| {
        let client = pool.get().await.unwrap();
        let _ = client.query_typed(SQL, &[(&Panics, Type::TEXT)]).await;
    })
    .await;
    serves_after("many", async |pool| {
        let rows =
            (0..10).map(|n| [if n < 5 { Box::new("x") as Box<dyn ToSql + Sync + Send> } else { Box::new(Panics) }]);
        let _ = pool.execute_many(SQL, rows).await;
    })
    .await;
    serves_after("transaction", async |pool| {
        let work = async |tx: failfast::Transaction| {
            tx.execute(SQL, &[&"x"]).await?;
            tx.execute(SQL, &[&Panics]).await?;
            Ok::<_, Error>(())
        };
        let _ = pool.transaction(work).await;
    })
    .await;
}

/// The guard outlives the panic.
#[tokio::test]
async fn a_panic_of_a_value_that_the_caller_catches_harms_no_other_caller() {
    let caught = async |name: &str, work: &dyn for<'a> Fn(&'a Client) -> futures_util::future::BoxFuture<'a, ()>| {
        let pool = one(&format!("caught_{name}")).await;
        let client = pool.get().await.unwrap();
        assert!(AssertUnwindSafe(work(&client)).catch_unwind().await.is_err(), "{name}");
        drop(client);
        serves(&pool, name).await;
    };
    caught("tracked", &|client| async { _ = client.execute(SQL, &[&Panics]).await }.boxed()).await;
    caught("deref", &|client| async { _ = (**client).execute(SQL, &[&Panics]).await }.boxed()).await;
    caught("deref_cached", &|client| {
        async {
            let statement = (**client).prepare_cached(SQL).await.unwrap();
            let _ = (**client).execute(&statement, &[&Panics]).await;
        }
        .boxed()
    })
    .await;
}

#[tokio::test]
async fn a_value_that_panics_through_the_deref_harms_no_other_caller() {
    // The driver closes the statement while the panic unwinds, and so sends what it has encoded.
    serves_after("deref", async |pool| {
        let client = pool.get().await.unwrap();
        let _ = (**client).execute(SQL, &[&Panics]).await;
    })
    .await;
    serves_after("deref_cached", async |pool| {
        let client = pool.get().await.unwrap();
        let statement = (**client).prepare_cached(SQL).await.unwrap();
        let _ = (**client).execute(&statement, &[&Panics]).await;
    })
    .await;
    serves_after("deref_transaction", async |pool| {
        let work = async |tx: failfast::Transaction| {
            let _ = (***tx).execute(SQL, &[&Panics]).await;
            Ok::<_, Error>(())
        };
        let _ = pool.transaction(work).await;
    })
    .await;
}

/// The driver was encoding nothing.
#[tokio::test]
async fn a_reader_that_panics_costs_no_connection() {
    let pool = one("panics_reader").await;
    let before = process(&pool).await;
    for _ in 0..3 {
        let read = async {
            let mut rows = pool.query_stream("SELECT generate_series(1, 100)", &[]).await.unwrap();
            let row = rows.next().await.unwrap().unwrap();
            row.get::<_, String>(0)
        };
        assert!(AssertUnwindSafe(read).catch_unwind().await.is_err());
        let statement = async {
            let client = pool.get().await.unwrap();
            client.query_one("SELECT 1", &[]).await.unwrap().get::<_, String>(0)
        };
        assert!(AssertUnwindSafe(statement).catch_unwind().await.is_err());
    }
    assert_eq!(process(&pool).await, before);
}
