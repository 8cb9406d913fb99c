//! Faults at certain messages, tested with PostgreSQL.

use std::time::Instant;

use tokio::time::timeout;
use tokio_postgres::{Client, Error, NoTls};

use super::{QUIET, SOON};
use crate::support::{
    eventually,
    proxy::{Close, Cut, Proxy},
    server::Server,
};

#[tokio::test]
async fn queries_pass() {
    let (_proxy, client) = through_proxy().await;
    assert_eq!(one(&client).await.unwrap(), 1);
}

#[tokio::test]
async fn a_new_connection_meets_a_black_hole() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    proxy.stall();
    let config = server.config_at(proxy.addr());
    let mut connecting = std::pin::pin!(config.connect(NoTls));
    assert!(timeout(QUIET, &mut connecting).await.is_err());
    proxy.resume();
    let (_client, _connection) = timeout(SOON, connecting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_query_is_cut_off_before_the_server_sees_it() {
    let (proxy, client) = through_proxy().await;
    let table = table("unseen").await;
    proxy.arm(Cut::at_text("INSERT"));
    assert_lost(client.batch_execute(&format!("INSERT INTO {table} VALUES (1)")).await);
    assert_eq!(proxy.fired(), 1);
    assert_eq!(rows(&table).await, "0");
}

#[tokio::test]
async fn a_prepared_query_is_cut_off_at_its_text() {
    let (proxy, client) = through_proxy().await;
    proxy.arm(Cut::at_text("SELECT 1"));
    assert_lost(one(&client).await);
    assert_eq!(proxy.fired(), 1);
}

#[tokio::test]
async fn the_answer_to_a_commit_is_lost() {
    for close in [Close::Fin, Close::Reset] {
        let (proxy, client) = through_proxy().await;
        let table = table(&format!("committed_{close:?}")).await;
        client.batch_execute(&format!("BEGIN; INSERT INTO {table} VALUES (1)")).await.unwrap();
        proxy.arm(Cut::at_text("COMMIT").answer_lost().by(close));
        assert_lost(client.batch_execute("COMMIT").await);
        assert_eq!(rows(&table).await, "1");
    }
}

#[tokio::test]
async fn the_answer_to_a_bound_statement_is_lost() {
    let (proxy, client) = through_proxy().await;
    let table = table("bound").await;
    let insert = client.prepare(&format!("INSERT INTO {table} VALUES ($1)")).await.unwrap();
    proxy.arm(Cut::at_message(b'B').answer_lost());
    assert_lost(client.execute(&insert, &[&1_i32]).await);
    assert_eq!(rows(&table).await, "1");
}

#[tokio::test]
async fn a_cut_for_a_lost_answer_fires_without_an_answer() {
    let (proxy, client) = through_proxy().await;
    proxy.arm(Cut::at_text("pg_sleep").answer_lost());
    let begin = Instant::now();
    assert_lost(client.batch_execute("SELECT pg_sleep(20)").await);
    assert!(begin.elapsed() < SOON);
}

#[tokio::test]
async fn a_cancel_request_is_lost() {
    let (proxy, client) = through_proxy().await;
    let cancel = client.cancel_token();
    proxy.arm(Cut::at_cancel());
    let query = client.simple_query("SELECT pg_sleep(20) /* to be cancelled */");
    let cancelling = async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* to be cancelled%'
            AND state = 'active' AND pid <> pg_backend_pid()";
        let server = Server::shared().await;
        eventually("the query runs", SOON, async || server.scalar(running).await == "1").await;
        let _ = cancel.cancel_query(NoTls).await;
        eventually("the cancel request is lost", SOON, async || proxy.fired() == 1).await;
        cancel.cancel_query(NoTls).await.unwrap();
    };
    let (cancelled, ()) = timeout(SOON, async { tokio::join!(query, cancelling) }).await.unwrap();
    assert_eq!(cancelled.unwrap_err().code().unwrap().code(), "57014");
}

#[tokio::test]
async fn a_disarmed_cut_does_nothing() {
    let (proxy, client) = through_proxy().await;
    proxy.arm(Cut::at_message(b'Q'));
    proxy.disarm();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(proxy.fired(), 0);
}

async fn through_proxy() -> (Proxy, Client) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let (client, connection) = server.config_at(proxy.addr()).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    (proxy, client)
}

async fn one(client: &Client) -> Result<i32, Error> {
    Ok(client.query_one("SELECT 1", &[]).await?.get(0))
}

async fn table(name: &str) -> String {
    let name = format!("proxy_{}", name.to_lowercase());
    let create = format!("DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (n int)");
    Server::shared().await.execute(&create).await;
    name
}

async fn rows(table: &str) -> String {
    Server::shared().await.scalar(&format!("SELECT count(*) FROM {table}")).await
}

fn assert_lost<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.unwrap_err();
    assert!(error.as_db_error().is_none(), "the connection itself is lost: {error:?}");
}
