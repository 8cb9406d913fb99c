//! The primary is found, followed and never written to again once another one has taken over.

use std::time::{Duration, Instant};

use failfast::{Error, ErrorKind, EventKind, Role};

use super::{SECOND, Seen, builder, is_complete, role};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const TABLE: &str = "CREATE TABLE written (n int PRIMARY KEY)";
const INSERT: &str = "INSERT INTO written VALUES ($1) ON CONFLICT DO NOTHING";
const COUNT: &str = "SELECT count(*) FROM written";

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_followed_and_the_old_one_is_never_written_to_again() {
    let mut nodes = Replicated::start(2).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.batch_execute(TABLE).await.unwrap();
    cluster.execute(INSERT, &[&1]).await.unwrap();
    is_complete(&cluster, &nodes).await;
    assert_eq!([0, 1, 2].map(|node| role(&cluster, node)), [Role::Primary, Role::Replica, Role::Replica]);
    assert_eq!(seen.count("primary_changed"), 0, "the first one is no change");

    nodes.kill(0).await;
    let error = cluster.execute(INSERT, &[&2]).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::Postgres), "{error}");
    nodes.promote(1).await;
    let promoted = Instant::now();
    let write = || cluster.call().across_failover().deadline(SECOND * 10).execute(INSERT, &[&3]);
    write().await.unwrap();
    let took = promoted.elapsed();
    assert!(took < SECOND * 3 / 2, "{took:?} after the promotion");
    assert_eq!(nodes.node(1).scalar(COUNT).await, "2");
    nodes.follow(2).await;
    let changed = seen.find(|kind| match kind {
        EventKind::PrimaryChanged { from, to, last, first, .. } => Some((from.clone(), to.clone(), *last, *first)),
        _ => None,
    });
    let (from, to, last, first) = changed.expect("an event");
    let label = |node: usize| Some(cluster.hosts()[node].host.to_string());
    assert_eq!((from, to), (label(0), label(1)));
    assert!(last.is_some_and(|last| last.is_known()) && first.is_some(), "{last:?} {first:?}");

    // It is writable, on its old timeline.
    nodes.start_again(0).await;
    eventually("the old primary is seen", LONG, async || role(&cluster, 0) == Role::Fenced).await;
    for n in 10..60 {
        cluster.execute(INSERT, &[&n]).await.unwrap();
    }
    assert_eq!(nodes.node(0).scalar(COUNT).await, "1", "a write reached the old primary");
    assert_eq!(nodes.node(1).scalar(COUNT).await, "52");
    assert_eq!(seen.count("primary_changed"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_fails_no_call_that_may_wait() {
    let mut nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.batch_execute(TABLE).await.unwrap();
    is_complete(&cluster, &nodes).await;
    let writer = cluster.clone();
    let writers = tokio::spawn(async move {
        let mut failed = Vec::new();
        for n in 0..400 {
            let call = writer.call().across_failover().idempotent().deadline(SECOND * 20);
            if let Err(error) = call.execute(INSERT, &[&n]).await {
                failed.push((n, error));
            }
            let tx = writer.call().across_failover().deadline(SECOND * 20);
            let insert = async |tx: failfast::Transaction| tx.execute(INSERT, &[&(n + 1_000)]).await;
            match tx.transaction(insert).await {
                Ok(_) | Err(Error::CommitUnknown { .. }) => {}
                Err(error) => failed.push((n, error)),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        failed
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    nodes.stop(0).await;
    nodes.promote(1).await;
    let failed = writers.await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(nodes.node(1).scalar("SELECT count(*) FROM written WHERE n < 1000").await, "400");
    assert_eq!(seen.count("primary_changed"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_primary_a_call_fails_at_once_and_says_when_to_come_back() {
    let mut nodes = Replicated::start(1).await;
    let cluster = failfast::Cluster::builder(nodes.node(1).config()).build().unwrap();
    let error = cluster.execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::NoPrimary, Some(SECOND)));
    let begun = Instant::now();
    let call = cluster.call().across_failover().deadline(Duration::from_millis(300));
    assert_eq!(call.execute("SELECT 1", &[]).await.unwrap_err().kind(), ErrorKind::NoPrimary);
    assert!(begun.elapsed() >= Duration::from_millis(300), "it waits as long as it may");
    assert_eq!(cluster.primary().unwrap_err().kind(), ErrorKind::NoPrimary);
    nodes.promote(1).await;
    cluster.warm_up(0, LONG).await.unwrap();
    cluster.execute("SELECT 1", &[]).await.unwrap();
}

/// Without a deadline, a call waits for a primary as long as it may wait for a connection. A deadline replaces this
/// limit, whether it is shorter or longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_replaces_acquire_timeout_in_the_wait_for_a_primary() {
    let nodes = Replicated::start(1).await;
    let cluster = async |acquire_timeout: Duration| {
        let pool = move |builder: failfast::PoolBuilder| builder.acquire_timeout(acquire_timeout);
        let cluster = failfast::Cluster::builder(nodes.node(1).config()).pool(pool).build().unwrap();
        assert_eq!(cluster.execute("SELECT 1", &[]).await.unwrap_err().kind(), ErrorKind::NoPrimary);
        cluster
    };
    let waited = async |call: failfast::ClusterCall<'_>| {
        let begun = Instant::now();
        let error = call.across_failover().execute("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoPrimary);
        begun.elapsed()
    };
    let hasty = cluster(SECOND).await;
    let plain = waited(hasty.call()).await;
    assert!(plain >= SECOND, "{plain:?}");
    let longer = waited(hasty.call().timeout(SECOND / 10).deadline(SECOND * 2)).await;
    assert!(longer >= SECOND * 2, "{longer:?}");
    let patient = cluster(SECOND * 300).await;
    let shorter = waited(patient.call().deadline(SECOND / 10)).await;
    assert!(shorter < SECOND * 300, "{shorter:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_primaries_on_one_timeline_are_written_to_by_nobody() {
    let mut nodes = Replicated::start(2).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.batch_execute(TABLE).await.unwrap();
    is_complete(&cluster, &nodes).await;
    nodes.stop(0).await;
    // Both begin timeline 2.
    nodes.promote(1).await;
    nodes.promote(2).await;
    eventually("both are seen", LONG, async || {
        matches!(cluster.execute(INSERT, &[&1]).await, Err(Error::TwoPrimaries { .. }))
    })
    .await;
    let before = [nodes.node(1).scalar(COUNT).await, nodes.node(2).scalar(COUNT).await];
    let error = cluster.call().across_failover().execute(INSERT, &[&2]).await.unwrap_err();
    let hosts = cluster.hosts();
    assert_eq!(
        error.to_string(),
        format!("two primaries: {} and {} both accept writes; stop one of them", hosts[1].host, hosts[2].host)
    );
    assert_eq!(before, [nodes.node(1).scalar(COUNT).await, nodes.node(2).scalar(COUNT).await]);
    assert_eq!(seen.count("two_primaries"), 1);
    nodes.stop(2).await;
    eventually("one is left", LONG, async || cluster.execute(INSERT, &[&3]).await.is_ok()).await;
}
