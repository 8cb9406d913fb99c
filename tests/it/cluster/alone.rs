//! A service that uses a [`Pool`] alone pays nothing for the feature: no connection and no byte more. What it costs
//! in packages is in `./dev check`, and in instructions in `./dev ratios instructions`.

use failfast::{Cluster, Pool};

use super::SECOND;
use crate::pool::LONG;
use crate::support::eventually;
use crate::support::proxy::{Proxy, Way};
use crate::support::server::Server;

const CONNECTIONS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_cluster_opens_its_own_connections_only_and_asks_nothing() {
    let server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let at_proxy = || server.config_at(proxy.addr());
    let pool = Pool::builder(at_proxy()).name("alone").max_size(CONNECTIONS).build().unwrap();
    pool.warm_up(CONNECTIONS, LONG).await.unwrap();
    for _ in 0..100 {
        pool.query_one("SELECT 1", &[]).await.unwrap();
    }
    let mut before = 0;
    // Once, with two idle connections, the pool asks how many the server has left.
    eventually("the last bytes have passed the proxy", LONG, async || {
        tokio::time::sleep(SECOND).await;
        std::mem::replace(&mut before, proxy.bytes(Way::ToServer)) == before
    })
    .await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(proxy.bytes(Way::ToServer), before, "an idle pool has sent something");
    assert_eq!(proxy.accepted(), CONNECTIONS as u64, "connections that the pool has opened in all");
    drop(pool);

    // What is counted here does happen with a cluster.
    let cluster = Cluster::builder(at_proxy()).pool(|pool| pool.max_size(CONNECTIONS)).build().unwrap();
    cluster.warm_up(0, LONG).await.unwrap();
    cluster.primary().unwrap().warm_up(CONNECTIONS, LONG).await.unwrap();
    assert_eq!(proxy.accepted(), CONNECTIONS as u64 * 2 + 1, "the cluster's own connection");
    let before = proxy.bytes(Way::ToServer);
    eventually("the scout asks", LONG, async || proxy.bytes(Way::ToServer) > before).await;
}
