//! A query module in the style of Cornucopia and Clorinde. It is generic over a trait of its own, which deadpool's
//! client and transaction implement. `&*client` is the client, and `&**tx` the transaction.

mod client;
mod items;

use failfast::{AbortReason, Error, Pool};
use futures_util::TryStreamExt;

use self::client::Params;
use self::items::{InsertItemParams, insert_item, item_by_name, items};
use crate::pool::shared;

/// All tests share one table, and each uses names of its own.
async fn pool(name: &str) -> Pool {
    let pool = shared(name).await.max_size(1).build().unwrap();
    let table =
        "CREATE TABLE IF NOT EXISTS generated_items (id int GENERATED ALWAYS AS IDENTITY, name text UNIQUE, stock int)";
    pool.batch_execute(&format!("SELECT pg_advisory_lock(4711); {table}; SELECT pg_advisory_unlock(4711)"))
        .await
        .unwrap();
    pool
}

async fn stock(pool: &Pool, name: &str) -> Option<i32> {
    let row = pool.query_opt("SELECT stock FROM generated_items WHERE name = $1", &[&name]).await.unwrap();
    row.and_then(|row| row.get(0))
}

#[tokio::test]
async fn generated_queries_run_on_the_guard() {
    let pool = pool("generated").await;
    let client = pool.get().await.unwrap();
    assert_eq!(insert_item().bind(&*client, &"apple", &Some(3)).await.unwrap(), 1);
    let pear = InsertItemParams { name: String::from("pear"), stock: None };
    assert_eq!(insert_item().params(&*client, &pear).await.unwrap(), 1);

    let apple = item_by_name().bind(&*client, &"apple").one().await.unwrap();
    assert_eq!((apple.name.as_str(), apple.stock), ("apple", Some(3)));
    assert_eq!(item_by_name().bind(&*client, &"no such thing").opt().await.unwrap(), None);
    let mut by_name = item_by_name();
    for name in ["apple", "pear"] {
        assert_eq!(
            by_name.bind(&*client, &name).map(|item| item.name.to_uppercase()).one().await.unwrap(),
            name.to_uppercase()
        );
    }
    let all = items().bind(&*client).all().await.unwrap();
    assert!(all.contains(&apple));
    let names: Vec<_> = items().bind(&*client).map(|item| item.id).iter().await.unwrap().try_collect().await.unwrap();
    assert_eq!(names, all.iter().map(|item| item.id).collect::<Vec<_>>());
}

/// Deadpool's transaction, which borrows the guard.
#[tokio::test]
async fn generated_queries_run_in_deadpools_transaction() {
    let pool = pool("generated_theirs").await;
    let mut client = pool.get().await.unwrap();
    let tx = (*client).transaction().await.unwrap();
    insert_item().bind(&tx, &"quince", &Some(1)).await.unwrap();
    assert_eq!(item_by_name().bind(&tx, &"quince").one().await.unwrap().stock, Some(1));
    tx.commit().await.unwrap();
    let tx = (*client).transaction().await.unwrap();
    insert_item().bind(&tx, &"medlar", &Some(1)).await.unwrap();
    drop(tx);
    drop(client);
    assert_eq!((stock(&pool, "quince").await, stock(&pool, "medlar").await), (Some(1), None));
}

/// The pool's transaction, which runs again after a conflict. A statement belongs to one connection, so the closure
/// makes it.
#[tokio::test]
async fn generated_queries_run_in_a_transaction_of_the_pool() {
    let pool = pool("generated_ours").await;
    let work = |tx: failfast::Transaction| async move {
        insert_item().bind(&**tx, &"fig", &Some(2)).await?;
        Ok::<_, Error>(item_by_name().bind(&**tx, &"fig").one().await?.stock)
    };
    let stocked = tokio::spawn({
        let pool = pool.clone();
        async move { pool.transaction(work).await }
    });
    assert_eq!(stocked.await.unwrap().unwrap(), Some(2));

    let swallowed = pool.transaction(|tx| async move {
        insert_item().bind(&**tx, &"olive", &Some(2)).await?;
        let twice = insert_item().bind(&**tx, &"fig", &Some(5)).await;
        assert!(twice.is_err());
        Ok::<_, Error>(())
    });
    let error = swallowed.await.unwrap_err();
    assert!(matches!(error, Error::TransactionAborted { reason: AbortReason::Failed { .. }, .. }), "{error:?}");
    assert_eq!((stock(&pool, "fig").await, stock(&pool, "olive").await), (Some(2), None));
}
