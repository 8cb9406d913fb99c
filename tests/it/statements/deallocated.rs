//! A caller drops all prepared statements of its session, those of the pool and of the driver among them.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bytes::BytesMut;
use failfast::{Client, Error, Pool, Transaction};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::pool::{LONG, shared};
use crate::support::{pgbouncer::PgBouncer, server::Server};

/// Requests after which the server has dropped all statements. Their answers show it, even if the request failed.
const SEEN: [&str; 7] = [
    "DEALLOCATE ALL",
    "deallocate prepare all",
    "DISCARD ALL",
    "SELECT 1; DEALLOCATE ALL; SELECT 2",
    "BEGIN; DEALLOCATE ALL; ROLLBACK",
    "DEALLOCATE ALL; SELECT 1/0",
    "PREPARE mine AS SELECT 1; DEALLOCATE ALL; EXECUTE mine",
];

/// Requests whose answers do not show it.
const UNSEEN: [&str; 3] =
    ["DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$", "SELECT deallocate_all()", "CALL deallocate_everything()"];

/// More statements than a transaction has attempts.
const STATEMENTS: i32 = 5;

async fn define() {
    let functions = "
        CREATE OR REPLACE FUNCTION deallocate_all() RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$;
        CREATE OR REPLACE PROCEDURE deallocate_everything() LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
    static ONCE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    ONCE.get_or_init(async || Server::shared().await.execute(functions).await).await;
}

async fn pool(name: &str) -> Pool {
    define().await;
    shared(name).await.max_size(1).acquire_timeout(LONG).build().unwrap()
}

async fn all(client: &Client) -> Result<(), Error> {
    for n in 0..STATEMENTS {
        let row = client.query_one(&format!("SELECT {n} + $1::int4"), &[&1]).await?;
        assert_eq!(row.get::<_, i32>(0), n + 1);
    }
    Ok(())
}

/// A transaction does not prepare a lost statement again. So this fails at the first one that the pool still believes
/// in.
async fn all_in_one_attempt(pool: &Pool) {
    pool.transaction_once(async |tx| all(&tx).await).await.unwrap();
}

async fn pid(pool: &Pool) -> Option<i32> {
    pool.get().await.unwrap().process_id()
}

#[tokio::test]
async fn statements_that_a_caller_has_dropped_are_prepared_again() {
    let pool = pool("deallocated").await;
    let first = pid(&pool).await;
    for request in SEEN {
        for is_tracked in [true, false] {
            all_in_one_attempt(&pool).await;
            let client = pool.get().await.unwrap();
            if is_tracked {
                let _ = client.batch_execute(request).await;
                all(&client).await.unwrap();
                let _ = client.batch_execute(request).await;
            } else {
                let _ = (*client).batch_execute(request).await;
            }
            drop(client);
            all_in_one_attempt(&pool).await;
        }
    }
    assert_eq!(pid(&pool).await, first, "the pool closed the connection");
}

#[tokio::test]
async fn statements_are_prepared_again_within_the_transaction() {
    let pool = pool("deallocated_within").await;
    for _ in 0..2 {
        let once = pool.transaction_once(async |tx: Transaction| {
            all(&tx).await?;
            tx.batch_execute("DEALLOCATE ALL").await?;
            all(&tx).await
        });
        once.await.unwrap();
        all_in_one_attempt(&pool).await;
    }
}

/// The first lost statement shows that the others are lost, too.
#[tokio::test]
async fn a_transaction_with_many_lost_statements_runs_twice() {
    let pool = pool("deallocated_unseen").await;
    for request in UNSEEN {
        all_in_one_attempt(&pool).await;
        pool.batch_execute(request).await.unwrap();
        let runs = AtomicU32::new(0);
        let twice = pool.transaction(async |tx| {
            runs.fetch_add(1, SeqCst);
            all(&tx).await
        });
        twice.await.unwrap();
        assert_eq!(runs.load(SeqCst), 2, "{request}");
        pool.batch_execute(request).await.unwrap();
        all(&pool.get().await.unwrap()).await.unwrap();
    }
}

/// Runs deadpool's cached statements.
async fn cached(client: &deadpool_postgres::Client) -> Result<(), tokio_postgres::Error> {
    for n in 0..STATEMENTS {
        let statement = client.prepare_cached(&format!("SELECT {n} - $1::int4")).await?;
        client.query_one(&statement, &[&1]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_cache_of_the_deref_is_cleared() {
    let pool = pool("deallocated_deref").await;
    for request in SEEN {
        for is_tracked in [true, false] {
            let client = pool.get().await.unwrap();
            cached(&client).await.unwrap();
            let _ = if is_tracked {
                client.batch_execute(request).await.is_ok()
            } else {
                (*client).batch_execute(request).await.is_ok()
            };
            cached(&client).await.unwrap_or_else(|error| panic!("{request} in the same lease: {error}"));
            let _ = (*client).batch_execute(request).await;
            drop(client);
            cached(&pool.get().await.unwrap()).await.unwrap_or_else(|error| panic!("{request}: {error}"));
        }
    }
}

/// Nothing showed the loss before the first error.
#[tokio::test]
async fn the_cache_of_the_deref_is_cleared_after_an_error() {
    let pool = pool("lost_deref").await;
    cached(&pool.get().await.unwrap()).await.unwrap();
    for request in UNSEEN {
        (*pool.get().await.unwrap()).batch_execute(request).await.unwrap();
        let lost = cached(&pool.get().await.unwrap()).await.unwrap_err();
        assert_eq!(lost.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME), "{request}");
        cached(&pool.get().await.unwrap()).await.unwrap_or_else(|error| panic!("{request}: {error}"));
    }
    let server = Server::shared().await;
    server.execute("CREATE TABLE outdated_deref (a int); INSERT INTO outdated_deref VALUES (1)").await;
    let read = async || {
        let client = pool.get().await.unwrap();
        let raw: &deadpool_postgres::Client = &client;
        let statement = raw.prepare_cached("SELECT * FROM outdated_deref").await?;
        raw.query_one(&statement, &[]).await.map(|row| row.len())
    };
    assert_eq!(read().await.unwrap(), 1);
    server.execute("ALTER TABLE outdated_deref ADD b int").await;
    assert_eq!(read().await.unwrap_err().code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    assert_eq!(read().await.unwrap(), 2);
}

/// A label of any enum.
#[derive(Debug)]
struct Label(String);

impl ToSql for Label {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Enum(_))
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Label {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8(raw.into())?))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Enum(_))
    }
}

/// Uses an enum that no connection knows.
async fn new_type(client: &Client, name: &str) -> Result<(), Error> {
    Server::shared().await.execute(&format!("CREATE TYPE {name} AS ENUM ('calm')")).await;
    let row = client.query_one(&format!("SELECT $1::{name}"), &[&Label("calm".into())]).await?;
    assert_eq!(row.get::<_, Label>(0).0, "calm");
    Ok(())
}

/// The driver looks up unknown types with statements of its own, which are lost as well.
#[tokio::test]
async fn an_unknown_type_is_looked_up_on_another_connection() {
    let pool = pool("deallocated_types").await;
    new_type(&pool.get().await.unwrap(), "dealloc_0").await.unwrap();
    for (number, request) in SEEN.into_iter().enumerate() {
        let before = pid(&pool).await;
        let _ = pool.batch_execute(request).await;
        new_type(&pool.get().await.unwrap(), &format!("dealloc_{}", number + 1))
            .await
            .unwrap_or_else(|error| panic!("{request}: {error}"));
        assert_ne!(pid(&pool).await, before, "{request}");
    }
}

#[tokio::test]
async fn known_types_stay_known_in_the_same_lease() {
    let pool = pool("deallocated_known").await;
    new_type(&pool.get().await.unwrap(), "dealloc_known").await.unwrap();
    let client = pool.get().await.unwrap();
    client.batch_execute("DISCARD ALL").await.unwrap();
    let calm = [Label("calm".into())];
    client.query_one("SELECT $1::dealloc_known", &[&calm[0]]).await.unwrap();
    client.query_one("SELECT $1::dealloc_known, 1", &[&calm[0]]).await.unwrap();
}

#[tokio::test]
async fn a_hook_that_drops_all_statements_spoils_no_lease() {
    let builder = shared("deallocated_by_hook").await.max_size(1).acquire_timeout(LONG);
    let pool = builder.after_connect(|client| Box::pin(client.batch_execute("DISCARD ALL"))).build().unwrap();
    new_type(&pool.get().await.unwrap(), "hook_0").await.unwrap();
    for number in 1..4 {
        pool.batch_execute("SET work_mem = '5MB'").await.unwrap(); // the hook runs again after the reset
        new_type(&pool.get().await.unwrap(), &format!("hook_{number}")).await.unwrap();
    }
}

/// Nothing shows the loss before the driver's own statement fails. Then the pool closes the connection.
#[tokio::test]
async fn a_connection_whose_look_ups_fail_serves_no_other_caller() {
    let pool = pool("lost_types").await;
    new_type(&pool.get().await.unwrap(), "lost_0").await.unwrap();
    pool.batch_execute(UNSEEN[0]).await.unwrap();
    let client = pool.get().await.unwrap();
    let lost = new_type(&client, "lost_1").await.unwrap_err();
    assert_eq!(lost.sqlstate(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
    drop(client);
    new_type(&pool.get().await.unwrap(), "lost_2").await.unwrap();
    Server::shared().await.execute("CREATE TYPE lost_3 AS ENUM ('calm'); CREATE TYPE lost_4 AS ENUM ('calm')").await;
    let calm = Label("calm".into());
    // A call that may run again does so on another connection.
    pool.batch_execute(UNSEEN[0]).await.unwrap();
    let row = pool.query_one("SELECT $1::lost_3", &[&calm]).await.unwrap();
    assert_eq!(row.get::<_, Label>(0).0, "calm");
    pool.batch_execute(UNSEEN[0]).await.unwrap();
    let row = pool.transaction(async |tx| tx.query_one("SELECT $1::lost_4", &[&calm]).await).await.unwrap();
    assert_eq!(row.get::<_, Label>(0).0, "calm");
}

/// A PgBouncer that tracks prepared statements ends the connection of a client that uses a dropped one.
#[tokio::test]
async fn a_pgbouncer_is_not_asked_for_dropped_statements() {
    define().await;
    let server = Server::shared().await;
    let Some(bouncer) = PgBouncer::start(server, &["max_prepared_statements = 100"]).await else {
        println!("no PgBouncer here; scripts/postgres-image makes an image that has it");
        return;
    };
    let config = server.config_at(bouncer.addr());
    let pool = Pool::builder(config).name("deallocated_bouncer").max_size(1).acquire_timeout(LONG).build().unwrap();
    let first = pid(&pool).await;
    for request in SEEN {
        for is_tracked in [true, false] {
            all_in_one_attempt(&pool).await;
            cached(&pool.get().await.unwrap()).await.unwrap();
            let client = pool.get().await.unwrap();
            let _ = if is_tracked {
                client.batch_execute(request).await.is_ok()
            } else {
                (*client).batch_execute(request).await.is_ok()
            };
            all(&client).await.unwrap_or_else(|error| panic!("{request}: {error}"));
            drop(client);
            all_in_one_attempt(&pool).await;
            cached(&pool.get().await.unwrap()).await.unwrap_or_else(|error| panic!("{request}: {error}"));
        }
    }
    assert_eq!(pid(&pool).await, first, "a connection was lost");
    new_type(&pool.get().await.unwrap(), "dealloc_bouncer_0").await.unwrap();
    pool.batch_execute("DISCARD ALL").await.unwrap();
    new_type(&pool.get().await.unwrap(), "dealloc_bouncer_1").await.unwrap();
}
