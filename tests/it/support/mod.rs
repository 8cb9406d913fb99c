//! What the tests need: a real server in a container ([`server`]), a primary with standbys ([`cluster`]), a cluster
//! that fails over by itself ([`patroni`]), a pooler in front of a server ([`pgbouncer`]) and a network that fails on
//! command ([`proxy`]).

pub(crate) mod actor;
#[cfg(feature = "fleet")]
pub(crate) mod apart;
pub(crate) mod cluster;
mod docker;
pub(crate) mod patroni;
pub(crate) mod pgbouncer;
pub(crate) mod proxy;
pub(crate) mod server;

use std::{
    net::TcpListener,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

/// Waits until `condition` holds; panics with `what` if that takes longer than `within`.
pub(crate) async fn eventually<F: AsyncFnMut() -> bool>(what: &str, within: Duration, mut condition: F) {
    let polling = async {
        while !condition().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(within, polling).await.is_err() {
        panic!("not within {within:?}: {what}");
    }
}

/// Returns a TCP port that is free on every address, and a different one each time.
///
/// It lies below the range of ephemeral ports, so no outgoing connection and no bind to port 0 takes it. Its owner may
/// be down for a while, like a stopped server or a refusing proxy.
pub(crate) fn free_port() -> u16 {
    const PORTS: u32 = 12_000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(fastrand::u32(..PORTS)));
    let next = || 20_000 + (NEXT.fetch_add(1, Relaxed) % PORTS) as u16;
    let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    std::iter::repeat_with(next).take(1_000).find(free).expect("a free port")
}
