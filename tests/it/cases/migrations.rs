//! The schema changes under statements that connections have prepared.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use failfast::Error;
use tokio_postgres::error::SqlState;

use super::deadpool::{client, said};
use super::shared;
use crate::support::server::Server;

const ALL: &str = "SELECT * FROM case_21";

#[tokio::test]
async fn case_21_an_outdated_statement_is_prepared_anew() {
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
    assert_eq!(runs.load(SeqCst), 2, "all of it");
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

async fn client_with(sql: &str) -> deadpool_postgres::Object {
    let client = client(Server::shared().await.config(), "case_21").await;
    let statement = client.prepare_cached(sql).await.unwrap();
    client.query(&statement, &[]).await.unwrap();
    client
}
