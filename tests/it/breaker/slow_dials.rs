//! Slow dials are not failures. The pool finds a server with slow dials as soon as any other.

use std::future::pending;
use std::time::{Duration, Instant};

use failfast::breaker::{BreakerConfig, State};
use failfast::{ConnectErrorKind, Error, Pool, RetryConfig};
use futures_util::future::join_all;

use super::{MILLISECOND, ask, comes_to};
use crate::dial::matrix::{Scene, Slow};
use crate::pool::LONG;
use crate::support::{eventually, proxy::Proxy, server::Server};

/// Dials before the outage were fast. Whatever the size of the pool, the first call succeeds within 3 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_slow_dials_serves_within_three_seconds_after_an_outage() {
    let scenes = [Slow::Credentials, Slow::Network, Slow::Server].into_iter().flat_map(|slow| {
        [1, 5, 50].into_iter().map(move |size| async move {
            let breaker = BreakerConfig::default().volume_threshold(3);
            let scene = Scene::new(format!("back {slow:?} {size}"), slow, size, breaker).await;
            scene.ask().await.unwrap();
            // Dials become slow before the outage, so a look at the server that begins at the end of the outage is slow
            // too.
            scene.dials_take(1_200 * MILLISECOND).await;
            scene.outage().await;
            scene.proxy.accept().await;
            (slow, size, scene.first_success().await)
        })
    });
    for (slow, size, took) in join_all(scenes).await {
        println!("dials of 1.2 s ({slow:?}), max_size {size}: first success after {took:.1?}");
        assert!(took < Duration::from_secs(3), "{slow:?}, {size}: {took:?}");
    }
}

/// Only the provider is to blame, and every caller's error names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_credentials_provider_opens_no_circuit() {
    let server = Server::shared().await;
    let pool = Pool::builder(server.config()).name("sealed").credentials(pending).max_size(10);
    let breaker = BreakerConfig::default().volume_threshold(2);
    let pool = pool.connect_timeout(1_500 * MILLISECOND).acquire_timeout(LONG).breaker(breaker).build().unwrap();
    for answer in join_all((0..20).map(|_| ask(&pool))).await {
        let Err(Error::Connect { source, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(*source.kind(), ConnectErrorKind::Credentials);
    }
    assert_eq!(pool.breaker().state(), State::Closed);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

/// The hook is the owner's code, like the credentials provider.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_after_connect_hook_opens_no_circuit() {
    let pool = Pool::builder(Server::shared().await.config()).name("hangs_in_hook").connect_timeout(300 * MILLISECOND);
    let pool = pool.after_connect(|_| Box::pin(pending())).build().unwrap();
    let Err(Error::Connect { source, .. }) = ask(&pool).await else { panic!("the call did not fail with its dial") };
    assert!(source.to_string().ends_with("not ready within 300 ms: the after_connect hook did not end"), "{source}");
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

/// A pool that never connected has no times to compare with. Only `connect_timeout` ends its dials, and each such end
/// counts once.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_counts_when_connect_timeout_ends_a_dial() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    proxy.stall();
    let pool = Pool::builder(server.config_at(proxy.addr())).name("mute").max_size(2).max_connecting(1);
    let breaker = BreakerConfig::default().volume_threshold(2);
    let pool = pool.connect_timeout(1_500 * MILLISECOND).acquire_timeout(LONG).breaker(breaker);
    let pool = pool.retry(RetryConfig::off()).build().unwrap();
    let begun = Instant::now();
    let Err(Error::Connect { source, .. }) = ask(&pool).await else { panic!("the call did not fail with its dial") };
    assert!(source.to_string().ends_with("not ready within 1.5 s: the server did not answer"), "{source}");
    assert!(begun.elapsed() >= 1_500 * MILLISECOND);
    assert_eq!(
        (proxy.accepted(), pool.breaker().snapshot().counts.failures),
        (1, 1),
        "one dial, without another beside it"
    );
    comes_to(&pool, State::Closed).await;
    eventually("the circuit opens", LONG, async || {
        let _ = ask(&pool).await;
        pool.breaker().state() == State::Open
    })
    .await;
}

/// In the half-open state, the dial that the probe waits for has the whole `connect_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_circuit_waits_for_a_slow_dial() {
    let breaker = BreakerConfig::default().volume_threshold(3).reset_timeout(300 * MILLISECOND).reset_timeout_jitter(0);
    let scene = Scene::new("half_open".to_owned(), Slow::Server, 1, breaker).await;
    scene.ask().await.unwrap();
    scene.outage().await;
    comes_to(&scene.pool, State::HalfOpen).await;
    scene.dials_take(2_500 * MILLISECOND).await;
    scene.proxy.accept().await;
    comes_to(&scene.pool, State::HalfOpen).await;
    let dials = scene.proxy.accepted();
    scene.ask().await.unwrap();
    comes_to(&scene.pool, State::Closed).await;
    assert!(scene.proxy.accepted() - dials <= 1);
}
