//! Nothing that is likely to be logged shows a password or a query parameter. A canary stands for them.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::time::Duration;

use failfast::{ConnectErrorKind, Credentials, Pool, PoolBuilder};

use super::{LONG, refusal};
use crate::support::{free_port, proxy::Proxy, server::Server};

const CANARY: &str = "canary-7d1f";

fn silent(what: &str, shown: &str) {
    assert!(!shown.contains(CANARY), "{what}: {shown}");
    // A driver may keep it as bytes.
    let bytes = format!("{:?}", CANARY.as_bytes());
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{what}: {shown}");
}

fn silent_debug(what: &str, value: &impl Debug) {
    silent(what, &format!("{value:?}"));
    silent(what, &format!("{value:#?}"));
}

/// An error and all its causes.
fn silent_error(what: &str, error: &(dyn StdError + 'static)) {
    for error in std::iter::successors(Some(error), |error| (**error).source()) {
        silent(what, &error.to_string());
        silent_debug(what, &error);
    }
}

/// Checks a pool that has the canary twice and cannot connect.
async fn check(what: &str, builder: PoolBuilder, kind: impl Fn(&ConnectErrorKind) -> bool) {
    let builder =
        builder.connect_timeout(Duration::from_secs(1)).credentials(|| async { Ok(Credentials::password(CANARY)) });
    silent_debug(what, &builder);
    let pool = builder.build().unwrap();
    let error = pool.get_timeout(LONG).await.unwrap_err();
    silent_error(what, &error);
    silent_debug(what, &pool);
    silent_debug(what, &pool.status());
    silent(what, &pool.status().to_string());
    let source = match error {
        failfast::Error::Connect { source, .. } => source,
        // Beside a dial as slow as this one the pool begins another. So dials may open the circuit before a caller gets
        // an error.
        failfast::Error::CircuitOpen { last_connect_error: Some(source), .. } => source,
        other => panic!("{what}: {other:?}"),
    };
    assert!(kind(source.kind()), "{what}: {source:?}");
}

#[tokio::test]
async fn no_password_is_shown() {
    let server = Server::shared().await;
    let hole = Proxy::start(server.addr()).await;
    hole.stall();
    let at = |host: &str, port: u16, settings: &str| {
        let mut config = server.config_with(&format!("host={host} port={port} {settings}"));
        config.password(CANARY);
        Pool::builder(config)
    };
    let (local, port) = ("127.0.0.1", server.addr().port());
    use ConnectErrorKind::{Io, Resolve, Server as Answer, Timeout};
    check("password", at(local, port, ""), |kind| matches!(kind, Answer(_))).await;
    check("database", at(local, port, "dbname=none"), |kind| matches!(kind, Answer(_))).await;
    check("refused", at(local, free_port(), ""), |kind| *kind == Io).await;
    check("unknown", at("nowhere.invalid", 1, ""), |kind| *kind == Resolve).await;
    check("silent", at(local, hole.addr().port(), ""), |kind| matches!(kind, Timeout(_))).await;
    let bad = at(local, port, "sslmode=require").build().unwrap_err();
    silent_error("settings", &bad);
    silent_debug("credentials", &Credentials::password(CANARY).user("u"));
    let client = Pool::builder(server.config()).build().unwrap().get_timeout(LONG).await;
    silent_debug("client", &client.unwrap());
}

#[tokio::test]
async fn the_error_of_a_provider_is_in_the_source_only() {
    let server = Server::shared().await;
    let builder = Pool::builder(server.config()).credentials(|| async { Err(CANARY.into()) });
    let error = refusal(&builder.build().unwrap()).await;
    silent("Display", &error.to_string());
    silent_debug("Debug", &error);
    assert_eq!(error.source().unwrap().to_string(), CANARY);
}

/// The server quotes the parameter in its message, which is in the source only.
#[tokio::test]
async fn no_parameter_of_a_hook_is_shown() {
    let server = Server::shared().await;
    let builder = Pool::builder(server.config()).after_connect(|client| {
        Box::pin(async move {
            let sql = "SELECT $1::text::int";
            client.execute(sql, &[&CANARY]).await.map(|_| ())
        })
    });
    let error = refusal(&builder.build().unwrap()).await;
    assert_eq!(*error.kind(), ConnectErrorKind::AfterConnect);
    silent("Display", &error.to_string());
    silent_debug("Debug", &error);
}
