//! How old is what a read sees? A writer adds rows one after the other and notes when each was acknowledged. A read
//! that lacks a row which was acknowledged longer ago than its bound is stale. This needs no clock but that of this
//! process, and has no tolerance.
//!
//! Each row also carries its time by the clock of the primary. All servers run on one machine and share its clock, so a
//! replica can say how old its newest row is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use failfast::{Cluster, ClusterCall, Error, ErrorKind, Freshness, Position};
use tokio_postgres::error::SqlState;

const TABLE: &str = "CREATE TABLE beats (n int8 PRIMARY KEY, at timestamptz NOT NULL)";
const INSERT: &str = "INSERT INTO beats VALUES ($1, clock_timestamp())";
const NEWEST: &str = "SELECT n, (extract(epoch FROM clock_timestamp() - at) * 1000000)::int8,
    pg_is_in_recovery(), host(inet_server_addr()) FROM beats ORDER BY n DESC LIMIT 1";

/// The writer rests for so long after each row.
const REST: Duration = Duration::from_millis(2);
/// Reads after something ask for what is at most so old.
const AGO: f64 = 3.0;

/// A row of the writer.
#[derive(Debug, Clone, Copy)]
struct Beat {
    acknowledged: Instant,
    position: Position,
}

/// What a read has to show.
#[derive(Debug, Clone, Copy)]
enum Due {
    /// All rows that were acknowledged before.
    Since(Instant),
    /// This row and all before it.
    Row(usize),
}

/// The rows, and what the reads have seen of them.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// The first row is 1.
    beats: Mutex<Vec<Beat>>,
    seen: Mutex<Seen>,
    is_over: AtomicBool,
}

/// What all reads until now have seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) by_primary: u64,
    /// By address: how many reads each replica has served, and when the last one of them was begun.
    pub(super) by_replica: BTreeMap<String, (u64, Instant)>,
    pub(super) refused: u64,
    /// Other failures, such as a connection that was lost.
    pub(super) failed: BTreeMap<&'static str, u64>,
    /// How old the newest row was that a replica showed, at most, by the clock of the servers.
    pub(super) oldest: Duration,
    /// How long ago a missing row was acknowledged when its read began, at most. Never more than the bound.
    pub(super) longest_missing: Duration,
    /// Each stale read.
    pub(super) stale: Vec<String>,
}

impl Seen {
    pub(super) fn by_replicas(&self) -> u64 {
        self.by_replica.values().map(|(count, _)| count).sum()
    }

    pub(super) fn of(&self, address: &str) -> u64 {
        self.by_replica.get(address).map_or(0, |(count, _)| *count)
    }

    /// When the last read was begun that this replica has served.
    pub(super) fn last_of(&self, address: &str) -> Option<Instant> {
        self.by_replica.get(address).map(|(_, begun)| *begun)
    }

    pub(super) fn all(&self) -> u64 {
        self.by_primary + self.by_replicas()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} reads, by the primary {}, by replicas", self.all(), self.by_primary)?;
        self.by_replica.iter().try_for_each(|(address, (count, _))| write!(f, " {count} ({address})"))?;
        write!(f, ", refused {}, failed {:?}; ", self.refused, self.failed)?;
        write!(f, "stale {}; oldest newest row {:.2?}, ", self.stale.len(), self.oldest)?;
        write!(f, "longest missing row {:.2?}", self.longest_missing)
    }
}

impl Beats {
    /// Creates the table and the first row.
    pub(super) async fn begin(cluster: &Cluster) -> Self {
        cluster.batch_execute(TABLE).await.unwrap();
        let beats = Self::default();
        beats.write(cluster).await;
        beats
    }

    async fn write(&self, cluster: &Cluster) {
        let number = self.beats().len() as i64 + 1;
        let insert = async |tx: failfast::Transaction| tx.execute(INSERT, &[&number]).await;
        let (_, position) = cluster.transaction_at(insert).await.unwrap();
        self.beats().push(Beat { acknowledged: Instant::now(), position });
    }

    /// Writes until the end.
    pub(super) async fn keep_writing(&self, cluster: &Cluster) {
        while !self.is_over() {
            self.write(cluster).await;
            tokio::time::sleep(REST).await;
        }
    }

    /// Reads with this bound until the end.
    pub(super) async fn keep_reading(&self, cluster: &Cluster, bound: Duration) {
        while !self.is_over() {
            let begun = Instant::now();
            let call = cluster.call().read(Freshness::Within(bound));
            self.read(call, begun, Due::Since(begun - bound)).await;
        }
    }

    /// Reads after an instant of the last seconds until the end.
    pub(super) async fn keep_reading_since(&self, cluster: &Cluster) {
        while !self.is_over() {
            let begun = Instant::now();
            let since = begun - Duration::from_secs_f64(AGO * fastrand::f64());
            self.read(cluster.call().after(since), begun, Due::Since(since)).await;
        }
    }

    /// Reads after the position of a row of the last seconds until the end.
    pub(super) async fn keep_reading_after(&self, cluster: &Cluster) {
        while !self.is_over() {
            let begun = Instant::now();
            let oldest = begun - Duration::from_secs_f64(AGO * fastrand::f64());
            let (number, position) = {
                let beats = self.beats();
                let index = beats.partition_point(|beat| beat.acknowledged < oldest).min(beats.len() - 1);
                (index + 1, beats[index].position)
            };
            self.read(cluster.call().after(position), begun, Due::Row(number)).await;
        }
    }

    /// A read that has to see what is due. A failed one is followed by a short rest.
    async fn read(&self, call: ClusterCall<'_>, begun: Instant, due: Due) {
        let row = match call.query_one(NEWEST, &[]).await {
            Ok(row) => row,
            Err(error) => return self.on_error(&error).await,
        };
        let (newest, age, is_replica, address): (i64, i64, bool, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let newest = usize::try_from(newest).unwrap();
        let missing = self.beats().get(newest).map(|beat| beat.acknowledged);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if is_replica {
            let (count, last) = seen.by_replica.entry(address.clone()).or_insert((0, begun));
            (*count, *last) = (*count + 1, (*last).max(begun));
            seen.oldest = seen.oldest.max(Duration::from_micros(age.max(0).unsigned_abs()));
        } else {
            seen.by_primary += 1;
        }
        let Some(missing) = missing else { return };
        let ago = begun.saturating_duration_since(missing);
        seen.longest_missing = seen.longest_missing.max(ago);
        let is_stale = match due {
            Due::Since(since) => missing < since,
            Due::Row(number) => newest < number,
        };
        if is_stale {
            seen.stale.push(format!("row {} of {ago:?} ago is missing at {address}, {due:?}", newest + 1));
        }
    }

    async fn on_error(&self, error: &Error) {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match error.kind() {
                ErrorKind::NoFreshReplica => seen.refused += 1,
                _ if is_without_table(error) => seen.stale.push(error.to_string()),
                kind => *seen.failed.entry(kind.as_str()).or_default() += 1,
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.beats().len()
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    fn beats(&self) -> MutexGuard<'_, Vec<Beat>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The replica is so far behind that it does not have the table.
fn is_without_table(error: &Error) -> bool {
    let Error::Postgres { source, .. } = error else { return false };
    source.code() == Some(&SqlState::UNDEFINED_TABLE)
}
