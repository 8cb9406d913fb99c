//! Reads go where the data is as fresh as they ask, and never move more load to the primary than its owner allows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use failfast::{Cluster, ErrorKind, Freshness};

use super::{SECOND, SERVED_BY, address, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

/// The address of the replica that serves a read.
async fn served_by(cluster: &Cluster, freshness: Freshness) -> Result<(bool, String), failfast::Error> {
    let row = cluster.call().read(freshness).query_one(SERVED_BY, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

const WITHIN: Freshness = Freshness::Within(Duration::from_secs(2));

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_replay_pauses_is_left_and_serves_again_when_it_has_caught_up() {
    let nodes = Replicated::start(2).await;
    let cluster = builder(&nodes).build().unwrap();
    // Each row carries the time of its write, by the clock of this process.
    cluster.batch_execute("CREATE TABLE beats (at_us int8)").await.unwrap();
    cluster.execute("INSERT INTO beats VALUES (0)", &[]).await.unwrap();
    is_complete(&cluster, &nodes).await;
    let (begun, is_over) = (Instant::now(), AtomicBool::new(false));
    let now_us = || begun.elapsed().as_micros() as i64;
    let (reads, by_paused, stale) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let paused = address(&nodes, 1).await;
    let writes = async {
        while !is_over.load(Relaxed) {
            cluster.execute("UPDATE beats SET at_us = $1", &[&now_us()]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let last_by_paused = AtomicU64::new(0);
    let read = async || {
        while !is_over.load(Relaxed) {
            let call = cluster.call().read(WITHIN);
            let sql = "SELECT at_us, host(inet_server_addr()), pg_is_in_recovery() FROM beats";
            let asked = now_us();
            let row = call.query_one(sql, &[]).await.unwrap();
            reads.fetch_add(1, Relaxed);
            if row.get::<_, String>(1) == paused {
                by_paused.fetch_add(1, Relaxed);
                last_by_paused.store(asked as u64, Relaxed);
            }
            assert!(row.get::<_, bool>(2), "a replica is always fresh enough");
            // The writer writes each 2 ms or so: 100 ms are for a busy machine.
            let age = asked - row.get::<_, i64>(0);
            if age > 2_100_000 {
                stale.fetch_add(1, Relaxed);
            }
        }
    };
    let faults = async {
        eventually("the replica serves", LONG, async || by_paused.load(Relaxed) > 10).await;
        nodes.pause_replay(1).await;
        let at = now_us() as u64;
        tokio::time::sleep(SECOND * 6).await;
        let left = last_by_paused.load(Relaxed).saturating_sub(at);
        assert!(left < 3_000_000, "left after {left} us");
        nodes.resume_replay(1).await;
        let (resumed, before) = (Instant::now(), by_paused.load(Relaxed));
        eventually("the replica serves again", SECOND * 5, async || by_paused.load(Relaxed) > before).await;
        println!("left after {left} us, back after {:?}", resumed.elapsed());
        is_over.store(true, Relaxed);
    };
    tokio::join!(writes, read(), read(), read(), read(), faults);
    println!("{} reads, {} by the paused replica", reads.load(Relaxed), by_paused.load(Relaxed));
    assert_eq!(stale.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_of_an_idle_primary_are_fresh() {
    let nodes = Replicated::start(2).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    // The next record begins just behind the header of a segment, where no record ends.
    nodes.primary().execute("SELECT pg_switch_wal()").await;
    nodes.primary().execute("CHECKPOINT").await;
    is_complete(&cluster, &nodes).await;
    let begun = Instant::now();
    while begun.elapsed() < SECOND * 8 {
        let (is_replica, _) = served_by(&cluster, WITHIN).await.unwrap();
        assert!(is_replica, "{:?}", cluster.hosts());
        for host in cluster.hosts().iter().skip(1) {
            assert!(host.lag.is_some_and(|lag| lag < SECOND * 2), "{host}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

/// Leads each connection to the next of these servers, as the reader endpoint of some providers does.
async fn balancer(servers: Vec<std::net::SocketAddr>) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for server in servers.iter().cycle() {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_balances_over_two_standbys_serves_no_bounded_reads() {
    let nodes = Replicated::start(2).await;
    let port = balancer(vec![nodes.node(1).addr(), nodes.node(2).addr()]).await;
    let primary = nodes.node(0).addr();
    let config = nodes.node(0).config_with(&format!("host={},127.0.0.1 port={},{port}", primary.ip(), primary.port()));
    let seen = super::Seen::default();
    let cluster = Cluster::builder(config).spill(1.0).observer(seen.observe()).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    // One of the two standbys behind the name never has the rows.
    nodes.has_caught_up(1).await;
    nodes.has_caught_up(2).await;
    nodes.pause_replay(2).await;
    for n in 1..=300_i64 {
        cluster.execute("INSERT INTO written VALUES (1)", &[]).await.unwrap();
        let call = cluster.call().after(Instant::now());
        // Several at once, so that the pool needs several connections.
        let reads = (0..4).map(|_| call.query_one("SELECT count(*) FROM written", &[]));
        for row in futures_util::future::join_all(reads).await {
            assert_eq!(row.unwrap().get::<_, i64>(0), n, "a stale read; {:?}", cluster.hosts());
        }
        let any = (0..4).map(|_| served_by(&cluster, Freshness::Any));
        futures_util::future::join_all(any).await.into_iter().for_each(|served| drop(served.unwrap()));
    }
    eventually("the balancer is detected", LONG, async || seen.count("host_balances") > 0).await;
    assert!(cluster.hosts()[1].is_balanced);
}
