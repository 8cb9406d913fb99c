//! A thousand writers, each of which reads its row in another process while the replica is late. Who serves the reads,
//! and which of those at the primary could the replica have served?

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use failfast::{Cluster, Error, Position};
use futures_util::future::join_all;
use tokio_postgres::Row;

use super::{SECOND, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;

const TABLE: &str = "CREATE TABLE written (n int PRIMARY KEY)";

async fn write(cluster: &Cluster, n: i32) -> Position {
    let insert = async |tx: failfast::Transaction| tx.execute("INSERT INTO written VALUES ($1)", &[&n]).await;
    cluster.transaction_at(insert).await.unwrap().1
}

/// How far the replay of a replica was, and when: asked for at the first instant, and answered at the second.
type Replayed = (Instant, Instant, u64);

/// Asks a replica about its replay, as often as it answers, until the end.
async fn keep_asking(nodes: &Replicated, node: usize, is_over: &AtomicBool) -> Vec<Replayed> {
    let replica = nodes.node(node).admin().await;
    let mut replays = Vec::new();
    while !is_over.load(Relaxed) {
        let asked = Instant::now();
        let row = replica.query_one("SELECT (pg_last_wal_replay_lsn() - '0/0')::int8", &[]).await.unwrap();
        replays.push((asked, Instant::now(), row.get::<_, i64>(0).unsigned_abs()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    replays
}

/// A read that the primary has served.
#[derive(Debug, Clone, Copy)]
struct AtPrimary {
    begun: Instant,
    lsn: u64,
}

/// How the reads of all writers ended.
#[derive(Debug, Default)]
pub(super) struct Reads {
    missed: u64,
    refused: u64,
    by_replica: u64,
    by_primary: Vec<AtPrimary>,
    /// Of those at the primary, how long the replica had had the row by then, if it had it.
    needless: Vec<Duration>,
}

impl Reads {
    /// Counts a read. Returns whether it was served. A pool that is full refuses as well.
    fn count(&mut self, row: Result<Row, Error>, read: AtPrimary) -> bool {
        match row {
            Ok(row) => {
                self.missed += u64::from(!row.get::<_, bool>(0));
                match row.get::<_, bool>(1) {
                    true => self.by_replica += 1,
                    false => self.by_primary.push(read),
                }
                true
            }
            Err(error) => {
                self.refused += 1;
                assert!(self.refused < 100_000, "{error}");
                false
            }
        }
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reads { missed, refused, by_replica, by_primary, needless } = self;
        let (all, needed) = (by_primary.len(), by_primary.len() - needless.len());
        write!(f, "{missed} missed; {by_replica} by the replica; {all} by the primary, of which {needed} had to be; ")?;
        write!(f, "{} not, the latest {:.1?} after the replica had the row; ", needless.len(), needless.iter().max())?;
        write!(f, "{refused} refused and tried again")
    }
}

/// So many writers, all within some seconds. Each reads its row in another process: at once, and twice within three
/// seconds, while the replica replays half a second late.
pub(super) async fn each_writer_reads_its_row(count: i32, spill: f64) -> Reads {
    let nodes = Replicated::start(1).await;
    let settings = || builder(&nodes).pool(|pool| pool.max_size(10).max_waiting(2_000).acquire_timeout(LONG));
    // The process that reads is another than the one that writes.
    let (writer, reader) = (settings().build().unwrap(), settings().spill(spill).build().unwrap());
    writer.batch_execute(TABLE).await.unwrap();
    nodes.delay_replay(1, Duration::from_millis(500)).await;
    is_complete(&reader, &nodes).await;
    let (reads, is_over) = (Mutex::new(Reads::default()), AtomicBool::new(false));
    let check = async |n: i32, position: Position| {
        let sql = "SELECT EXISTS (SELECT FROM written WHERE n = $1), pg_is_in_recovery()";
        // As it comes from a cookie.
        let text = position.to_string();
        let lsn = u64::from_str_radix(text.rsplit('.').next().unwrap(), 16).unwrap();
        loop {
            let begun = Instant::now();
            let row = reader.call().after(text.parse::<Position>().unwrap()).query_one(sql, &[&n]).await;
            if reads.lock().unwrap().count(row, AtPrimary { begun, lsn }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (check, rest) = (&check, || tokio::time::sleep(SECOND.mul_f64(1.5 * fastrand::f64())));
    let one = async |n: i32| {
        tokio::time::sleep(SECOND.mul_f64(6.0 * fastrand::f64())).await;
        let position = write(&writer, n).await;
        check(n, position).await;
        rest().await;
        check(n, position).await;
        rest().await;
        check(n, position).await;
    };
    let all = async {
        join_all((0..count).map(one)).await;
        is_over.store(true, Relaxed);
    };
    let (replays, ()) = tokio::join!(keep_asking(&nodes, 1, &is_over), all);
    let mut reads = reads.into_inner().unwrap();
    reads.needless = reads.by_primary.iter().filter_map(|read| had_since(read, &replays)).collect();
    reads
}

/// How long the replica had had the row when this read began, if it had it.
fn had_since(read: &AtPrimary, replays: &[Replayed]) -> Option<Duration> {
    let first = replays.partition_point(|(_, _, lsn)| *lsn < read.lsn);
    let (_, answered, _) = replays.get(first)?;
    read.begun.checked_duration_since(*answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_writers_each_reads_its_row_and_the_primary_serves_what_it_must() {
    let reads = each_writer_reads_its_row(1_000, 1.0).await;
    println!("{reads}");
    assert_eq!(reads.missed, 0);
    assert!(reads.by_replica > 0, "the replica serves what it has");
    assert!(reads.needless.len() * 20 <= reads.by_primary.len(), "more than 5% of the primary's reads had not to be");
}
