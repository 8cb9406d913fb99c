//! The owner's code at each dial: the credentials provider and the `after_connect` hook.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{ConnectErrorKind, Credentials, Pool};
use tokio_postgres::error::SqlState;

use super::{LONG, refusal, scalar};
use crate::support::{eventually, proxy::Proxy, server::Server};

const WHO: &str = "SELECT current_user::text";

#[tokio::test]
async fn credentials_are_asked_for_at_each_dial() {
    let server = Server::shared().await;
    server.execute("CREATE ROLE rotating LOGIN PASSWORD 'first'").await;
    let current = Arc::new(Mutex::new("first"));
    let asked = Arc::new(AtomicUsize::new(0));
    let provider = {
        let (current, asked) = (current.clone(), asked.clone());
        move || {
            asked.fetch_add(1, SeqCst);
            let password = *current.lock().unwrap();
            async move { Ok(Credentials::password(password).user("rotating")) }
        }
    };
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config).credentials(provider).build().unwrap();
    let held = pool.get_timeout(LONG).await.unwrap();

    server.execute("ALTER ROLE rotating PASSWORD 'second'").await;
    assert_eq!(refused_dial(&pool).await, Some(SqlState::INVALID_PASSWORD));
    *current.lock().unwrap() = "second";
    eventually("the new password is used", LONG, async || pool.get().await.is_ok()).await;
    assert_eq!(scalar(&pool, WHO).await, "rotating");
    held.batch_execute("SELECT 1").await.expect("connections made before live on");
    // The pool asks the provider again, but does not send the refused password again.
    assert!(
        (3..=4).contains(&proxy.accepted()) && asked.load(SeqCst) as u64 >= proxy.accepted(),
        "{}",
        proxy.accepted()
    );
}

/// The error of a failing dial while another connection is in use, from a caller that waited in vain.
async fn refused_dial(pool: &Pool) -> Option<SqlState> {
    let error = pool.get_timeout(Duration::from_secs(1)).await.unwrap_err();
    let failfast::Error::AcquireTimeout { last_connect_error, .. } = error else { panic!("{error:?}") };
    last_connect_error?.sqlstate().cloned()
}

#[tokio::test]
async fn a_failing_provider_is_named() {
    let server = Server::shared().await;
    let pool =
        Pool::builder(server.config()).credentials(|| async { Err("the vault is sealed".into()) }).build().unwrap();
    let error = refusal(&pool).await;
    assert_eq!(*error.kind(), ConnectErrorKind::Credentials);
    assert_eq!(error.to_string(), "the credentials provider failed");
    assert_eq!(error.source().unwrap().to_string(), "the vault is sealed");
}

#[tokio::test]
async fn a_hanging_provider_has_only_connect_timeout() {
    let server = Server::shared().await;
    let pool = Pool::builder(server.config())
        .connect_timeout(Duration::from_millis(100))
        .credentials(std::future::pending)
        .build()
        .unwrap();
    let asked = Instant::now();
    let error = refusal(&pool).await;
    assert!(asked.elapsed() < LONG / 2);
    assert_eq!(*error.kind(), ConnectErrorKind::Credentials);
    assert_eq!(error.source().unwrap().to_string(), "no answer within 100 ms");
}

/// The provider takes a part of `connect_timeout`, and the error still names the whole.
#[tokio::test]
async fn a_timeout_names_the_whole_connect_timeout() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    proxy.stall();
    let connect_timeout = Duration::from_millis(300);
    // The sleep is the provider's work: no condition of the test waits for it.
    let provider = || async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Credentials::password("secret"))
    };
    let config = Server::shared().await.config_at(proxy.addr());
    let pool = Pool::builder(config).connect_timeout(connect_timeout).credentials(provider).build().unwrap();
    let error = refusal(&pool).await;
    assert_eq!(*error.kind(), ConnectErrorKind::Timeout(connect_timeout), "{error}");
}

#[tokio::test]
async fn after_connect_sets_each_connection_up_once() {
    let server = Server::shared().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let pool = Pool::builder(server.config())
        .max_size(2)
        .after_connect(move |client| {
            counted.fetch_add(1, SeqCst);
            Box::pin(async move { client.batch_execute("SET search_path = orders").await })
        })
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(scalar(&pool, "SELECT current_setting('search_path')").await, "orders");
    }
    assert_eq!(runs.load(SeqCst), 1);
    let _held = pool.get_timeout(LONG).await.unwrap();
    assert_eq!(scalar(&pool, "SELECT current_setting('search_path')").await, "orders");
    assert_eq!(runs.load(SeqCst), 2);
}

#[tokio::test]
async fn a_failing_hook_is_named_and_leaves_no_connection() {
    let server = Server::shared().await;
    let pool = Pool::builder(server.config())
        .name("hooked")
        .after_connect(|client| Box::pin(async move { client.batch_execute("SET nonsense").await }))
        .build()
        .unwrap();
    let error = refusal(&pool).await;
    assert_eq!(*error.kind(), ConnectErrorKind::AfterConnect);
    let named = format!("{}: the after_connect hook failed with SQLSTATE 42601", server.addr());
    assert_eq!(error.to_string(), named);
    eventually("no connection is left", LONG, async || server.connection_count("hooked").await == 0).await;
}

#[tokio::test]
async fn a_hanging_hook_has_only_connect_timeout() {
    let server = Server::shared().await;
    let pool = Pool::builder(server.config())
        .connect_timeout(Duration::from_millis(500))
        .after_connect(|client| Box::pin(async move { client.batch_execute("SELECT pg_sleep(5)").await }))
        .build()
        .unwrap();
    let error = refusal(&pool).await;
    assert_eq!(*error.kind(), ConnectErrorKind::Timeout(Duration::from_millis(500)));
}
