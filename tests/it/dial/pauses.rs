//! Dials with a lasting cause of failure have growing pauses, and callers get the error meanwhile. Somebody who removes
//! the cause can end the pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::{Config, Credentials, Error, Pool, PoolBuilder};

use super::LONG;
use crate::support::{eventually, proxy::Proxy, server::Server};

/// The first two pauses are 1 and 2 s, less a tenth at most.
const THREE_TRIES: Duration = Duration::from_millis(2_700);

async fn config_by(proxy: &Proxy, edit: impl FnOnce(&mut Config)) -> Config {
    let mut config = Server::shared().await.config_at(proxy.addr());
    edit(&mut config);
    config
}

/// Only the pool itself dials, because it keeps one connection idle. Asserts that its pauses grow.
async fn assert_tried_seldom(builder: PoolBuilder, tries: impl Fn() -> u64) -> Pool {
    let begun = Instant::now();
    let pool = builder.min_idle(1).build().unwrap();
    eventually("a third try", LONG, async || tries() >= 3).await;
    assert!(begun.elapsed() >= THREE_TRIES, "{:?}", begun.elapsed());
    let Err(Error::Connect { retry_after, .. }) = pool.get().await else { panic!("nothing is connected") };
    assert!(retry_after > Duration::from_secs(1), "{retry_after:?}");
    pool
}

#[tokio::test]
async fn the_pauses_after_a_wrong_password_grow_until_somebody_flushes_or_warms_up() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    let config = config_by(&proxy, |config| _ = config.password("wrong")).await;
    let pool = assert_tried_seldom(Pool::builder(config).name("wrong_password"), || proxy.accepted()).await;
    let (asked, tries) = (Instant::now(), proxy.accepted());
    pool.flush();
    eventually("another try", LONG, async || proxy.accepted() > tries && pool.status().dialing == 0).await;
    let tries = proxy.accepted();
    let warmed = pool.warm_up(1, Duration::from_millis(500)).await;
    assert!(matches!(warmed, Err(Error::Connect { .. })), "{warmed:?}");
    assert!(proxy.accepted() > tries);
    assert!(asked.elapsed() < Duration::from_secs(3), "the next was 4 s away: {:?}", asked.elapsed());
}

#[tokio::test]
async fn the_pauses_after_an_unknown_database_or_role_grow() {
    let (one, other) =
        (Proxy::start(Server::shared().await.addr()).await, Proxy::start(Server::shared().await.addr()).await);
    let unknown = config_by(&one, |config| _ = config.dbname("nowhere")).await;
    let refused = config_by(&other, |config| _ = config.password("wrong").user("nobody")).await;
    tokio::join!(
        assert_tried_seldom(Pool::builder(unknown).name("nowhere"), || one.accepted()),
        assert_tried_seldom(Pool::builder(refused).name("nobody"), || other.accepted()),
    );
}

/// A readiness probe makes the pool look at the server. Such a look may be a dial.
#[tokio::test]
async fn the_pools_looks_at_the_server_respect_the_pause() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    let config = config_by(&proxy, |config| _ = config.password("wrong")).await;
    let pool = Pool::builder(config).name("looks_wait").unready_after(Duration::from_millis(300)).build().unwrap();
    let begun = Instant::now();
    eventually("a third try", LONG, async || {
        let _ = pool.ready();
        proxy.accepted() >= 3
    })
    .await;
    assert!(begun.elapsed() >= THREE_TRIES, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_pauses_after_a_failed_provider_grow() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let builder = Pool::builder(Server::shared().await.config()).name("vault").credentials(move || {
        counter.fetch_add(1, SeqCst);
        async { Err("the vault is sealed".into()) }
    });
    assert_tried_seldom(builder, || asked.load(SeqCst) as u64).await;
}

/// The pool asks the provider, and dials the server only with another password.
#[tokio::test]
async fn a_new_answer_of_the_provider_is_tried_at_once() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    let (asked, is_right) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counter, right) = (Arc::clone(&asked), Arc::clone(&is_right));
    let pool = Pool::builder(config_by(&proxy, |_| ()).await).name("rotates").min_idle(1).credentials(move || {
        counter.fetch_add(1, SeqCst);
        let password = if right.load(SeqCst) { "secret" } else { "wrong" };
        async move { Ok(Credentials::password(password)) }
    });
    let pool = pool.build().unwrap();
    eventually("asked ten times", LONG, async || asked.load(SeqCst) >= 10).await;
    let tries = proxy.accepted();
    assert!(tries <= 4, "{tries}");
    is_right.store(true, SeqCst);
    let changed = Instant::now();
    eventually("a connection", LONG, async || pool.status().idle == 1).await;
    assert!(changed.elapsed() < Duration::from_millis(2_500), "{:?}", changed.elapsed());
    assert_eq!(proxy.accepted(), tries + 1);
}

/// Somebody may have set the same password on the server.
#[tokio::test]
async fn after_a_flush_the_same_answer_of_the_provider_is_tried_at_once() {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let pool = Pool::builder(config_by(&proxy, |_| ()).await).name("rotated").min_idle(1).credentials(move || {
        counter.fetch_add(1, SeqCst);
        async { Ok(Credentials::password("wrong")) }
    });
    let pool = pool.build().unwrap();
    eventually("a third try", LONG, async || proxy.accepted() >= 3).await;
    // The next dial is 4 s away, although the pool asks the provider meanwhile.
    let (before, tried) = (asked.load(SeqCst), Instant::now());
    eventually("asked again", LONG, async || asked.load(SeqCst) > before).await;
    assert_eq!(proxy.accepted(), 3);
    pool.flush();
    eventually("a fourth try", LONG, async || proxy.accepted() > 3).await;
    assert!(tried.elapsed() < Duration::from_secs(3), "{:?}", tried.elapsed());
}
