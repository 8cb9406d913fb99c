//! Queries that sea-query builds and its binder for this driver binds.

use failfast::Error;
use sea_query::{Expr, ExprTrait, Order, PostgresQueryBuilder, Query};
use sea_query_postgres::PostgresBinder;

use crate::pool::shared;

fn insert(name: &str, stock: i32) -> (String, sea_query_postgres::PostgresValues) {
    let mut insert = Query::insert();
    insert.into_table("built_items").columns(["name", "stock"]).values_panic([name.into(), stock.into()]);
    insert.build_postgres(PostgresQueryBuilder)
}

fn in_stock() -> (String, sea_query_postgres::PostgresValues) {
    let mut select = Query::select();
    select.column("name").from("built_items").and_where(Expr::col("stock").gt(0)).order_by("name", Order::Asc);
    select.build_postgres(PostgresQueryBuilder)
}

#[tokio::test]
async fn built_queries_run_on_the_pool_on_a_guard_and_in_a_transaction() {
    let pool = shared("dropin_built").await.max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE built_items (name text, stock int)").await.unwrap();

    let (sql, values) = insert("apple", 3);
    assert_eq!(pool.execute(&sql, &values.as_params()).await.unwrap(), 1);
    let client = pool.get().await.unwrap();
    let (sql, values) = insert("plum", 0);
    assert_eq!(client.execute(&sql, &values.as_params()).await.unwrap(), 1);
    let (sql, values) = insert("pear", 1);
    let tracked_or_not: &deadpool_postgres::Client = &client;
    assert_eq!(tracked_or_not.execute(&sql, &values.as_params()).await.unwrap(), 1);
    drop(client);

    let work = async |tx: failfast::Transaction| {
        let (sql, values) = insert("fig", 9);
        tx.execute(&sql, &values.as_params()).await?;
        let (sql, values) = in_stock();
        let rows = tx.query(&sql, &values.as_params()).await?;
        Ok::<Vec<String>, Error>(rows.iter().map(|row| row.get(0)).collect())
    };
    assert_eq!(pool.transaction(work).await.unwrap(), ["apple", "fig", "pear"]);
}
