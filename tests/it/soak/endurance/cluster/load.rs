//! The load of one round: writes with a ledger, reads that may be two seconds old, reads that any replica may serve,
//! and reads after a write. Each call is a task of its own, and comes whether or not earlier ones were answered.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{Cluster, Error, ErrorKind, Freshness, Position, Transaction};
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub(super) use crate::patroni::ledger::Write;
use crate::patroni::subjects::{Receipt, WRITE};

/// How old a read may be that asks for it.
pub(super) const WITHIN: Duration = Duration::from_secs(2);

/// Each beat is written after the one before. So the highest that a read sees says how old the read is.
pub(super) const BEATS: &str =
    "CREATE TABLE failfast_beats (n bigint PRIMARY KEY); INSERT INTO failfast_beats VALUES (0)";
const BEAT: &str = "INSERT INTO failfast_beats VALUES ($1) ON CONFLICT DO NOTHING";
const LATEST: &str = "SELECT max(n) FROM failfast_beats";
const IS_THERE: &str = "SELECT EXISTS (SELECT FROM failfast_ledger WHERE subject = $1 AND id = $2)";

/// The time between two calls, and between two beats.
const PACE: Duration = Duration::from_millis(8);
/// A call that may wait for a new primary waits so long.
const DEADLINE: Duration = Duration::from_secs(4);

/// What the callers of a round were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) served: u64,
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// The first error of each kind.
    pub(super) first: BTreeMap<&'static str, String>,
    pub(super) writes: Vec<Write>,
    /// Each read after a write: the id of the write, and whether the read found it.
    pub(super) after: Vec<(i64, bool)>,
    /// Each read with a bound: when it began, and the highest beat that it saw.
    pub(super) within: Vec<(Instant, i64)>,
    /// The acknowledged beats, in their order.
    beats: Vec<(Instant, i64)>,
    /// The errors of reads that any replica may serve, except those of a slow one.
    pub(super) failed_any: Vec<String>,
    pub(super) next_id: i64,
}

impl Told {
    /// Panics if a read did not show a beat that was acknowledged before its bound. Beats that a promotion has lost do
    /// not count.
    pub(super) fn check_freshness(&self, what: &str, survived: &HashSet<i64>) {
        let beats: Vec<_> = self.beats.iter().filter(|(_, beat)| survived.contains(beat)).collect();
        for (asked, seen) in &self.within {
            let older = beats.partition_point(|(at, _)| *at + WITHIN <= *asked);
            let Some((at, beat)) = older.checked_sub(1).map(|last| beats[last]) else { continue };
            let age = asked.duration_since(*at);
            assert!(seen >= beat, "{what}: a read saw beat {seen}, and not {beat}, which was {age:?} old");
        }
    }
}

pub(super) struct Load {
    cluster: Cluster,
    subject: String,
    next_id: AtomicI64,
    is_over: AtomicBool,
    told: Mutex<Told>,
}

impl Load {
    pub(super) fn new(cluster: Cluster, subject: String, next_id: i64) -> Arc<Self> {
        let (next_id, is_over) = (AtomicI64::new(next_id), AtomicBool::new(false));
        Arc::new(Self { cluster, subject, next_id, is_over, told: Mutex::default() })
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Makes calls until `stop`, waits for every answer, and returns what the callers were told.
    pub(super) async fn run(self: Arc<Self>, mut rng: Rng) -> Told {
        let mut callers = JoinSet::new();
        let beating = Arc::clone(&self);
        callers.spawn(async move { beating.beat().await });
        while !self.is_over.load(Relaxed) {
            let load = Arc::clone(&self);
            let kind = rng.u8(..100);
            callers.spawn(async move { load.serve(kind).await });
            while let Some(ended) = callers.try_join_next() {
                ended.unwrap();
            }
            sleep(PACE).await;
        }
        callers.join_all().await;
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        told.next_id = self.next_id.load(Relaxed);
        told
    }

    async fn serve(&self, kind: u8) {
        let cluster = &self.cluster;
        match kind {
            0..15 => {
                let (id, begun) = self.begin();
                let written = cluster.query_one(WRITE, &[&self.subject, &id]).await;
                self.note_write(id, begun, &written, Receipt::of);
            }
            15..30 => {
                let (id, begun) = self.begin();
                let call = cluster.call().across_failover().deadline(DEADLINE);
                let written = call.query_one(WRITE, &[&self.subject, &id]).await;
                self.note_write(id, begun, &written, Receipt::of);
                if written.is_ok() {
                    self.read_after(id, Instant::now()).await;
                }
            }
            30..50 => {
                let (id, begun) = self.begin();
                let written = self.write_in_a_transaction(id).await;
                self.note_write(id, begun, &written, |(receipt, _)| *receipt);
                if let Ok((_, position)) = written {
                    self.read_after(id, position).await;
                }
            }
            50..75 => {
                let asked = Instant::now();
                let call = cluster.call().read(Freshness::Within(WITHIN));
                let seen = call.query_one(LATEST, &[]).await;
                if let Some(row) = self.note(&seen) {
                    self.told.lock().unwrap().within.push((asked, row.get(0)));
                }
            }
            _ => {
                let seen = cluster.call().read(Freshness::Any).query_one(LATEST, &[]).await;
                self.note(&seen);
                if let Err(error) = seen.map_err(|error| (error.kind(), error.to_string())) {
                    use ErrorKind::{AcquireTimeout, QueryTimeout, Shed};
                    // On a busy machine, a replica that is well may be slow.
                    if !matches!(error.0, AcquireTimeout | QueryTimeout | Shed) {
                        self.told.lock().unwrap().failed_any.push(error.1);
                    }
                }
            }
        }
    }

    /// Writes one beat after the other.
    async fn beat(&self) {
        while !self.is_over.load(Relaxed) {
            let (beat, _) = self.begin();
            let call = self.cluster.call().across_failover().idempotent().deadline(DEADLINE);
            if call.execute(BEAT, &[&beat]).await.is_ok() {
                self.told.lock().unwrap().beats.push((Instant::now(), beat));
            }
            sleep(PACE).await;
        }
    }

    /// Returns a number that no other write has.
    fn begin(&self) -> (i64, Instant) {
        (self.next_id.fetch_add(1, Relaxed), Instant::now())
    }

    async fn write_in_a_transaction(&self, id: i64) -> Result<(Receipt, Position), Error> {
        let subject = &self.subject;
        let call = self.cluster.call().across_failover().deadline(DEADLINE);
        let write = async |tx: Transaction| tx.query_one(WRITE, &[subject, &id]).await;
        call.transaction_at(write).await.map(|(row, position)| (Receipt::of(&row), position))
    }

    async fn read_after(&self, id: i64, seen: impl Into<failfast::After>) {
        let call = self.cluster.call().after(seen).deadline(DEADLINE);
        let read = call.query_one(IS_THERE, &[&self.subject, &id]).await;
        if let Some(row) = self.note(&read) {
            self.told.lock().unwrap().after.push((id, row.get(0)));
        }
    }

    fn note_write<T>(&self, id: i64, begun: Instant, written: &Result<T, Error>, receipt: impl Fn(&T) -> Receipt) {
        let ended = Instant::now();
        let told = self.note(written).map(receipt).ok_or_else(|| written.as_ref().err().expect("no value").effect());
        self.told.lock().unwrap().writes.push(Write { id, begun, ended, told });
    }

    fn note<'a, T>(&self, result: &'a Result<T, Error>) -> Option<&'a T> {
        let mut told = self.told.lock().unwrap();
        match result {
            Ok(value) => {
                told.served += 1;
                Some(value)
            }
            Err(error) => {
                check(error);
                *told.errors.entry(error.kind().as_str()).or_default() += 1;
                told.first.entry(error.kind().as_str()).or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

/// Panics at an error that no fault explains, such as that of a table which the wrong server does not have.
fn check(error: &Error) {
    if error.kind() == ErrorKind::Postgres {
        let state = error.sqlstate().map(|state| state.code().to_owned());
        let known = ["57P01", "57P02", "57P03", "25006", "40001", "57014"];
        let is_known = state.as_deref().is_none_or(|state| known.contains(&state) || state.starts_with("08"));
        assert!(is_known, "no fault explains this: {error}");
    }
}
