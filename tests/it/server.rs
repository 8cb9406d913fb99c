//! Tests the servers of [`crate::support::server`].

use std::time::Duration;

use crate::support::{eventually, server::Server};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn all_tests_share_one_server() {
    let (one, other) = tokio::join!(Server::shared(), Server::shared());
    assert_eq!(one.id(), other.id());
    assert_eq!(one.scalar("SHOW max_connections").await, "200");
}

/// `./dev german` sets another language.
#[tokio::test]
async fn servers_use_the_configured_language() {
    let client = Server::shared().await.admin().await;
    let error = client.simple_query("SELECT 1 / 0").await.unwrap_err();
    let message = error.as_db_error().unwrap().message();
    match std::env::var("FAILFAST_TEST_MESSAGES").as_deref() {
        Ok("de_DE.UTF-8") => assert_eq!(message, "Division durch Null"),
        _ => assert_eq!(message, "division by zero"),
    }
}

#[tokio::test]
async fn connections_are_counted_by_name() {
    let server = Server::shared().await;
    let mut config = server.config();
    config.application_name("it's counted");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(server.connection_count("it's counted").await, 1);
    drop(client);
    connection.await.unwrap().unwrap();
    eventually("the connection is gone", SOON, async || server.connection_count("it's counted").await == 0).await;
}

#[tokio::test]
async fn an_own_server_has_its_settings() {
    let server = Server::own(&[("max_connections", "20"), ("application_name", "two words")]).await;
    assert_eq!(server.scalar("SHOW max_connections").await, "20");
    assert_eq!(server.scalar("SHOW application_name").await, "failfast-test-admin");
    assert_eq!(server.scalar("RESET application_name; SHOW application_name").await, "failfast-test-admin");
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let name: String = client.query_one("SHOW application_name", &[]).await.unwrap().get(0);
    assert_eq!(name, "two words");
}

#[tokio::test]
async fn the_address_and_the_data_survive_stop_and_kill() {
    let mut server = Server::own(&[]).await;
    server.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    let addr = server.addr();

    server.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    server.start().await;
    server.execute("INSERT INTO kept VALUES (2)").await;

    server.kill().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    server.start().await;

    assert_eq!(server.addr(), addr);
    assert_eq!(server.scalar("SELECT sum(n) FROM kept").await, "3");
}

#[tokio::test]
async fn the_server_survives_a_killed_backend() {
    let mut server = Server::own(&[]).await;
    let victim = server.admin().await;
    let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    server.kill_backend(pid).await;
    eventually("the victim is closed", SOON, async || victim.is_closed()).await;
    server.accepting().await;
    assert_eq!(server.scalar("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_paused_server_is_silent_until_unpaused() {
    let mut server = Server::own(&[]).await;
    let client = server.admin().await;
    server.pause().await;
    let mut answer = std::pin::pin!(client.query_one("SELECT 1", &[]));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut answer).await.is_err());
    server.unpause().await;
    let one: i32 = answer.await.unwrap().get(0);
    assert_eq!(one, 1);
}

#[tokio::test]
async fn a_dropped_server_leaves_no_container() {
    let mut server = Server::own(&[]).await;
    let id = server.id().to_owned();
    assert_eq!(containers(&id), 1);
    server.pause().await;
    drop(server);
    assert_eq!(containers(&id), 0);
}

#[test]
fn a_server_may_be_dropped_outside_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::own(&[]));
    drop(runtime);
    let id = server.id().to_owned();
    assert_eq!(containers(&id), 1);
    drop(server);
    assert_eq!(containers(&id), 0);
}

#[tokio::test]
async fn a_command_runs_in_the_container() {
    let server = Server::shared().await;
    assert_eq!(server.exec("id -u; cat /proc/1/comm").await, "0\npostgres\n");
}

fn containers(id: &str) -> usize {
    let filter = format!("id={id}");
    let listed = std::process::Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output();
    String::from_utf8(listed.unwrap().stdout).unwrap().lines().count()
}
