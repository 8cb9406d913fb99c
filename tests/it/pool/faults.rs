//! Faults of the server and the network. Every caller gets an answer in time, the error names the cause, and the pool
//! recovers by itself.

use std::time::{Duration, Instant};

use failfast::{ConnectErrorKind, Error, Pool};
use tokio_postgres::error::SqlState;

use super::{LONG, shared};
use crate::support::proxy::{Close, Proxy};
use crate::support::{eventually, free_port, server::Server};

fn connect_error(error: Error) -> failfast::ConnectError {
    let Error::Connect { source, retry_after, .. } = error else { panic!("{error:?}") };
    assert!(retry_after <= Duration::from_secs(1));
    source
}

#[tokio::test]
async fn a_refused_dial_fails_at_once() {
    let mut config = Server::shared().await.config_at(([127, 0, 0, 1], free_port()).into());
    config.password("hunter2");
    let pool = Pool::builder(config).build().unwrap();
    let asked = Instant::now();
    let error = pool.get_timeout(LONG).await.unwrap_err();
    assert!(asked.elapsed() < LONG / 2, "the error came at the deadline, not at once");
    assert_eq!(error.retry_after().map(|wait| wait <= Duration::from_secs(1)), Some(true));
    assert!(error.to_string().ends_with(": connection refused"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
    assert_eq!(*connect_error(error).kind(), ConnectErrorKind::Io);
}

#[tokio::test]
async fn an_unknown_host_name_is_reported() {
    let pool = Pool::builder("host=nowhere.invalid user=u".parse().unwrap()).build().unwrap();
    let error = connect_error(pool.get_timeout(LONG).await.unwrap_err());
    assert_eq!(*error.kind(), ConnectErrorKind::Resolve);
}

#[tokio::test]
async fn a_wrong_password_is_reported() {
    let mut config = Server::shared().await.config();
    config.password("hunter2");
    let pool = Pool::builder(config).build().unwrap();
    let error = connect_error(pool.get_timeout(LONG).await.unwrap_err());
    assert_eq!(error.sqlstate(), Some(&SqlState::INVALID_PASSWORD));
    assert!(!format!("{error:?}{error}").contains("hunter2"));
}

#[tokio::test]
async fn an_unknown_database_is_reported() {
    let mut config = Server::shared().await.config();
    config.dbname("nosuch");
    let pool = Pool::builder(config).build().unwrap();
    let error = connect_error(pool.get_timeout(LONG).await.unwrap_err());
    assert_eq!(error.sqlstate(), Some(&SqlState::INVALID_CATALOG_NAME));
}

#[tokio::test]
async fn a_black_hole_costs_the_callers_timeout_and_no_more() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    proxy.stall();
    let pool = Pool::builder(Server::shared().await.config_at(proxy.addr())).name("hole").max_size(2).build().unwrap();
    for _ in 0..3 {
        let asked = Instant::now();
        let error = pool.get_timeout(Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, Error::AcquireTimeout { .. }), "{error:?}");
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
    assert!(proxy.accepted() <= 3, "the pool dialed for a caller that had given up");
    proxy.resume();
    drop(pool.get_timeout(LONG).await.unwrap());
}

#[tokio::test]
async fn connect_timeout_bounds_a_dial_that_hangs() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    proxy.stall();
    let config = Server::shared().await.config_at(proxy.addr());
    let pool = Pool::builder(config).connect_timeout(Duration::from_millis(150)).build().unwrap();
    let error = connect_error(pool.get_timeout(LONG).await.unwrap_err());
    assert_eq!(*error.kind(), ConnectErrorKind::Timeout(Duration::from_millis(150)));
    assert_eq!(
        error.to_string(),
        format!("127.0.0.1:{}: not ready within 150 ms: the server did not answer", proxy.addr().port())
    );
}

#[tokio::test]
async fn the_second_host_serves_when_the_first_refuses() {
    let server = Server::shared().await;
    let mut config = server.config_at(([127, 0, 0, 1], free_port()).into());
    config.host("127.0.0.1").port(server.addr().port());
    let pool = Pool::builder(config).name("second").build().unwrap();
    drop(pool.get_timeout(LONG).await.unwrap());
}

#[tokio::test]
async fn connections_cut_while_idle_reach_no_caller() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    let config = Server::shared().await.config_at(proxy.addr());
    let pool = Pool::builder(config).name("cut").max_size(3).build().unwrap();
    let all = [pool.get_timeout(LONG).await, pool.get_timeout(LONG).await, pool.get_timeout(LONG).await];
    all.into_iter().for_each(|client| drop(client.unwrap()));
    assert_eq!(pool.status().idle, 3);
    proxy.cut(Close::Reset);
    eventually("the pool notices the lost connections", LONG, async || {
        let client = pool.get_timeout(LONG).await.unwrap();
        client.batch_execute("SELECT 1").await.is_ok() && proxy.accepted() > 3
    })
    .await;
}

#[tokio::test]
async fn a_server_stopped_and_started_is_found_again() {
    let mut server = Server::own(&[]).await;
    let pool = Pool::builder(server.config()).name("stopped").build().unwrap();
    drop(pool.get_timeout(LONG).await.unwrap());
    server.stop().await;
    eventually("the pool notices", LONG, async || pool.get_timeout(LONG).await.is_err()).await;
    let asked = Instant::now();
    let error = pool.get_timeout(LONG).await.unwrap_err();
    assert!(asked.elapsed() < LONG / 2);
    assert!(error.retry_after().is_some(), "{error:?}");
    server.start().await;
    eventually("the pool is back", LONG, async || pool.get().await.is_ok()).await;
}

#[tokio::test]
async fn too_many_clients_are_reported() {
    let server = Server::own(&[("max_connections", "5"), ("superuser_reserved_connections", "0")]).await;
    let pool = Pool::builder(server.config()).name("crowd").max_size(20).build().unwrap();
    let mut held = Vec::new();
    let error = loop {
        match pool.get_timeout(Duration::from_millis(500)).await {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
    };
    let (Error::AcquireTimeout { last_connect_error, .. } | Error::CircuitOpen { last_connect_error, .. }) = &error
    else {
        panic!("{error:?}")
    };
    let why = last_connect_error.as_ref().unwrap();
    assert_eq!(why.sqlstate(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    assert!(error.to_string().contains("(53300)"), "{error}");
    assert!((2..=5).contains(&held.len()), "{}", held.len());
    held.pop();
    pool.breaker().reset("this test is not about the failed dials");
    drop(pool.get_timeout(LONG).await.unwrap());
}

/// Callers are cancelled at every stage. Afterwards the server and the pool agree on the number of connections.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_callers_leave_nothing_behind() {
    let pool = shared("cancelled").await.max_size(5).max_waiting(2_000).build().unwrap();
    fastrand::seed(7);
    let mut callers = Vec::new();
    for _ in 0..2_000 {
        let pool = pool.clone();
        callers.push(tokio::spawn(async move {
            let client = pool.get_timeout(LONG).await.unwrap();
            client.batch_execute("SELECT 1").await.unwrap();
        }));
        if fastrand::u8(0..4) == 0 {
            tokio::task::yield_now().await;
        }
        if fastrand::bool() {
            callers.swap_remove(fastrand::usize(0..callers.len())).abort();
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    eventually("the slots add up", LONG, async || {
        let status = pool.status();
        status.in_use + status.dialing + status.closing + status.waiting == 0
    })
    .await;
    let server = Server::shared().await;
    let idle = pool.status().idle as u64;
    eventually("the server has as many connections as the pool", LONG, async || {
        server.connection_count("cancelled").await == idle
    })
    .await;
}
