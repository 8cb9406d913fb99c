//! Calls that were on their way to a host when it stopped being the primary.

use std::time::{Duration, Instant};

use failfast::{Cluster, ClusterBuilder, ErrorKind, Freshness, Role, Shedding};
use futures_util::future::join_all;

use super::{SECOND, Seen, builder, is_complete, role};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;
use crate::support::proxy::Proxy;

const TABLE: &str = "CREATE TABLE written (n int PRIMARY KEY)";
const INSERT: &str = "INSERT INTO written VALUES ($1) ON CONFLICT DO NOTHING";
const COUNT: &str = "SELECT count(*) FROM written";

/// A cluster with few connections, whose callers may wait for long.
async fn small(nodes: &Replicated) -> Cluster {
    of_few(nodes, builder(nodes)).await
}

async fn of_few(nodes: &Replicated, builder: ClusterBuilder) -> Cluster {
    let pool = |builder: failfast::PoolBuilder| builder.max_size(2).max_waiting(300).acquire_timeout(SECOND * 30);
    let cluster = builder.pool(pool).build().unwrap();
    cluster.batch_execute(TABLE).await.unwrap();
    is_complete(&cluster, nodes).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_at_the_old_primary_are_not_written_there() {
    let mut nodes = Replicated::start(1).await;
    let cluster = small(&nodes).await;
    let held = [cluster.get().await.unwrap(), cluster.get().await.unwrap()];
    let queue = |first: i32| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let insert = async |n: i32| match n % 3 {
                0 => cluster.call().shedding(Shedding::Off).execute(INSERT, &[&n]).await.map(drop),
                1 => {
                    let work = async |tx: failfast::Transaction| tx.execute(INSERT, &[&n]).await;
                    cluster.call().shedding(Shedding::Off).transaction(work).await.map(drop)
                }
                _ => {
                    let client = cluster.call().shedding(Shedding::Off).get().await?;
                    client.execute(INSERT, &[&n]).await.map(drop)
                }
            };
            join_all((first..first + 100).map(insert)).await
        })
    };
    let waiters = [queue(0), queue(100)];
    let pool = cluster.primary().unwrap().clone();
    eventually("all of them wait", LONG, async || pool.status().waiting == 200).await;
    // The old primary is reachable, and writable on its old timeline.
    nodes.promote(1).await;
    eventually("the old primary is seen", LONG, async || role(&cluster, 0) == Role::Fenced).await;
    drop(held);
    for waiter in waiters {
        for result in waiter.await.unwrap() {
            result.unwrap();
        }
    }
    assert_eq!(nodes.node(0).scalar(COUNT).await, "0", "a write reached the old primary");
    assert_eq!(nodes.node(1).scalar(COUNT).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spilled_read_that_waits_at_the_old_primary_is_not_served_there() {
    let mut nodes = Replicated::start(2).await;
    let cluster = small(&nodes).await;
    nodes.pause_replay(1).await;
    nodes.pause_replay(2).await;
    let held = [cluster.get().await.unwrap(), cluster.get().await.unwrap()];
    let reader = cluster.clone();
    let read = tokio::spawn(async move {
        // No replica can have this yet, so the primary has to serve it.
        let call = reader.call().after(Instant::now() + SECOND * 3_600).deadline(SECOND * 30);
        call.query_one("SELECT pg_is_in_recovery(), pg_walfile_name(pg_current_wal_insert_lsn())", &[]).await
    });
    let pool = cluster.primary().unwrap().clone();
    eventually("it waits", LONG, async || pool.status().waiting == 1).await;
    nodes.resume_replay(1).await;
    nodes.promote(1).await;
    eventually("the old primary is seen", LONG, async || role(&cluster, 0) == Role::Fenced).await;
    drop(held);
    let file: String = read.await.unwrap().unwrap().get(1);
    assert_eq!(&file[..8], "00000002", "served by the old primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_primary_a_queued_call_is_refused_when_it_gets_its_connection() {
    let mut nodes = Replicated::start(2).await;
    let seen = Seen::default();
    let cluster = of_few(&nodes, builder(&nodes).observer(seen.observe())).await;
    let held = [cluster.get().await.unwrap(), cluster.get().await.unwrap()];
    let writer = cluster.clone();
    let write = tokio::spawn(async move { writer.execute(INSERT, &[&1]).await });
    let pool = cluster.primary().unwrap().clone();
    eventually("it waits", LONG, async || pool.status().waiting == 1).await;
    // Both begin timeline 2, so there are two primaries, and the old one is none of them.
    let changes = seen.count("primary_changed");
    let both = [nodes.node(1), nodes.node(2)].map(|node| node.scalar("SELECT pg_promote(true, 60)"));
    join_all(both).await;
    eventually("both are seen", LONG, async || {
        cluster.primary().is_err_and(|error| error.kind() == ErrorKind::TwoPrimaries)
    })
    .await;
    drop(held);
    match write.await.unwrap() {
        Err(error) => {
            assert_eq!((error.kind(), error.effect()), (ErrorKind::TwoPrimaries, failfast::Effect::NotApplied));
        }
        // On a busy machine one is promoted before the other, or is silent for three seconds. Then one is the only one.
        Ok(_) => assert!(seen.count("primary_changed") > changes, "it was written while there were two primaries"),
    }
    assert_eq!(nodes.node(0).scalar(COUNT).await, "0");
    // Under across_failover it waits until one is left.
    let changes = seen.count("primary_changed");
    let call = cluster.call().across_failover().deadline(SECOND * 20);
    let stop = async {
        tokio::time::sleep(SECOND / 2).await;
        nodes.stop(2).await;
    };
    let (written, ()) = tokio::join!(call.execute(INSERT, &[&2]), stop);
    written.unwrap();
    let is_at_the_last = nodes.node(1).scalar("SELECT count(*) FROM written WHERE n = 2").await == "1";
    assert!(is_at_the_last || seen.count("primary_changed") > changes + 1, "it was written elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_goes_dark_costs_no_call_that_may_wait() {
    let mut nodes = Replicated::start(1).await;
    let cluster = small(&nodes).await;
    cluster.execute(INSERT, &[&0]).await.unwrap();
    // Both connections are made.
    drop([cluster.get().await.unwrap(), cluster.get().await.unwrap()]);
    nodes.pause(0).await;
    let within = |call: failfast::ClusterCall<'static>| call.across_failover().deadline(SECOND * 15);
    let cluster: &'static Cluster = Box::leak(Box::new(cluster));
    // These may run twice, so they leave the dark host although they were sent. They hold both connections.
    let sent: Vec<_> = [1, 2]
        .into_iter()
        .map(|n| tokio::spawn(async move { within(cluster.call()).idempotent().execute(INSERT, &[&n]).await }))
        .collect();
    let pool = cluster.primary().unwrap().clone();
    eventually("both are sent", LONG, async || pool.status().in_use == 2).await;
    // These were not sent.
    let queued: Vec<_> = [3, 4]
        .into_iter()
        .map(|n| tokio::spawn(async move { within(cluster.call()).execute(INSERT, &[&n]).await }))
        .collect();
    let read = tokio::spawn(async move {
        let call = within(cluster.call().after(Instant::now() + SECOND * 3_600));
        call.query_one("SELECT pg_is_in_recovery()", &[]).await
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    nodes.promote(1).await;
    for task in sent.into_iter().chain(queued) {
        task.await.unwrap().unwrap();
    }
    assert!(!read.await.unwrap().unwrap().get::<_, bool>(0));
    println!("all of them {:?} after the promotion began", begun.elapsed());
    assert!(begun.elapsed() < SECOND * 10, "{:?}", begun.elapsed());
    assert_eq!(nodes.node(1).scalar(COUNT).await, "5");
    nodes.unpause(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_needs_the_primary_waits_for_one() {
    let mut nodes = Replicated::start(1).await;
    let cluster = small(&nodes).await;
    nodes.stop(0).await;
    let call = cluster.call().after(Instant::now() + SECOND * 3_600).across_failover().deadline(SECOND * 20);
    let promote = async {
        tokio::time::sleep(SECOND / 2).await;
        nodes.promote(1).await;
    };
    let (row, ()) = tokio::join!(call.query_one("SELECT pg_is_in_recovery()", &[]), promote);
    assert!(!row.unwrap().get::<_, bool>(0));
    // Without the word it fails at once, and the position of before the failover needs the primary no more.
    let served = cluster.call().read(Freshness::Any).query_one("SELECT 1", &[]).await;
    served.unwrap();
}

/// Kubernetes and HAProxy move a name to the new primary and leave open connections where they are. The old primary
/// comes back as a standby before the name moves, and keeps the scout's connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_while_its_old_server_is_a_standby_is_followed() {
    let mut nodes = Replicated::start(1).await;
    let proxy = Proxy::start(nodes.node(0).addr()).await;
    let cluster = Cluster::builder(nodes.node(0).config_at(proxy.addr())).build().unwrap();
    cluster.batch_execute(TABLE).await.unwrap();
    nodes.stop(0).await;
    nodes.promote(1).await;
    nodes.rebuild(0).await;
    proxy.switch(nodes.node(0).addr());
    eventually("the scout is connected to the standby", LONG, async || role(&cluster, 0) == Role::Replica).await;
    proxy.switch(nodes.node(1).addr());
    let begun = Instant::now();
    cluster.call().across_failover().deadline(SECOND * 20).execute(INSERT, &[&1]).await.unwrap();
    assert!(begun.elapsed() < SECOND * 10, "{:?}", begun.elapsed());
    assert_eq!(nodes.node(1).scalar(COUNT).await, "1");
}
