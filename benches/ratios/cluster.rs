//! Reads that no replica can serve, at five times what the primary could do, beside writers: how much slower do the
//! writes become, and how quickly are the reads refused? The only replica has stopped replaying.
//!
//! The load is open loop. Writes ask for 30% of the primary's connections. Calm windows and windows with reads take
//! turns, so that a noisy machine slows both.

use std::time::{Duration, Instant};

use failfast::{Cluster, ErrorKind, Freshness};
use tokio::task::JoinSet;
use tokio::time;
use tokio_postgres::{Client, NoTls};

use super::Report;
use super::support::Throwaway;

const CONNECTIONS: usize = 20;
/// How long each statement takes on the server, in seconds.
const SECONDS: f64 = 0.05;
const WRITES: f64 = 0.3 * CONNECTIONS as f64 / SECONDS;
const READS: f64 = 5.0 * CONNECTIONS as f64 / SECONDS;

const BOUND: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(4);
const PAIRS: usize = 9;
/// A reference without a budget for such reads is measured in so many windows.
const WITHOUT: usize = 3;
const START: Duration = Duration::from_secs(20);

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if !report.wants("stale-flood") {
        return;
    }
    let standby = match server.standby().await {
        Ok(Some(standby)) => standby,
        Ok(None) => return println!("# stale-flood: skipped; it needs the PostgreSQL programs on this machine"),
        Err(error) => panic!("{error}"),
    };
    let admin = connect(&standby).await;
    let (budget, without) = (cluster(server, &standby, 0.1).await, cluster(server, &standby, 1.0).await);
    budget.batch_execute("CREATE TABLE IF NOT EXISTS written (n int)").await.expect("a table");
    admin.batch_execute("SELECT pg_wal_replay_pause()").await.expect("a paused replay");
    is_stale(&budget).await;
    is_stale(&without).await;

    let (mut ratios, mut calm, mut flood) = (Vec::new(), Answers::default(), Answers::default());
    for _ in 0..PAIRS {
        let (one, other) = (offer(&budget, 0.0).await, offer(&budget, READS).await);
        ratios.push(p99(&other.written) / p99(&one.written));
        calm.add(one);
        flood.add(other);
    }
    println!("# calm: {calm}");
    println!("# {READS} reads a second: {flood}");
    let mut reference = Answers::default();
    for _ in 0..WITHOUT {
        reference.add(offer(&without, READS).await);
        time::sleep(Duration::from_secs(2)).await;
    }
    println!("# the same without a budget: {reference}");
    ratios.sort_by(f64::total_cmp);
    println!("# p99 of writes in each pair of windows: {ratios:.3?}");
    report.at_most("stale-flood-writes-p99", ratios[PAIRS / 2], 1.1);
    report.at_most("stale-flood-failed-writes", flood.failed as f64, 0.0);
    report.at_most("stale-flood-refusal-p99-ms", p99(&flood.refused) * 1e3, 1.0);
}

/// The hosts are the server and its standby. So much of the primary may be used by reads that no replica can serve.
async fn cluster(server: &Throwaway, standby: &Throwaway, spill: f64) -> Cluster {
    let mut config = server.config();
    config.host("127.0.0.1").port(standby.config().get_ports()[0]);
    let pool = |builder: failfast::PoolBuilder| builder.max_size(CONNECTIONS).min_idle(CONNECTIONS);
    let cluster = Cluster::builder(config).pool(pool).spill(spill).build().expect("good settings");
    cluster.warm_up(CONNECTIONS, START).await.expect("a primary with connections");
    cluster
}

async fn connect(server: &Throwaway) -> Client {
    let (client, connection) = server.config().connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Waits until reads are refused without a wait for the replica.
async fn is_stale(cluster: &Cluster) {
    let begun = Instant::now();
    loop {
        cluster.execute("INSERT INTO written VALUES (1)", &[]).await.expect("a row");
        let lag = cluster.hosts().iter().filter_map(|host| host.lag).max();
        if lag.is_some_and(|lag| lag > 2 * BOUND) {
            return;
        }
        assert!(begun.elapsed() < START, "the replica is not stale: {lag:?}");
        time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long calls took, in seconds.
#[derive(Default)]
struct Answers {
    written: Vec<f64>,
    failed: usize,
    read: Vec<f64>,
    refused: Vec<f64>,
    /// Reads that failed in another way.
    others: usize,
}

enum Outcome {
    Written,
    Failed,
    Read,
    Refused,
    Other,
}

impl Answers {
    fn count(&mut self, (outcome, took): (Outcome, Duration)) {
        match outcome {
            Outcome::Written => self.written.push(took.as_secs_f64()),
            Outcome::Failed => self.failed += 1,
            Outcome::Read => self.read.push(took.as_secs_f64()),
            Outcome::Refused => self.refused.push(took.as_secs_f64()),
            Outcome::Other => self.others += 1,
        }
    }

    fn add(&mut self, other: Answers) {
        self.written.extend(other.written);
        self.read.extend(other.read);
        self.refused.extend(other.refused);
        self.failed += other.failed;
        self.others += other.others;
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |times: &[f64], percent| percentile(times, percent) * 1e3;
        let Answers { written, failed, read, refused, others } = self;
        write!(f, "{} written, p50 {:.1} ms, p99 {:.1} ms, ", written.len(), millis(written, 50), millis(written, 99))?;
        write!(f, "{failed} failed; {} read, p99 {:.1} ms; ", read.len(), millis(read, 99))?;
        write!(f, "{} refused, p50 {:.3} ms, p99 {:.3} ms, ", refused.len(), millis(refused, 50), millis(refused, 99))?;
        write!(f, "slowest {:.3} ms; {others} failed otherwise", millis(refused, 100))
    }
}

/// Returns the answers of one window with so many reads a second.
async fn offer(cluster: &Cluster, reads: f64) -> Answers {
    let (mut answers, mut callers) = (Answers::default(), JoinSet::new());
    let (mut asked, mut tick, begun) = ([0.0; 2], time::interval(Duration::from_millis(1)), Instant::now());
    while begun.elapsed() < WINDOW {
        tick.tick().await;
        while asked[0] < begun.elapsed().as_secs_f64() * WRITES {
            asked[0] += 1.0;
            callers.spawn(write(cluster.clone()));
        }
        while asked[1] < begun.elapsed().as_secs_f64() * reads {
            asked[1] += 1.0;
            callers.spawn(read(cluster.clone()));
        }
        while let Some(answer) = callers.try_join_next() {
            answers.count(answer.expect("no panic"));
        }
    }
    while let Some(answer) = callers.join_next().await {
        answers.count(answer.expect("no panic"));
    }
    answers
}

async fn write(cluster: Cluster) -> (Outcome, Duration) {
    let asked = Instant::now();
    let written = cluster.execute("INSERT INTO written SELECT 1 FROM pg_sleep($1)", &[&SECONDS]).await;
    (if written.is_ok() { Outcome::Written } else { Outcome::Failed }, asked.elapsed())
}

async fn read(cluster: Cluster) -> (Outcome, Duration) {
    let asked = Instant::now();
    let call = cluster.call().read(Freshness::Within(BOUND));
    let outcome = match call.execute("SELECT pg_sleep($1)", &[&SECONDS]).await {
        Ok(_) => Outcome::Read,
        Err(error) if error.kind() == ErrorKind::NoFreshReplica => Outcome::Refused,
        Err(_) => Outcome::Other,
    };
    (outcome, asked.elapsed())
}

fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let index = times.len() * percent / 100;
    times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn p99(times: &[f64]) -> f64 {
    percentile(times, 99)
}
