//! A server with one processor, which other sessions keep busy.

use std::time::Duration;

use failfast::{Adaptive, AdviceReason, Pool};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::{Load, MILLISECOND, STEPS, Seen, has, lines, pool, status};
use crate::support::eventually;
use crate::support::server::Server;

/// Some milliseconds of work.
pub(super) const WORK: &str = "SELECT sum(sqrt(n)) FROM generate_series(1, 30000) n";

/// Sessions beside the pool that compute. Dropping it ends them.
pub(super) struct Burners(JoinSet<()>);

impl Burners {
    pub(super) async fn begin(server: &Server, count: usize) -> Self {
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let client: Client = server.admin().await;
            tasks.spawn(async move { while client.simple_query(WORK).await.is_ok() {} });
        }
        Self(tasks)
    }

    pub(super) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

pub(super) async fn busy_server() -> Server {
    let mut server = Server::own(&[("jit", "off"), ("max_parallel_workers_per_gather", "0")]).await;
    server.limit_processors(1.0).await;
    server
}

/// A pool of 15 that knows what is usual.
pub(super) async fn calm(server: &Server, name: &'static str, adaptive: Adaptive) -> (Pool, Seen) {
    let (builder, seen) = pool(server.config(), name, adaptive);
    let acquire = Duration::from_secs(5);
    let pool = builder.max_size(15).acquire_timeout(acquire).build().unwrap();
    let load = Load::begin(&pool, "work", WORK, 1, 30 * MILLISECOND);
    load.more(120).await;
    drop(load);
    (pool, seen)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs processors of its own: ./dev adaptive runs it"]
async fn a_saturated_server_gets_fewer_connections_and_they_come_back() {
    let server = busy_server().await;
    let (pool, seen) = calm(&server, "adaptive-burner", Adaptive::Act).await;
    let burners = Burners::begin(&server, 6).await;
    let load = Load::begin(&pool, "work", WORK, 25, MILLISECOND);
    eventually("it shrinks", STEPS, async || status(&pool).limit < 15).await;
    assert!(has(&seen, "limit_changed", Some(AdviceReason::Saturated)), "{:?}", lines(&seen));
    let (limit, in_use) = (status(&pool).limit, pool.status().in_use);
    assert!((4..15).contains(&limit) && in_use <= 15, "the floor is a quarter: {limit}");
    eventually("leases end, and nobody takes their place", STEPS, async || {
        let now = pool.status();
        now.in_use <= now.max_size
    })
    .await;
    drop(load);
    burners.end().await;
    let load = Load::begin(&pool, "work", WORK, 1, 5 * MILLISECOND);
    eventually("all of it comes back", 2 * STEPS, async || pool.status().max_size == 15).await;
    drop(load);
}

/// The owner's orders hold at once, whatever the limit is doing, and a drain ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs processors of its own: ./dev adaptive runs it"]
async fn orders_of_the_owner_hold_while_the_limit_changes() {
    let server = busy_server().await;
    let (pool, _seen) = calm(&server, "adaptive-orders", Adaptive::Act).await;
    let burners = Burners::begin(&server, 6).await;
    let load = Load::begin(&pool, "work", WORK, 25, MILLISECOND);
    eventually("it shrinks", STEPS, async || status(&pool).limit < 15).await;
    for size in [3, 20, 1, 15, 8] {
        pool.resize(size).unwrap();
        for _ in 0..40 {
            let now = pool.status();
            assert!(now.max_size <= size && status(&pool).max_size == size, "{now}");
            load.more(1).await;
        }
    }
    let left = pool.drain(STEPS).await;
    assert_eq!(left, 0);
    drop(load);
    burners.end().await;
}
