//! Schema changes while connections have prepared statements.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bytes::BytesMut;
use failfast::Error;
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use super::deadpool::{client, said};
use super::{LONG, shared};
use crate::support::server::Server;

const ALL: &str = "SELECT * FROM case_21";

#[tokio::test]
async fn case_21_an_outdated_statement_is_prepared_again() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE case_21 (a int); INSERT INTO case_21 VALUES (1)").await;
    let pool = shared("case_21").await.max_size(2).build().unwrap();
    let migrate = async |column: &str| server.execute(&format!("ALTER TABLE case_21 ADD {column} int")).await;

    let (one, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    for client in [&one, &other] {
        assert_eq!(client.query_one(ALL, &[]).await.unwrap().len(), 1);
    }
    drop((one, other));
    migrate("b").await;
    let (one, other) = tokio::join!(pool.query_one(ALL, &[]), pool.query_one(ALL, &[]));
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (2, 2));

    let client = pool.get().await.unwrap();
    assert_eq!(client.query_one(ALL, &[]).await.unwrap().len(), 2);
    migrate("c").await;
    assert_eq!(client.query_one(ALL, &[]).await.unwrap().len(), 3);
    drop(client);

    let bare = client_with(ALL).await;
    pool.resize(1).unwrap();
    pool.query_one(ALL, &[]).await.unwrap();
    migrate("d").await;
    let runs = AtomicU32::new(0);
    let run = |tx: failfast::Transaction| {
        runs.fetch_add(1, SeqCst);
        async move { tx.query_one(ALL, &[]).await }
    };
    assert_eq!(pool.transaction(run).await.unwrap().len(), 4);
    assert_eq!(runs.load(SeqCst), 2, "the whole transaction runs again");
    migrate("e").await;
    let once: Result<_, Error> = pool.transaction_once(run).await;
    assert_eq!(once.unwrap_err().sqlstate(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    assert_eq!(runs.load(SeqCst), 3);

    let statement = bare.prepare_cached(ALL).await.unwrap();
    let outdated = bare.query_one(&statement, &[]).await;
    let statement = bare.prepare_cached(ALL).await.unwrap();
    let again = bare.query_one(&statement, &[]).await;
    println!("case 21: failfast: Ok; deadpool: {}, then {}", said(&outdated), said(&again));
    assert!(outdated.is_err() && again.is_err());
}

/// Common migrations of an enum while connections have prepared statements that use it.
#[tokio::test]
async fn a_recreated_enum_is_learned_again() {
    let server = Server::shared().await;
    server.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (m mood)").await;
    let anew = "ALTER TABLE moods ALTER m TYPE text; DROP TYPE mood; CREATE TYPE mood AS ENUM ('sad', 'glad');
        ALTER TABLE moods ALTER m TYPE mood USING m::mood";
    let renamed = "ALTER TYPE mood RENAME TO old_mood; CREATE TYPE mood AS ENUM ('sad', 'glad', 'mad');
        ALTER TABLE moods ALTER m TYPE mood USING m::text::mood";
    let statements =
        ["INSERT INTO moods VALUES ($1::text::mood)", "SELECT count(*) FROM moods WHERE m = $1::text::mood"];
    for size in [0, 256] {
        let pool = shared(&format!("moods_{size}")).await.max_size(5).statement_cache(size).build().unwrap();
        let use_all = async || {
            let clients = join_all((0..5).map(|_| pool.get_timeout(LONG))).await;
            for client in clients.iter().flatten() {
                for sql in statements {
                    client.query(sql, &[&"sad"]).await.unwrap_or_else(|error| panic!("{size}: {sql}: {error}"));
                }
                let enums = "SELECT array_agg($1::mood)::text";
                client.query(enums, &[&Label("sad")]).await.unwrap_or_else(|error| panic!("{size}: {error}"));
            }
        };
        use_all().await;
        for migration in [anew, renamed] {
            server.execute(migration).await;
            use_all().await;
        }
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
        server.execute("ALTER TABLE moods ALTER m TYPE text; DROP TYPE mood; DROP TYPE old_mood").await;
        server.execute("CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE moods ALTER m TYPE mood USING m::mood").await;
    }
}

/// A label of any enum.
#[derive(Debug)]
struct Label(&'static str);

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

/// Two tenants with equal statements. Each has its own type by the same name.
#[tokio::test]
async fn each_search_path_has_its_own_types() {
    let server = Server::shared().await;
    for tenant in ["ann", "bob"] {
        let schema = format!("CREATE SCHEMA {tenant}; CREATE TYPE {tenant}.plan AS ENUM ('free')");
        server.execute(&format!("{schema}; CREATE TABLE {tenant}.plans (p {tenant}.plan)")).await;
    }
    for size in [0, 256] {
        let pool = shared(&format!("paths_{size}")).await.max_size(1).statement_cache(size).build().unwrap();
        for tenant in ["ann", "bob", "ann", "bob"] {
            let inserted = pool.transaction(async |tx| {
                tx.batch_execute(&format!("SET LOCAL search_path = {tenant}")).await?;
                tx.execute("INSERT INTO plans VALUES ($1)", &[&Label("free")]).await?;
                tx.query_one("SELECT count(*) FROM plans WHERE p = $1", &[&Label("free")]).await
            });
            inserted.await.unwrap_or_else(|error| panic!("{size}: {tenant}: {error}"));
        }
    }
}

async fn client_with(sql: &str) -> deadpool_postgres::Object {
    let client = client(Server::shared().await.config(), "case_21").await;
    let statement = client.prepare_cached(sql).await.unwrap();
    client.query(&statement, &[]).await.unwrap();
    client
}
