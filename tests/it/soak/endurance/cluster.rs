//! A cluster goes through every kind of fault, in random order, round after round: faults of the network, of standbys
//! and of the primary, and promotions. After each round, no acknowledged write is lost except those that asynchronous
//! replication loses, nothing is doubled, no read was older than it asked for, and the connections of each host add up.
//!
//! Each host is reached through a proxy. The normal run has some of the faults, `./dev soak` has all of them.

mod load;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{BreakerConfig, Cluster, Event, EventKind, Freshness, Role};
use fastrand::Rng;
use tokio::time::sleep;

use self::load::{BEATS, Load, Told, WITHIN};
use super::{SECOND, seed, setting};
use crate::patroni::ledger::{TABLE, Truth, Verdict};
use crate::pool::LONG;
use crate::support::cluster::{Replicated, timeline};
use crate::support::eventually;
use crate::support::patroni::Writable;
use crate::support::proxy::{Close, Proxy};

const NAME: &str = "cluster-soak";
const STANDBYS: usize = 2;
const CONNECTIONS: usize = 10;
/// Writes and both kinds of reads are served within this time after the repair.
const RECOVERED: Duration = Duration::from_secs(20);
/// A host is known to be what it is within this time after the repair.
const KNOWN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// One standby receives and does not replay.
    OneReplayPaused,
    /// No standby replays.
    AllReplayPaused,
    /// A standby is killed and started again.
    StandbyKilled,
    /// The primary is stopped properly and started again.
    PrimaryRestarted,
    /// The primary is killed and started again.
    PrimaryKilled,
    /// The primary is paused.
    PrimaryFrozen,
    /// The primary is stopped properly, and a standby is promoted.
    Switchover,
    /// The primary is killed, a standby is promoted, and the old primary comes back writable.
    Failover,
    /// The primary is frozen, a standby is promoted, and the old primary wakes up writable.
    FrozenFailover,
    /// A standby is promoted beside the primary, which is well.
    SecondPrimary,
    /// The primary comes back with an empty database of its own. Then a standby is promoted.
    Wiped,
    /// The network refuses one host for a while.
    HostCut,
    /// The network drops all bytes of one host without an error.
    HostStalled,
    /// An administrator ends all connections on all hosts.
    Terminated,
    /// Orders of the owner that must harm nobody: connections are replaced, a timeline is forgotten on which the
    /// primary still is, and an idle cluster is drained.
    Orders,
}

const ALL: [Fault; 15] = [
    Fault::OneReplayPaused,
    Fault::AllReplayPaused,
    Fault::StandbyKilled,
    Fault::PrimaryRestarted,
    Fault::PrimaryKilled,
    Fault::PrimaryFrozen,
    Fault::Switchover,
    Fault::Failover,
    Fault::FrozenFailover,
    Fault::SecondPrimary,
    Fault::Wiped,
    Fault::HostCut,
    Fault::HostStalled,
    Fault::Terminated,
    Fault::Orders,
];

const SHORT: [Fault; 5] =
    [Fault::AllReplayPaused, Fault::StandbyKilled, Fault::PrimaryFrozen, Fault::Failover, Fault::HostCut];

impl Fault {
    /// Whether another host becomes the primary.
    fn promotes(self) -> bool {
        use Fault::*;
        matches!(self, Switchover | Failover | FrozenFailover | SecondPrimary | Wiped)
    }

    /// Whether acknowledged writes may be lost that no standby had received.
    fn may_lose(self) -> bool {
        self.promotes() && self != Fault::Switchover
    }

    /// Whether reads that any replica may serve fail only if a replica is slow.
    fn spares_replicas(self) -> bool {
        use Fault::*;
        matches!(
            self,
            OneReplayPaused | AllReplayPaused | StandbyKilled | PrimaryRestarted | PrimaryKilled | PrimaryFrozen
        )
    }
}

/// The result of a round.
struct Round {
    fault: Fault,
    served: u64,
    reads: [usize; 2],
    errors: String,
    verdict: Verdict,
    recovered: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, served, reads: [within, after], errors, verdict, recovered } = self;
        write!(f, "{fault:?}: {served} served, errors {errors}; served again after {} ms; ", recovered.as_millis())?;
        write!(f, "{within} reads within their bound, {after} after their write; {}", Writes(verdict))
    }
}

/// What became of writes.
struct Writes<'a>(&'a Verdict);

impl fmt::Display for Writes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { acknowledged, not_applied, unknown, lost_async, lost_other, doubled, .. } = self.0;
        write!(f, "writes: {acknowledged} acknowledged, {not_applied} denied and not found, {unknown} unknown, ")?;
        write!(f, "{lost_async} lost by replication, {lost_other} lost otherwise, {doubled} doubled")
    }
}

/// When the cluster reported another primary.
type Changes = Arc<Mutex<Vec<Instant>>>;

struct World {
    nodes: Replicated,
    proxies: Vec<Proxy>,
    cluster: Cluster,
    changes: Changes,
    /// The rows of earlier rounds.
    kept: u64,
    next_id: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_every_fault() {
    let (seed, minutes) = (seed(), setting("FAILFAST_SOAK_MINUTES", 0));
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new().await;
    let mut faults = if minutes == 0 { SHORT.to_vec() } else { ALL.to_vec() };
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let (mut rounds, mut served, mut all, mut worst) = (0, 0, Verdict::default(), Duration::ZERO);
    while rounds == 0 || Instant::now() < end {
        rng.shuffle(&mut faults);
        for fault in &faults {
            if rounds >= faults.len() && Instant::now() >= end {
                break;
            }
            rounds += 1;
            let round = world.round(rounds, *fault, &mut rng).await;
            println!("cluster, round {rounds}: {round}");
            all.add(&round.verdict);
            (served, worst) = (served + round.served, worst.max(round.recovered));
        }
    }
    println!("cluster: {rounds} rounds, {served} served, {}; slowest recovery {} ms", Writes(&all), worst.as_millis());
}

impl World {
    async fn new() -> Self {
        let nodes = Replicated::start(STANDBYS).await;
        let mut proxies = Vec::new();
        for node in 0..nodes.len() {
            proxies.push(Proxy::start(nodes.node(node).addr()).await);
        }
        nodes.primary().execute(&format!("{TABLE}; {BEATS}")).await;
        let changes = Changes::default();
        let cluster = connect(&nodes, &proxies, &changes);
        cluster.warm_up(0, LONG).await.unwrap();
        Self { nodes, proxies, cluster, changes, kept: 0, next_id: 1 }
    }

    async fn round(&mut self, number: usize, fault: Fault, rng: &mut Rng) -> Round {
        self.is_complete().await;
        self.changes.lock().unwrap().clear();
        println!("cluster, round {number}: {fault:?} begins");
        let load = Load::new(self.cluster.clone(), format!("round {number}"), self.next_id);
        let loading = tokio::spawn(Arc::clone(&load).run(rng.fork()));
        sleep(Duration::from_millis(rng.u64(300..800))).await;
        let promoted = self.inject(fault, Duration::from_millis(rng.u64(500..2_500)), rng).await;
        let repaired = Instant::now();
        self.is_served().await;
        let recovered = repaired.elapsed();
        sleep(Duration::from_millis(rng.u64(300..800))).await;
        load.stop();
        let told = loading.await.unwrap();
        self.next_id = told.next_id;
        self.is_complete().await;
        self.connections_add_up().await;
        let verdict = self.settle_accounts(&format!("round {number}"), fault, promoted, &told).await;
        if fault == Fault::Orders && !told.errors.is_empty() {
            println!("cluster, round {number}: {fault:?}: a busy machine, or a fault: {:?}", told.first);
        }
        let reads = [told.within.len(), told.after.len()];
        Round { fault, served: told.served, reads, errors: format!("{:?}", told.errors), verdict, recovered }
    }

    /// Causes the fault, waits, and repairs it. Returns the promoted node, if there is one.
    async fn inject(&mut self, fault: Fault, lasting: Duration, rng: &mut Rng) -> Option<Writable> {
        let old = self.nodes.primary_number();
        let host = rng.usize(..self.nodes.len());
        let standbys: Vec<_> = (0..self.nodes.len()).filter(|node| *node != old).collect();
        let standby = standbys[rng.usize(..standbys.len())];
        match fault {
            Fault::OneReplayPaused => {
                self.nodes.pause_replay(standby).await;
                sleep(WITHIN + lasting).await;
                self.nodes.resume_replay(standby).await;
            }
            Fault::AllReplayPaused => {
                for standby in &standbys {
                    self.nodes.pause_replay(*standby).await;
                }
                sleep(WITHIN + lasting).await;
                for standby in &standbys {
                    self.nodes.resume_replay(*standby).await;
                }
            }
            Fault::StandbyKilled => {
                self.nodes.kill(standby).await;
                sleep(lasting).await;
                self.nodes.start_again(standby).await;
            }
            Fault::PrimaryRestarted => {
                self.nodes.stop(old).await;
                self.nodes.start_again(old).await;
            }
            Fault::PrimaryKilled => {
                self.nodes.kill(old).await;
                sleep(lasting).await;
                self.nodes.start_again(old).await;
            }
            Fault::PrimaryFrozen => {
                self.nodes.pause(old).await;
                sleep(lasting).await;
                self.nodes.unpause(old).await;
            }
            Fault::Switchover => {
                self.nodes.stop(old).await;
                let promoted = self.promote_the_furthest(&standbys, lasting).await;
                self.nodes.rebuild(old).await;
                return Some(promoted);
            }
            Fault::Failover => {
                self.nodes.kill(old).await;
                let promoted = self.promote_the_furthest(&standbys, lasting).await;
                self.nodes.start_again(old).await;
                self.is_fenced(old).await;
                self.is_served().await;
                sleep(lasting).await;
                self.nodes.rebuild(old).await;
                return Some(promoted);
            }
            Fault::FrozenFailover => {
                self.nodes.pause(old).await;
                let promoted = self.promote_the_furthest(&standbys, lasting).await;
                self.nodes.unpause(old).await;
                self.is_fenced(old).await;
                self.is_served().await;
                sleep(lasting).await;
                self.nodes.rebuild(old).await;
                return Some(promoted);
            }
            Fault::SecondPrimary => {
                let promoted = self.promote(standby).await;
                self.is_fenced(old).await;
                self.is_served().await;
                sleep(lasting).await;
                self.nodes.rebuild(old).await;
                // It has followed the old primary, perhaps beyond the fork.
                let other = standbys.into_iter().find(|node| *node != standby).expect("two standbys");
                self.nodes.rebuild(other).await;
                return Some(promoted);
            }
            Fault::Wiped => {
                self.nodes.kill(old).await;
                self.nodes.wipe(old).await;
                sleep(lasting).await;
                let promoted = self.promote_the_furthest(&standbys, Duration::ZERO).await;
                sleep(lasting).await;
                self.nodes.rebuild(old).await;
                return Some(promoted);
            }
            Fault::HostCut => {
                self.proxies[host].refuse().await;
                self.proxies[host].cut(Close::Reset);
                sleep(lasting).await;
                self.proxies[host].accept().await;
            }
            Fault::HostStalled => {
                self.proxies[host].stall();
                sleep(lasting).await;
                self.proxies[host].cut(Close::Reset);
                self.proxies[host].pass();
            }
            Fault::Terminated => {
                let end =
                    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'");
                for node in 0..self.nodes.len() {
                    self.nodes.node(node).execute(&end).await;
                }
            }
            Fault::Orders => {
                self.cluster.pools().for_each(failfast::Pool::flush);
                self.cluster.because("nothing").forget_timeline();
                let idle = connect(&self.nodes, &self.proxies, &Changes::default());
                idle.warm_up(0, LONG).await.unwrap();
                assert_eq!(idle.drain(LONG).await, 0, "an idle cluster has leases");
            }
        }
        None
    }

    /// The standby that has received most becomes the primary. The other one follows it.
    async fn promote_the_furthest(&mut self, standbys: &[usize], after: Duration) -> Writable {
        sleep(after).await;
        let mut received = Vec::new();
        for standby in standbys {
            let sql = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
            let place: i64 = self.nodes.node(*standby).scalar(sql).await.parse().expect("a position");
            received.push((place, *standby));
        }
        received.sort();
        let (_, best) = received.pop().expect("a standby");
        let promoted = self.promote(best).await;
        for (_, other) in received {
            self.nodes.follow(other).await;
        }
        promoted
    }

    async fn promote(&mut self, node: usize) -> Writable {
        self.nodes.promote(node).await;
        let at = Instant::now();
        let timeline = timeline(self.nodes.primary()).await.parse().expect("a number");
        Writable { node, timeline, at }
    }

    async fn is_fenced(&self, node: usize) {
        eventually("the old primary is fenced", KNOWN, async || self.cluster.hosts()[node].role == Role::Fenced).await;
    }

    /// Waits until a write, a read after it and a read with a bound are served.
    async fn is_served(&self) {
        let cluster = &self.cluster;
        let is_served = async || {
            let write = "INSERT INTO failfast_beats VALUES (0) ON CONFLICT DO NOTHING";
            let read = "SELECT count(*) FROM failfast_beats";
            cluster.execute(write, &[]).await.is_ok()
                && cluster.call().after(Instant::now()).query_one(read, &[]).await.is_ok()
                && cluster.call().read(Freshness::Within(WITHIN)).query_one(read, &[]).await.is_ok()
        };
        eventually("the cluster serves again", RECOVERED, is_served).await;
    }

    /// Waits until all standbys stream and have caught up, and the cluster knows it.
    async fn is_complete(&self) {
        let primary = self.nodes.primary_number();
        for node in (0..self.nodes.len()).filter(|node| *node != primary) {
            self.nodes.is_streaming(node).await;
            self.nodes.has_caught_up(node).await;
        }
        let is_as_it_should = |(node, host): (usize, &failfast::HostStatus)| match node == primary {
            true => host.role == Role::Primary,
            false => host.role == Role::Replica && host.lag.is_some_and(|lag| lag < WITHIN),
        };
        let begun = Instant::now();
        while !self.cluster.hosts().iter().enumerate().all(is_as_it_should) {
            let hosts: Vec<_> = self.cluster.hosts().iter().map(ToString::to_string).collect();
            assert!(begun.elapsed() < KNOWN, "the cluster does not know that {primary} is the primary: {hosts:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Each host has as many connections as its pool, and one for the scout.
    async fn connections_add_up(&self) {
        for (node, pool) in self.cluster.pools().enumerate() {
            eventually("the slots add up", LONG, async || {
                let status = pool.status();
                status.in_use + status.settling + status.dialing + status.closing + status.waiting == 0
            })
            .await;
            eventually("the host has as many connections as the pool and the scout", LONG, async || {
                self.nodes.node(node).connection_count(NAME).await == pool.status().idle as u64 + 1
            })
            .await;
        }
    }

    /// Compares what callers were told with what the primary has.
    async fn settle_accounts(&mut self, name: &str, fault: Fault, promoted: Option<Writable>, told: &Told) -> Verdict {
        let what = format!("{name}, {fault:?}");
        let primary = self.nodes.primary();
        let truth = Truth::of(&primary.admin().await, name).await;
        let primaries: Vec<_> = promoted.into_iter().collect();
        let verdict = Verdict::of(&told.writes, &told.writes, &truth, &primaries);
        verdict.check(&what);
        assert!(verdict.lost_async == 0 || fault.may_lose(), "{what}: acknowledged writes were lost: {verdict:?}");
        assert_eq!(promoted.is_some(), fault.promotes());

        let changes = self.changes.lock().unwrap().clone();
        assert_eq!(changes.len(), primaries.len(), "{what}: changes of the primary were reported");
        // After the report, no call for the primary goes to a host on an older timeline.
        for (change, primary) in changes.iter().zip(&primaries) {
            let is_old = |write: &&load::Write| {
                write.begun > *change && write.told.is_ok_and(|receipt| receipt.timeline < primary.timeline)
            };
            let late: Vec<_> = told.writes.iter().filter(is_old).collect();
            assert!(late.is_empty(), "{what}: written to the old primary after the change was reported: {late:?}");
        }

        let missed = told.after.iter().filter(|(id, is_there)| !is_there && truth.times(*id) > 0).count();
        assert_eq!(missed, 0, "{what}: reads missed the write that they came after");
        let beats = "SELECT n FROM failfast_beats";
        let rows = primary.admin().await.query(beats, &[]).await.unwrap();
        let survived: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        told.check_freshness(&what, &survived);
        assert!(told.failed_any.is_empty() || !fault.spares_replicas(), "{what}: any replica: {:?}", told.failed_any);

        let count = async |condition: &str| -> u64 {
            let sql = format!("SELECT count(*) FROM failfast_ledger WHERE subject {condition} '{name}'");
            primary.scalar(&sql).await.parse().expect("a count")
        };
        assert_eq!(count("<>").await, self.kept, "{what}: rows of earlier rounds are missing, or there are more");
        self.kept += count("=").await;
        verdict
    }
}

fn connect(nodes: &Replicated, proxies: &[Proxy], changes: &Changes) -> Cluster {
    let list = |part: fn(&Proxy) -> String| proxies.iter().map(part).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (list(|proxy| proxy.addr().ip().to_string()), list(|proxy| proxy.addr().port().to_string()));
    let config = nodes.node(0).config_with(&format!("host={hosts} port={ports}"));
    let changes = Arc::clone(changes);
    let observer = move |event: &Event| {
        if let EventKind::PrimaryChanged { .. } = event.kind {
            changes.lock().unwrap().push(Instant::now());
        }
    };
    let builder = Cluster::builder(config).pool(|builder| {
        let builder = builder.name(NAME).max_size(CONNECTIONS).min_idle(2).breaker(
            // Failing calls open the circuit. A short reset timeout keeps the rounds short.
            BreakerConfig::default().reset_timeout(2 * SECOND),
        );
        builder.acquire_timeout(2 * SECOND).query_timeout(2 * SECOND).connect_timeout(2 * SECOND)
    });
    builder.spill(0.5).observer(observer).build().unwrap()
}
