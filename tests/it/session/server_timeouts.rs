//! Timeouts of the server, set on every session of the pool including the first, as far as the server knows them.

use std::time::{Duration, Instant};

use failfast::{ConnectErrorKind, Effect, Error, Pool, ServerTimeouts};

use super::{LONG, shared};
use crate::support::{pgbouncer::PgBouncer, server::Server};
use crate::throwaway::Throwaway;

const NAMES: [&str; 5] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "client_connection_check_interval",
    "transaction_timeout",
];
const VALUES: [&str; 5] = ["31000", "4000", "50000", "6000", "70000"];

fn all() -> ServerTimeouts {
    let seconds = Duration::from_secs;
    let timeouts = ServerTimeouts::new().longest_call(seconds(30)).lock(seconds(4));
    timeouts.idle_in_transaction(seconds(50)).connection_check(seconds(6)).transaction(seconds(70))
}

/// Returns the timeouts of a session in milliseconds, without those that the server does not know.
async fn told(client: &failfast::Client) -> Vec<String> {
    const SETTING: &str = "SELECT coalesce((SELECT setting FROM pg_settings WHERE name = $1), '')";
    let mut told = Vec::new();
    for name in NAMES {
        told.push(client.query_one(SETTING, &[&name]).await.unwrap().get(0));
    }
    told
}

#[tokio::test]
async fn every_session_has_all_timeouts() {
    let pool = shared("all_timeouts").await.max_size(2).server_timeouts(all()).build().unwrap();
    let first = pool.get_timeout(LONG).await.unwrap();
    assert_eq!(told(&first).await, VALUES, "the first session");
    let second = pool.get_timeout(LONG).await.unwrap();
    assert_eq!(told(&second).await, VALUES, "the second session");
    first.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(told(&first).await, VALUES, "RESET ALL");
    first.batch_execute("SET lock_timeout = 7; SET statement_timeout = 7777").await.unwrap();
    drop((first, second));
    let clients = [pool.get_timeout(LONG).await.unwrap(), pool.get_timeout(LONG).await.unwrap()];
    for client in clients {
        assert_eq!(told(&client).await, VALUES, "after the pool's own reset");
    }
}

/// The pool keeps the connection string's own options, which take precedence.
#[tokio::test]
async fn options_of_the_connection_string_take_precedence() {
    let mut config = Server::shared().await.config();
    config.options("-c lock_timeout=1234 -c geqo=off");
    let pool = Pool::builder(config).name("own_options").server_timeouts(all()).build().unwrap();
    let client = pool.get_timeout(LONG).await.unwrap();
    let told = told(&client).await;
    assert_eq!((told[0].as_str(), told[1].as_str()), ("31000", "1234"));
    let geqo: String = client.query_one("SHOW geqo", &[]).await.unwrap().get(0);
    assert_eq!(geqo, "off");
}

#[tokio::test]
async fn a_statement_stopped_by_the_server_is_a_timeout() {
    let timeouts = ServerTimeouts::new().longest_call(Duration::from_millis(1));
    let pool = shared("stopped_by_server").await.max_size(1).server_timeouts(timeouts).build().unwrap();
    let asked = Instant::now();
    let error = pool.query("SELECT pg_sleep(60)", &[]).await.unwrap_err();
    assert!(asked.elapsed() < LONG / 2);
    let Error::QueryTimeout { after, effect, .. } = &error else { panic!("{error:?}") };
    assert!(*after >= Duration::from_millis(1_001), "{after:?}");
    assert_eq!(*effect, Effect::NotApplied);
    pool.query("SELECT 1", &[]).await.unwrap();
}

/// The local server has whatever version is installed on this machine.
#[tokio::test]
async fn an_older_server_gets_the_timeouts_that_it_knows() {
    let server = Throwaway::start().await.unwrap();
    let pool = Pool::builder(server.config()).name("older").max_size(2).server_timeouts(all()).build().unwrap();
    let clients = [pool.get_timeout(LONG).await.unwrap(), pool.get_timeout(LONG).await.unwrap()];
    for client in &clients {
        let version = client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.unwrap();
        let mut expected = VALUES;
        if version.get::<_, i32>(0) < 170_000 {
            expected[4] = "";
        }
        assert_eq!(told(client).await, expected);
    }
}

#[tokio::test]
async fn the_error_names_the_timeouts_when_a_pooler_refuses_them() {
    let server = Server::shared().await;
    let Some(bouncer) = PgBouncer::start(server, &[]).await else {
        println!("no PgBouncer here; scripts/postgres-image makes an image that has it");
        return;
    };
    let builder = Pool::builder(server.config_at(bouncer.addr())).name("refused_options");
    let pool = builder.server_timeouts(ServerTimeouts::new()).build().unwrap();
    let error = pool.get_timeout(LONG).await.unwrap_err();
    let Error::Connect { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(source.kind(), ConnectErrorKind::Server(_)), "{source:?}");
    let line = source.to_string();
    assert!(line.ends_with("; the pool's server_timeouts are sent as startup options"), "{line}");
    println!("{line}");
}
