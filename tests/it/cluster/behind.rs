//! Standbys that reopen behind what they have shown, and names that lead to several servers: no read is stale.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use failfast::{Cluster, Freshness};
use futures_util::future::join_all;

use super::beats::Beats;
use super::{BOUND, SECOND, Seen, address, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

/// A standby of these nodes writes nothing to its data files by itself. So after a crash it goes on from the checkpoint
/// with which it began, and opens as soon as that is consistent.
pub(super) const LAZY: [(&str, &str); 3] =
    [("bgwriter_lru_maxpages", "0"), ("checkpoint_timeout", "1h"), ("max_wal_size", "10GB")];

/// How a standby dies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Crash {
    /// All of its processes are killed at once, and it is started again.
    Killed,
    /// One session is killed with -9. The server ends all of them and recovers, without another start.
    Session,
}

/// Makes a standby begin with what it has now, if it crashes. Otherwise it may not even have the table.
pub(super) async fn remember(nodes: &Replicated, node: usize) {
    nodes.primary().execute("CHECKPOINT").await;
    nodes.has_caught_up(node).await;
    nodes.node(node).execute("CHECKPOINT").await;
}

/// Kills a standby, which reopens behind what it has shown and stays there for a while. Returns how many rows behind.
pub(super) async fn reopen_behind(nodes: &mut Replicated, beats: &Beats, node: usize, crash: Crash) -> i64 {
    let newest = "SELECT coalesce(max(n), 0) FROM beats";
    let address = address(nodes, node).await;
    let (before, rows) = (beats.seen().of(&address), beats.rows());
    eventually("the standby serves, and rows are written", LONG, async || {
        beats.seen().of(&address) > before + 10 && beats.rows() > rows + 50
    })
    .await;
    // From now on it replays nothing new: neither now, nor after the crash.
    nodes.delay_replay(node, SECOND * 3_600).await;
    let shown: i64 = nodes.node(node).scalar(newest).await.parse().unwrap();
    match crash {
        Crash::Killed => {
            nodes.kill(node).await;
            nodes.start_again(node).await;
        }
        Crash::Session => nodes.kill_session(node).await,
    }
    let reopened: i64 = nodes.node(node).scalar(newest).await.parse().unwrap();
    assert!(reopened < shown, "it reopens at {reopened} of {shown}, so that nothing was tested");
    tokio::time::sleep(BOUND + SECOND).await;
    nodes.delay_replay(node, Duration::ZERO).await;
    nodes.has_caught_up(node).await;
    let before = beats.seen().of(&address);
    eventually("the standby serves again", LONG, async || beats.seen().of(&address) > before).await;
    shown - reopened
}

/// Reads in all ways until `faults` end. Prints what they have seen.
pub(super) async fn no_read_is_stale_during<F: AsyncFnOnce(&Beats)>(cluster: &Cluster, beats: &Beats, faults: F) {
    let faults = async {
        faults(beats).await;
        beats.end();
    };
    let within = || beats.keep_reading(cluster, BOUND);
    let (since, after) = (|| beats.keep_reading_since(cluster), || beats.keep_reading_after(cluster));
    tokio::join!(beats.keep_writing(cluster), within(), within(), since(), since(), after(), after(), faults);
    let seen = beats.seen();
    println!("{seen}");
    assert!(seen.stale.is_empty(), "{} stale: {:?}", seen.stale.len(), &seen.stale[..seen.stale.len().min(10)]);
}

async fn no_read_is_stale_after(crash: Crash) {
    let mut nodes = Replicated::start_with(2, &LAZY).await;
    let cluster = builder(&nodes).spill(1.0).build().unwrap();
    let beats = Beats::begin(&cluster).await;
    is_complete(&cluster, &nodes).await;
    remember(&nodes, 1).await;
    let faults = async |beats: &Beats| {
        let behind = reopen_behind(&mut nodes, beats, 1, crash).await;
        println!("{crash:?}: it has reopened {behind} rows behind");
    };
    no_read_is_stale_during(&cluster, &beats, faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_killed_and_reopens_behind_serves_no_stale_read() {
    no_read_is_stale_after(Crash::Killed).await;
}

/// The server's process goes on, and so does its start time. Only its replay begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_recovers_by_itself_behind_serves_no_stale_read() {
    no_read_is_stale_after(Crash::Session).await;
}

/// The scout has not noticed anything yet when a read gets the first connection to the standby that has recovered.
/// Where the machine is too slow for that, the test shows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_has_recovered_between_two_looks_serves_no_stale_read() {
    const ROUNDS: usize = 4;
    let mut nodes = Replicated::start_with(1, &LAZY).await;
    let cluster = builder(&nodes).spill(1.0).build().unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    let count = async |call: failfast::ClusterCall<'_>| {
        let row = call.query_one("SELECT count(*), pg_is_in_recovery() FROM written", &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, bool>(1))
    };
    let (mut rows, mut opportune) = (0, 0);
    for _ in 0..ROUNDS {
        is_complete(&cluster, &nodes).await;
        remember(&nodes, 1).await;
        let insert = async |tx: failfast::Transaction| tx.execute("INSERT INTO written VALUES (1)", &[]).await;
        let (_, position) = cluster.transaction_at(insert).await.unwrap();
        rows += 1;
        let from_standby = async || count(cluster.call().after(position)).await == (rows, true);
        eventually("the standby shows the row", LONG, from_standby).await;
        nodes.delay_replay(1, SECOND * 3_600).await;
        // Its bound becomes short at each look.
        let lag = || cluster.hosts()[1].lag.unwrap_or(Duration::MAX);
        let before = lag();
        eventually("the scout has just looked", LONG, async || lag() < before && lag() < SECOND / 5).await;
        nodes.kill_session(1).await;
        // As long as nobody has noticed the crash, the bound is known and grows.
        opportune += usize::from(cluster.hosts()[1].lag.is_some());
        for _ in 0..20 {
            assert_eq!(count(cluster.call().after(position)).await.0, rows, "a stale read; {:?}", cluster.hosts());
        }
        nodes.delay_replay(1, Duration::ZERO).await;
        nodes.has_caught_up(1).await;
    }
    println!("in {opportune} of {ROUNDS} rounds the read came before the scout's look");
}

/// Leads each connection to the next of these servers, as the reader endpoint of some providers does.
pub(super) async fn balancer(servers: Vec<SocketAddr>) -> u16 {
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

/// A cluster of two hosts: the balancer over these nodes, and the primary.
async fn behind_balancer(nodes: &Replicated, balanced: [usize; 2], is_first: bool, seen: &Seen) -> Cluster {
    let port = balancer(balanced.map(|node| nodes.node(node).addr()).to_vec()).await;
    let primary = nodes.primary().addr();
    let mut places = [(primary.ip().to_string(), primary.port()), ("127.0.0.1".to_owned(), port)];
    if is_first {
        places.reverse();
    }
    let [(one, one_port), (other, other_port)] = places;
    let config = nodes.primary().config_with(&format!("host={one},{other} port={one_port},{other_port}"));
    Cluster::builder(config).spill(1.0).observer(seen.observe()).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_balances_over_two_standbys_serves_no_bounded_reads() {
    let nodes = Replicated::start(2).await;
    let events = Seen::default();
    let cluster = behind_balancer(&nodes, [1, 2], false, &events).await;
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    // The connections of a pool lead to both.
    drop(join_all((0..4).map(|_| cluster.call().read(Freshness::Any).get())).await);
    // One of the two standbys behind the name never has the rows.
    nodes.has_caught_up(1).await;
    nodes.has_caught_up(2).await;
    nodes.pause_replay(2).await;
    for n in 1..=300_i64 {
        let insert = async |tx: failfast::Transaction| tx.execute("INSERT INTO written VALUES (1)", &[]).await;
        let (_, position) = cluster.transaction_at(insert).await.unwrap();
        let since = cluster.call().after(Instant::now());
        let after = cluster.call().after(position);
        // Several at once, so that the pool needs several connections.
        let reads = [since, after, since, after].map(|call| async move {
            let row = call.query_one("SELECT count(*) FROM written", &[]).await.unwrap();
            row.get::<_, i64>(0)
        });
        assert_eq!(join_all(reads).await, [n; 4], "a stale read; {:?}", cluster.hosts());
        let any = (0..4).map(|_| cluster.call().read(Freshness::Any));
        let any = any.map(|call| async move { call.query_one("SELECT 1", &[]).await.map(drop) });
        join_all(any).await.into_iter().for_each(|served| served.unwrap());
    }
    eventually("the balancer is detected", LONG, async || events.count("host_balances") > 0).await;
    assert!(cluster.hosts()[1].is_balanced);
}

/// The same while rows age and the standby behind goes and comes.
#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_behind_a_name_that_balances_over_two_standbys() {
    let nodes = Replicated::start(2).await;
    let events = Seen::default();
    let cluster = behind_balancer(&nodes, [1, 2], false, &events).await;
    let beats = Beats::begin(&cluster).await;
    nodes.has_caught_up(1).await;
    nodes.has_caught_up(2).await;
    let faults = async |_: &Beats| {
        nodes.pause_replay(2).await;
        tokio::time::sleep(SECOND * 5).await;
        nodes.resume_replay(2).await;
        tokio::time::sleep(SECOND).await;
    };
    no_read_is_stale_during(&cluster, &beats, faults).await;
}

/// A name for readers that leads to the primary as well, and is listed first.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_balances_over_the_primary_and_a_standby_serves_no_stale_read() {
    let nodes = Replicated::start(2).await;
    let events = Seen::default();
    let cluster = behind_balancer(&nodes, [0, 1], true, &events).await;
    nodes.primary().execute("CREATE TABLE written (n int)").await;
    nodes.has_caught_up(1).await;
    nodes.pause_replay(1).await;
    let mut failed = 0;
    for n in 1..=200_i64 {
        nodes.primary().execute("INSERT INTO written VALUES (1)").await;
        let call = cluster.call().after(Instant::now());
        let reads = (0..4).map(|_| async {
            let row = call.query_one("SELECT count(*), pg_is_in_recovery() FROM written", &[]).await.ok()?;
            Some((row.get::<_, i64>(0), row.get::<_, bool>(1)))
        });
        for read in join_all(reads).await {
            match read {
                Some(read) => assert_eq!(read, (n, false), "a stale read; {:?}", cluster.hosts()),
                None => failed += 1,
            }
        }
    }
    println!("{failed} of 800 reads failed");
}
