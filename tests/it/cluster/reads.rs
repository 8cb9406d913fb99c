//! Reads go where the data is as fresh as they ask, and never move more load to the primary than its owner allows.

use std::time::{Duration, Instant};

use failfast::{Cluster, ErrorKind, Freshness};

use super::beats::Beats;
use super::{BOUND, SECOND, SERVED_BY, address, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

/// The address of the replica that serves a read.
async fn served_by(cluster: &Cluster, freshness: Freshness) -> Result<(bool, String), failfast::Error> {
    let row = cluster.call().read(freshness).query_one(SERVED_BY, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

const WITHIN: Freshness = Freshness::Within(BOUND);

/// Pauses the replay of a standby until reads within two seconds have left it, and resumes it until it serves again.
/// Returns how long both took.
pub(super) async fn pause_and_resume(nodes: &Replicated, beats: &Beats, node: usize) -> [Duration; 2] {
    let address = address(nodes, node).await;
    let before = beats.seen().of(&address);
    eventually("the replica serves", LONG, async || beats.seen().of(&address) > before + 10).await;
    nodes.pause_replay(node).await;
    let paused = Instant::now();
    tokio::time::sleep(SECOND * 6).await;
    let left = beats.seen().last_of(&address).map_or(Duration::ZERO, |last| last.saturating_duration_since(paused));
    assert!(left < SECOND * 3, "left after {left:?}");
    assert!(!left.is_zero(), "no read went to the paused replica, so that nothing was tested");
    nodes.resume_replay(node).await;
    let (resumed, before) = (Instant::now(), beats.seen().of(&address));
    eventually("the replica serves again", SECOND * 5, async || beats.seen().of(&address) > before).await;
    [left, resumed.elapsed()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_replay_pauses_is_left_and_serves_again_when_it_has_caught_up() {
    let nodes = Replicated::start(2).await;
    let cluster = builder(&nodes).build().unwrap();
    let beats = Beats::begin(&cluster).await;
    is_complete(&cluster, &nodes).await;
    let faults = async {
        let [left, back] = pause_and_resume(&nodes, &beats, 1).await;
        println!("left after {left:?}, back after {back:?}");
        beats.end();
    };
    let read = || beats.keep_reading(&cluster, BOUND);
    tokio::join!(beats.keep_writing(&cluster), read(), read(), read(), read(), faults);
    let seen = beats.seen();
    println!("{seen}");
    assert!(seen.stale.is_empty(), "{:?}", seen.stale);
    assert_eq!((seen.by_primary, seen.refused), (0, 0), "a replica is always fresh enough");
}

/// Reads for so long while nobody writes. Replicas serve the reads, and both of them all the time. On a busy machine, a
/// look may be late now and then.
pub(super) async fn stay_in_while_idle(lasts: Duration) {
    let nodes = Replicated::start(2).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    nodes.primary().execute("CHECKPOINT").await;
    is_complete(&cluster, &nodes).await;
    // The next record begins just behind the header of a segment, where no record ends.
    nodes.primary().execute("SELECT pg_switch_wal()").await;
    let place = "SELECT pg_current_wal_insert_lsn()";
    let (begun, first) = (Instant::now(), nodes.primary().scalar(place).await);
    let (mut reads, mut by_primary, mut longest) = (0, 0, Duration::ZERO);
    let mut served = [0, 0];
    let addresses = [address(&nodes, 1).await, address(&nodes, 2).await];
    let (mut window, mut in_window) = (begun, [0, 0]);
    while begun.elapsed() < lasts {
        let (is_replica, address) = served_by(&cluster, WITHIN).await.unwrap();
        reads += 1;
        if is_replica {
            let which = usize::from(address == addresses[1]);
            (served[which], in_window[which]) = (served[which] + 1, in_window[which] + 1);
        } else {
            by_primary += 1;
            println!("by the primary after {:.1?}: {:?}", begun.elapsed(), cluster.hosts());
        }
        for host in cluster.hosts().iter().skip(1) {
            longest = longest.max(host.lag.expect("a bound"));
        }
        if window.elapsed() > SECOND * 4 {
            assert!(in_window[0] > 0 && in_window[1] > 0, "{in_window:?} after {:?}", begun.elapsed());
            (window, in_window) = (Instant::now(), [0, 0]);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = nodes.primary().scalar(place).await;
    println!("idle for {:.0?}, from {first} to {last}: {reads} reads", begun.elapsed());
    println!("{served:?} by the replicas, {by_primary} by the primary; longest bound of lag {longest:.2?}");
    assert!(by_primary * 1_000 <= reads, "{by_primary} of {reads} reads left the replicas");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_of_an_idle_primary_are_fresh() {
    stay_in_while_idle(SECOND * 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_no_replica_can_serve_use_a_share_of_the_primary_and_no_more() {
    let nodes = Replicated::start(1).await;
    let cluster = builder(&nodes).spill(0.2).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    is_complete(&cluster, &nodes).await;
    nodes.pause_replay(1).await;
    cluster.execute("INSERT INTO written VALUES (1)", &[]).await.unwrap();
    let written = Instant::now();
    let read = || {
        let call = cluster.call().after(written);
        async move { call.query("SELECT pg_sleep(1)", &[]).await }
    };
    // Until the primary was asked twice since, no replica can be known to have the write, so the primary serves all.
    let early = futures_util::future::join_all((0..10).map(|_| read())).await;
    assert!(early.iter().all(Result::is_ok), "{early:?}");
    eventually("the primary was asked twice", LONG, async || written.elapsed() > SECOND * 4).await;
    // The replica never has the write, so all of them ask for the primary.
    let results = futures_util::future::join_all((0..20).map(|_| read())).await;
    let served = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(served, 2, "20% of 10 connections");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::NoFreshReplica, "{error}");
        assert!(error.retry_after().is_some());
    }
    assert!(served_by(&cluster, Freshness::Any).await.unwrap().0, "any replica will do");
    // A refusal costs no wait once it is known that the replica is far behind.
    let held = cluster.call().after(written).query("SELECT pg_sleep(3)", &[]);
    let both = futures_util::future::join(held, cluster.call().after(written).query("SELECT pg_sleep(3)", &[]));
    let refused = async {
        eventually("the replica is far behind", LONG, async || {
            cluster.hosts()[1].lag.is_some_and(|lag| lag > Duration::from_millis(2_500))
        })
        .await;
        let begun = Instant::now();
        let error = cluster.call().after(written).query("SELECT 1", &[]).await.unwrap_err();
        (error.kind(), begun.elapsed())
    };
    let ((_, _), (kind, took)) = futures_util::future::join(both, refused).await;
    assert_eq!(kind, ErrorKind::NoFreshReplica);
    assert!(took < Duration::from_millis(5), "{took:?}");
    nodes.resume_replay(1).await;
    eventually("the replica serves", LONG, async || {
        let row = cluster.call().after(written).query_one(SERVED_BY, &[]).await;
        row.is_ok_and(|row| row.get(0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_replica_is_not_a_stale_one() {
    let nodes = Replicated::start(1).await;
    let pool = |builder: failfast::PoolBuilder| builder.max_size(2).acquire_timeout(Duration::from_millis(200));
    let cluster = builder(&nodes).pool(pool).spill(1.0).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    is_complete(&cluster, &nodes).await;
    let _held = [
        cluster.call().read(Freshness::Any).get().await.unwrap(),
        cluster.call().read(Freshness::Any).get().await.unwrap(),
    ];
    let error = served_by(&cluster, WITHIN).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::AcquireTimeout | ErrorKind::Shed), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_is_replaced_by_another() {
    let mut nodes = Replicated::start(2).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    is_complete(&cluster, &nodes).await;
    let left = address(&nodes, 2).await;
    nodes.kill(1).await;
    for _ in 0..50 {
        let (is_replica, address) = served_by(&cluster, WITHIN).await.unwrap();
        assert_eq!((is_replica, address), (true, left.clone()));
    }
    nodes.start_again(1).await;
    nodes.is_streaming(1).await;
    eventually("it serves again", LONG, async || {
        served_by(&cluster, WITHIN).await.is_ok_and(|(is_replica, address)| is_replica && address != left)
    })
    .await;
}

/// The pool of one host is closed by itself. Its scout ends, which the cluster notices as silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_pool_was_closed_fails_its_reads_until_it_is_silent() {
    let nodes = Replicated::start(1).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    is_complete(&cluster, &nodes).await;
    cluster.pools().nth(1).unwrap().close();
    let error = served_by(&cluster, Freshness::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    eventually("the primary serves", LONG, async || {
        served_by(&cluster, Freshness::Any).await.is_ok_and(|(is_replica, _)| !is_replica)
    })
    .await;
}
