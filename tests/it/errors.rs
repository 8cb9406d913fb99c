//! Errors of the server as callers see them: who should act, whether anything was applied, and no data of users.

mod objections;

use std::error::Error as _;
use std::time::Duration;

use failfast::{Effect, Error, ErrorKind, Pool};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::support::server::Server;

async fn pool(name: &str) -> Pool {
    let acquire_timeout = Duration::from_secs(20);
    let config = Server::shared().await.config();
    Pool::builder(config).name(name).max_size(1).acquire_timeout(acquire_timeout).build().unwrap()
}

async fn failing(pool: &Pool, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Error {
    let error = pool.call().execute(sql, params).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Postgres);
    error
}

/// Returns everything that printing the error shows, without its sources.
fn shown(error: &Error) -> String {
    format!("{error} {error:?} {error:#?}")
}

fn driver_error(error: &Error) -> &tokio_postgres::Error {
    error.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn a_unique_violation_shows_no_row() {
    let pool = pool("unique_violation").await;
    pool.call().execute("CREATE TABLE unique_violation (email text PRIMARY KEY)", &[]).await.unwrap();
    let insert = "INSERT INTO unique_violation VALUES ($1)";
    pool.call().execute(insert, &[&"secret@example.com"]).await.unwrap();

    let error = failing(&pool, insert, &[&"secret@example.com"]).await;
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::UNIQUE_VIOLATION), Effect::NotApplied));
    assert!(error.to_string().contains("unique_violation_pkey"), "{error}");
    assert!(!shown(&error).contains("secret"), "{error:?}");
    let detail = driver_error(&error).as_db_error().unwrap().detail().unwrap();
    assert!(detail.contains("secret"), "{detail}");
}

#[tokio::test]
async fn a_bad_value_is_not_shown() {
    let pool = pool("bad_value").await;
    for target in ["int4", "timestamptz", "uuid", "jsonb", "inet", "bool", "date", "bytea", "int4range"] {
        let error = failing(&pool, &format!("SELECT $1::text::{target}"), &[&"\\secret"]).await;
        assert!(error.sqlstate().unwrap().code().starts_with("22"), "{error}");
        assert!(!shown(&error).contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_parameter_of_the_wrong_type_is_named_by_its_types() {
    let error = failing(&pool("wrong_type").await, "SELECT $1::int4", &[&"secret"]).await;
    let line =
        "error serializing parameter 0: cannot convert between the Rust type `&str` and the Postgres type `int4`";
    assert_eq!(error.to_string(), line);
}

#[tokio::test]
async fn a_statement_that_killed_its_session_may_have_been_applied() {
    let error = failing(&pool("terminated").await, "SELECT pg_terminate_backend(pg_backend_pid())", &[]).await;
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::ADMIN_SHUTDOWN), Effect::Unknown));
    assert!(error.to_string().ends_with("(57P01); it may or may not have been applied"), "{error}");
}

#[tokio::test]
async fn a_statement_that_the_server_stopped_was_not_applied() {
    let client = pool("server_timeout").await.get().await.unwrap();
    client.batch_execute("SET statement_timeout = 20").await.unwrap();
    let error = client.execute("SELECT pg_sleep(20)", &[]).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::QUERY_CANCELED), Effect::NotApplied));
}

/// The server's messages are translated, so the pool recognizes the error by the name of the server's function.
#[tokio::test]
async fn a_stale_plan_is_recognized_by_the_servers_function() {
    let pool = pool("stale_plan").await;
    let client = pool.get().await.unwrap();
    client.batch_execute("CREATE TABLE stale_plan (a int)").await.unwrap();
    let statement = client.prepare("SELECT * FROM stale_plan").await.unwrap();
    client.query(&statement, &[]).await.unwrap();
    client.batch_execute("ALTER TABLE stale_plan ADD b int").await.unwrap();
    let error = (*client).query(&statement, &[]).await.unwrap_err();
    let answer = error.as_db_error().unwrap();
    assert_eq!((answer.code().code(), answer.routine()), ("0A000", Some("RevalidateCachedQuery")));
    assert_eq!(Error::from(error).effect(), Effect::NotApplied);
}

/// A name that a user of the service chose.
const FORGED: &str = "bob\r2026-01-01 ERROR root logged in\u{1b}[2J\u{1b}[31m";

/// Asserts that the text prints as one line without control characters.
fn assert_harmless(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.chars().count() < 1_000, "{} characters", text.chars().count());
}

#[tokio::test]
async fn a_name_that_the_server_repeats_forges_no_line() {
    let pool = pool("forged_names").await;
    let quoted = FORGED.replace('"', "\"\"");
    let raised = format!("DO $x$ BEGIN RAISE EXCEPTION 'no such user: %', '{FORGED}'; END $x$");
    let coded = "DO $x$ BEGIN RAISE EXCEPTION USING MESSAGE = E'a\\rb', ERRCODE = 'ZZ999'; END $x$".to_owned();
    let long = format!("DO $x$ BEGIN RAISE EXCEPTION '%', repeat('{FORGED}', 100000); END $x$");
    for sql in [
        raised,
        coded,
        long,
        format!("SELECT * FROM \"{quoted}\""),
        format!("SELECT \"{quoted}\" FROM pg_class"),
        format!("SELECT \"{quoted}\"()"),
        format!("{FORGED} {FORGED}"),
        format!("SET \"{quoted}\" = 1"),
    ] {
        let error = pool.call().batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Postgres, "{error}");
        assert_harmless(&error.to_string());
        assert_harmless(&format!("{error:?}"));
    }
}

#[tokio::test]
async fn a_name_that_the_server_repeats_at_a_dial_forges_no_line() {
    let mut config = Server::shared().await.config();
    config.dbname(FORGED);
    let pool = Pool::builder(config).name("forged_dial").acquire_timeout(Duration::from_secs(5)).build().unwrap();
    let mut events = pool.events();
    let error = pool.get().await.unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Connect, Some(&SqlState::UNDEFINED_DATABASE)));
    assert_harmless(&error.to_string());
    assert_harmless(&format!("{error:?} {:?}", pool.status().last_connect_error));
    assert_harmless(&pool.ready().unwrap_err().to_string());
    loop {
        let event = events.next().await.unwrap();
        assert_harmless(&event.to_string());
        if matches!(event.kind, failfast::EventKind::ConnectFailed { .. }) {
            break;
        }
    }
}
