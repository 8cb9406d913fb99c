//! Reads after a position see what was written before it, whoever wrote it and whoever serves them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use failfast::{Cluster, Freshness, Position};
use futures_util::future::join_all;

use super::{SECOND, SERVED_BY, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const TABLE: &str = "CREATE TABLE written (n int PRIMARY KEY)";

async fn write(cluster: &Cluster, n: i32) -> Position {
    let insert = async |tx: failfast::Transaction| tx.execute("INSERT INTO written VALUES ($1)", &[&n]).await;
    let (rows, position) = cluster.transaction_at(insert).await.unwrap();
    assert_eq!(rows, 1);
    position
}

/// Returns whether the row is there, and whether a replica said so.
async fn read(cluster: &Cluster, n: i32, position: Position) -> (bool, bool) {
    let sql = "SELECT EXISTS (SELECT FROM written WHERE n = $1), pg_is_in_recovery()";
    let row = cluster.call().after(position).query_one(sql, &[&n]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_writer_sees_its_row_although_the_replica_is_late() {
    let nodes = Replicated::start(1).await;
    // The process that reads is another than the one that writes.
    let (writer, reader) = (builder(&nodes).build().unwrap(), builder(&nodes).spill(1.0).build().unwrap());
    writer.batch_execute(TABLE).await.unwrap();
    nodes.delay_replay(1, Duration::from_millis(500)).await;
    is_complete(&reader, &nodes).await;
    let (missed, by_replica, by_primary) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let check = async |n: i32, position: Position| {
        let text = position.to_string();
        let (is_there, is_replica) = read(&reader, n, text.parse().unwrap()).await;
        missed.fetch_add(u64::from(!is_there), Relaxed);
        if is_replica { &by_replica } else { &by_primary }.fetch_add(1, Relaxed);
    };
    let check = &check;
    let one = async |lane: i32| {
        for n in lane * 200..(lane + 1) * 200 {
            let position = write(&writer, n).await;
            assert!(position.is_known());
            check(n, position).await;
            if n % 20 == 0 {
                // By then the replica has it.
                tokio::time::sleep(Duration::from_millis(600)).await;
                check(n, position).await;
            }
        }
    };
    join_all((0..5).map(one)).await;
    println!("{} by the replica, {} by the primary", by_replica.load(Relaxed), by_primary.load(Relaxed));
    assert_eq!(missed.load(Relaxed), 0);
    assert!(by_replica.load(Relaxed) > 0, "the replica serves what it has");
}

/// What a read returns, the next read has to show, in another process and on another replica.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_several_processes_never_go_back_in_time() {
    let nodes = Replicated::start(2).await;
    let processes = [builder(&nodes).build().unwrap(), builder(&nodes).build().unwrap()];
    processes[0].warm_up(1, LONG).await.unwrap();
    processes[0].batch_execute("CREATE TABLE beats (n int8)").await.unwrap();
    processes[0].execute("INSERT INTO beats VALUES (0)", &[]).await.unwrap();
    nodes.delay_replay(2, Duration::from_millis(700)).await;
    for cluster in &processes {
        is_complete(cluster, &nodes).await;
    }
    let is_over = AtomicBool::new(false);
    let writes = async {
        while !is_over.load(Relaxed) {
            processes[0].execute("UPDATE beats SET n = n + 1", &[]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (went_back, on_replicas) = (AtomicU64::new(0), AtomicU64::new(0));
    let reads = async {
        let sql = "SELECT n, pg_is_in_recovery() FROM beats";
        let (mut seen, mut text) = (0_i64, None::<String>);
        for read in 0..600 {
            let call = processes[read % 2].call();
            let call = match text.as_ref().filter(|_| read % 20 != 0) {
                Some(text) => call.after(text.parse::<Position>().unwrap()),
                None => call.read(Freshness::Within(SECOND * 3)),
            };
            let (row, position) = call.transaction_at(async |tx| tx.query_one(sql, &[]).await).await.unwrap();
            let n = row.get(0);
            // Each twentieth read begins a history of its own.
            went_back.fetch_add(u64::from(read % 20 != 0 && n < seen), Relaxed);
            on_replicas.fetch_add(u64::from(row.get::<_, bool>(1)), Relaxed);
            assert!(position.is_known(), "read {read}");
            (seen, text) = (n, Some(position.to_string()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        is_over.store(true, Relaxed);
    };
    tokio::join!(writes, reads);
    println!("{} of 600 on replicas", on_replicas.load(Relaxed));
    assert_eq!(went_back.load(Relaxed), 0);
    assert!(on_replicas.load(Relaxed) >= 20, "{} of 600", on_replicas.load(Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_another_history_or_of_the_future_is_served_by_the_primary() {
    let mut nodes = Replicated::start(1).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute(TABLE).await.unwrap();
    is_complete(&cluster, &nodes).await;
    let position = write(&cluster, 1).await;
    let text = position.to_string();
    let parts: Vec<_> = text.split('.').collect();
    let of = |text: String| text.parse::<Position>().unwrap();
    let forged = [
        of(format!("{}.{}.ffffffffffffffff", parts[0], parts[1])),
        of(format!("{}.7f.{}", parts[0], parts[2])),
        of(format!("1.{}.{}", parts[1], parts[2])),
    ];
    for position in forged {
        assert_eq!(read(&cluster, 1, position).await, (true, false), "{position}");
    }
    eventually("the replica serves what it has", LONG, async || read(&cluster, 1, position).await == (true, true))
        .await;

    nodes.stop(0).await;
    nodes.promote(1).await;
    let write_after = cluster.call().across_failover().deadline(SECOND * 10);
    write_after.execute("INSERT INTO written VALUES (2)", &[]).await.unwrap();
    assert_eq!(read(&cluster, 1, position).await, (true, false), "of the old timeline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_fails_has_no_position_and_a_refused_commit_is_reported() {
    let nodes = Replicated::start(0).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute("CREATE TABLE parents (n int PRIMARY KEY)").await.unwrap();
    let child = "CREATE TABLE children (n int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)";
    cluster.batch_execute(child).await.unwrap();
    let insert = async |tx: failfast::Transaction| tx.execute("INSERT INTO children VALUES (1)", &[]).await;
    let error = cluster.transaction_at(insert).await.unwrap_err();
    assert!(error.is_foreign_key_violation(), "{error}");
    assert_eq!(error.effect(), failfast::Effect::NotApplied);
    // The connection is well.
    let row = cluster.query_one("SELECT count(*) FROM children", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    let row = cluster.call().read(Freshness::Any).query_one(SERVED_BY, &[]).await.unwrap();
    assert!(!row.get::<_, bool>(0), "a cluster of one host reads there");
}
