//! Committed is said only when it is so.

use failfast::{AbortReason, Error};

use super::shared;
use crate::support::server::Server;

#[tokio::test]
async fn case_01_a_swallowed_error_is_never_committed() {
    let pool = shared("case_01").await.max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE IF NOT EXISTS case_01 (id int)").await.unwrap();
    for n in 0..1_000 {
        let committed = pool
            .transaction(|tx| async move {
                tx.execute("INSERT INTO case_01 VALUES (1)", &[]).await?;
                let _ = if n % 2 == 0 {
                    tx.execute("SELECT 1/0", &[]).await.is_err()
                } else {
                    raw(&tx).execute("SELECT 1/0", &[]).await.is_err()
                };
                Ok::<_, Error>(())
            })
            .await;
        assert!(
            matches!(committed, Err(Error::TransactionAborted { reason: AbortReason::Failed { .. }, .. })),
            "{committed:?}"
        );
    }
    assert_eq!(Server::shared().await.scalar("SELECT count(*) FROM case_01").await, "0");
}

#[tokio::test]
async fn a_transaction_commits() {
    let pool = shared("commits").await.build().unwrap();
    pool.batch_execute("CREATE TABLE IF NOT EXISTS commits (id int)").await.unwrap();
    pool.transaction(|tx| async move {
        tx.execute("INSERT INTO commits VALUES (1)", &[]).await?;
        let undone = tx
            .savepoint(|tx| async move {
                tx.execute("INSERT INTO commits VALUES (2)", &[]).await?;
                tx.execute("SELECT 1/0", &[]).await?;
                Ok::<_, Error>(())
            })
            .await;
        assert!(matches!(undone, Err(Error::Postgres { .. })), "{undone:?}");
        tx.execute("INSERT INTO commits VALUES (3)", &[]).await?;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    assert_eq!(Server::shared().await.scalar("SELECT string_agg(id::text, ',' ORDER BY id) FROM commits").await, "1,3");
}

/// What code written for deadpool takes.
fn raw(client: &deadpool_postgres::Client) -> &deadpool_postgres::Client {
    client
}
