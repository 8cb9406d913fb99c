//! Failovers of a real Patroni cluster, under load. Each subject runs 200 calls a second during every fault, and all
//! subjects see the same faults.
//!
//! The normal run has one switchover and one kill. `./dev failover [ROUNDS]` has rounds of all kinds and prints a table
//! (`FAILFAST_FAILOVERS` is the number of rounds of each kind, by default 5).

#[cfg(feature = "cluster")]
mod cluster;
pub(crate) mod ledger;
mod report;
pub(crate) mod subjects;
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use self::ledger::{TABLE, Truth, Write};
use self::report::{Part, Round};
use self::subjects::{Deadpool, Failfast, Subject};
use self::workload::{Calls, Workload};
use crate::support::eventually;
use crate::support::patroni::{Cut, Patroni, connect};

const NODES: usize = 3;

/// Calls are under way for this long before a fault, and after each step of its repair.
const UNDER_LOAD: Duration = Duration::from_secs(1);

/// A new primary accepts writes within this time, and every subject then writes within this time.
const FAILOVER: Duration = Duration::from_secs(90);

/// In the normal run, the pool writes again this long after the new primary accepts writes.
const WRITTEN_AGAIN: Duration = Duration::from_secs(5);

/// A cluster writes again this long after the new primary accepts writes.
#[cfg(feature = "cluster")]
const CLUSTER_WRITES_AGAIN: Duration = Duration::from_millis(1_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// An operator hands the primary's role over.
    Switchover,
    /// Patroni and PostgreSQL of the primary are killed.
    Kill,
    /// The primary reaches neither etcd nor its standbys. Clients and the HAProxy still reach it.
    CutFromPeers,
    /// Nobody reaches the primary.
    CutOff,
    /// The primary's processes stop, and go on after the failover.
    Pause,
}

impl Fault {
    async fn begin(self, cluster: &Patroni, primary: usize) {
        match self {
            Fault::Switchover => cluster.switchover((primary + 1) % cluster.len()).await,
            Fault::Kill => cluster.kill(primary).await,
            Fault::CutFromPeers => cluster.partition(primary, Cut::Peers).await,
            Fault::CutOff => cluster.partition(primary, Cut::Everybody).await,
            Fault::Pause => cluster.pause(primary).await,
        }
    }

    async fn repair(self, cluster: &Patroni, primary: usize) {
        match self {
            Fault::Switchover => {}
            Fault::Kill => cluster.start_again(primary).await,
            Fault::CutFromPeers | Fault::CutOff => cluster.heal(primary).await,
            Fault::Pause => cluster.unpause(primary).await,
        }
    }
}

/// A set of subjects under the same load.
struct Subjects {
    pools: Vec<Box<dyn Begin>>,
}

/// [`Subject`] for a list of different ones.
trait Begin: Send + Sync {
    fn name(&self) -> &'static str;
    fn begin(&self) -> Workload;
    fn primary_changes(&self) -> Option<u64>;
}

impl<S: Subject> Begin for Arc<S> {
    fn name(&self) -> &'static str {
        Subject::name(&**self)
    }

    fn begin(&self) -> Workload {
        Workload::begin(Arc::clone(self))
    }

    fn primary_changes(&self) -> Option<u64> {
        Subject::primary_changes(&**self)
    }
}

impl Subjects {
    fn names(&self) -> Vec<&'static str> {
        self.pools.iter().map(|pool| pool.name()).collect()
    }

    /// Runs a fault under load, until every subject writes at the new primary. Then repairs it, if wanted, and waits
    /// until the cluster is whole.
    async fn endure(&self, cluster: &Patroni, fault: Fault, is_repaired: bool) -> Round {
        let (old, timeline) = cluster.leader().await.expect("a primary");
        let loads: Vec<_> = self.pools.iter().map(|pool| pool.begin()).collect();
        let all_write_on = async |timeline: u32| loads.iter().all(|load| load.has_written_on(timeline));
        eventually("every subject writes at the primary", FAILOVER, async || all_write_on(timeline).await).await;
        let before: Vec<_> = self.pools.iter().map(|pool| pool.primary_changes()).collect();
        let watch = cluster.watch();
        sleep(UNDER_LOAD).await;

        let begun = Instant::now();
        fault.begin(cluster, old).await;
        let primary = watch.writable_above(timeline, FAILOVER).await;
        eventually("every subject writes at the new primary", FAILOVER, async || all_write_on(primary.timeline).await)
            .await;
        sleep(UNDER_LOAD).await;
        if is_repaired {
            fault.repair(cluster, old).await;
            cluster.is_whole().await;
            sleep(UNDER_LOAD).await;
        }

        let mut parts = Vec::new();
        for ((pool, load), before) in self.pools.iter().zip(loads).zip(before) {
            let changes = pool.primary_changes().zip(before).map(|(after, before)| after - before);
            parts.push(Part { calls: load.end().await, changes });
        }
        Round { fault, writable_after: primary.at - begun, primary, seen: watch.seen(), parts }
    }
}

/// Starts a cluster with the table, or says why not.
async fn cluster() -> Option<Patroni> {
    let Some(cluster) = Patroni::start(NODES).await else {
        println!("skipped: there is no image with Patroni; scripts/patroni-image makes it");
        return None;
    };
    let (leader, _) = cluster.leader().await.expect("a primary");
    connect(cluster.node_config(leader)).await.unwrap().batch_execute(TABLE).await.unwrap();
    Some(cluster)
}

/// What failfast has for several hosts.
fn of_failfast(cluster: &Patroni) -> Vec<Box<dyn Begin>> {
    let pool = Failfast::new("failfast, all hosts", cluster.config("target_session_attrs=read-write"));
    vec![
        Box::new(Arc::new(pool)),
        #[cfg(feature = "cluster")]
        Box::new(Arc::new(cluster::Clustered::new(cluster.config("")))),
        #[cfg(feature = "cluster")]
        Box::new(Arc::new(cluster::Clustered::across_failover(cluster.config("")))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_writes_on_after_a_switchover_and_a_kill() {
    let begun = Instant::now();
    let Some(cluster) = cluster().await else { return };
    println!("three nodes stream after {:.1?}", begun.elapsed());
    let subjects = Subjects { pools: of_failfast(&cluster) };
    let mut rounds = vec![subjects.endure(&cluster, Fault::Switchover, true).await];
    rounds.push(subjects.endure(&cluster, Fault::Kill, false).await);
    let report = report::compare(&cluster, &subjects.names(), &rounds).await;
    println!("{report}");
    for verdict in report.verdicts() {
        verdict.check("failfast");
        assert_eq!(verdict.on_old_timeline, 0, "a write went to the old primary: {verdict:?}");
    }
    #[cfg(feature = "cluster")]
    report.check_cluster("Cluster", WRITTEN_AGAIN);
    for first in report.firsts() {
        assert!(first <= WRITTEN_AGAIN, "the pool wrote {first:?} after the new primary");
    }
}

/// The replicas' port of the HAProxy leads to standbys. A killed server process is started again in its place.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half a minute; run ./dev failover"]
async fn a_killed_server_process_returns_as_the_primary() {
    let Some(cluster) = cluster().await else { return };
    let ask = async |config| {
        let client = connect(config).await.ok()?;
        let answer = "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text";
        let row = client.query_one(answer, &[]).await.ok()?;
        Some((row.get::<_, bool>(0), row.get::<_, String>(1)))
    };
    let is_standby = async || ask(cluster.proxied_replicas()).await.is_some_and(|(is_standby, _)| is_standby);
    eventually("the replicas' port leads to a standby", FAILOVER, is_standby).await;
    let leader = cluster.leader().await.unwrap();
    let (_, started) = ask(cluster.node_config(leader.0)).await.unwrap();
    cluster.kill_postgres(leader.0).await;
    let is_new = async || ask(cluster.node_config(leader.0)).await.is_some_and(|(_, start)| start != started);
    eventually("the server has started again", FAILOVER, is_new).await;
    cluster.is_whole().await;
    assert_eq!(cluster.leader().await, Some(leader));
}

/// All subjects, all faults. It takes about 30 s a fault.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run ./dev failover"]
async fn pools_survive_failovers() {
    let rounds = std::env::var("FAILFAST_FAILOVERS").map_or(5, |rounds| rounds.parse().expect("a number"));
    let Some(cluster) = cluster().await else { return };
    let mut pools: Vec<Box<dyn Begin>> = vec![
        Box::new(Arc::new(Deadpool::new("deadpool, HAProxy", cluster.proxied()))),
        Box::new(Arc::new(Failfast::new("failfast, HAProxy", cluster.proxied()))),
    ];
    pools.extend(of_failfast(&cluster));
    let subjects = Subjects { pools };
    let mut done = Vec::new();
    for round in 0..rounds {
        let partition = if round % 2 == 0 { Fault::CutFromPeers } else { Fault::CutOff };
        for fault in [Fault::Switchover, Fault::Kill, partition, Fault::Pause] {
            let round = subjects.endure(&cluster, fault, true).await;
            println!("{}", round.line(&subjects.names()));
            done.push(round);
        }
    }
    let report = report::compare(&cluster, &subjects.names(), &done).await;
    println!("{report}");
    report.verdicts().for_each(|verdict| verdict.check("a subject"));
    #[cfg(feature = "cluster")]
    report.check_cluster("Cluster", CLUSTER_WRITES_AGAIN);
}
