//! The long series that `./dev fleet` runs: the budget beside fixed sizes, and what a reading costs the server.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_postgres::NoTls;

use super::processes::url;
use super::worker::{Kind, Report, Worker};
use super::{SECOND, as_app, is_sharing, member, refusals, small_server};
use crate::pool::LONG;
use crate::support::eventually;
use crate::support::server::Server;

/// What one kind of worker came to.
#[derive(Debug, Default)]
struct Row {
    calls: u64,
    failed: u64,
    slowest: u64,
}

impl Row {
    fn add(&mut self, report: Report) {
        self.calls += report.ok;
        self.failed += report.failed;
        self.slowest = self.slowest.max(report.slowest);
    }
}

/// Eight processes, of which two have load at a time. It moves every 10 s.
async fn moving(server: &Server, kind: Kind) -> Row {
    let mut workers: Vec<_> = (0..8).map(|_| Worker::start(&url(server), kind)).collect();
    workers.iter_mut().for_each(Worker::is_up);
    tokio::time::sleep(5 * SECOND).await;
    for busy in [[0, 1], [6, 7], [2, 4]] {
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.load(if busy.contains(&number) { 30 } else { 0 });
        }
        tokio::time::sleep(10 * SECOND).await;
    }
    let mut row = Row::default();
    workers.into_iter().for_each(|worker| row.add(worker.drain()));
    row
}

/// Eight processes with load are replaced by eight new ones, which start before the old ones end.
async fn rolling(server: &Server, kind: Kind) -> Row {
    let start = || Worker::start(&url(server), kind);
    let mut older: Vec<_> = (0..8).map(|_| start()).collect();
    older.iter_mut().for_each(Worker::is_up);
    older.iter_mut().for_each(|worker| worker.load(10));
    tokio::time::sleep(5 * SECOND).await;
    let mut newer = Vec::new();
    for _ in 0..8 {
        let mut worker = start();
        worker.load(10);
        newer.push(worker);
        tokio::time::sleep(5 * SECOND / 2).await;
    }
    let mut row = Row::default();
    for worker in older {
        row.add(worker.drain());
        tokio::time::sleep(SECOND).await;
    }
    newer.into_iter().for_each(|worker| row.add(worker.drain()));
    row
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a series of minutes, which ./dev fleet runs"]
async fn budget_beside_fixed_sizes() {
    println!("| max_connections = 50 | calls | failed | refused by the server | slowest call |");
    println!("|---|---|---|---|---|");
    let kinds = [
        ("budget", Kind::Fleet),
        ("failfast, max_size = 6", Kind::Fixed(6)),
        ("deadpool, max_size = 10", Kind::Deadpool(10)),
    ];
    for (name, kind) in kinds {
        for what in ["load that moves", "8 -> 16 -> 8"] {
            let server = small_server("50").await;
            let row = if what == "8 -> 16 -> 8" { rolling(&server, kind).await } else { moving(&server, kind).await };
            let (Row { calls, failed, slowest }, refused) = (row, refusals(&server).await);
            println!("| {what}: {name} | {calls} | {failed} | {refused} | {slowest} ms |");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a series of minutes, which ./dev fleet runs"]
async fn cost_of_a_reading() {
    const ROUNDS: u32 = 300;
    let server = Server::own(&[("max_connections", "700"), ("track_activity_query_size", "8192")]).await;
    server.execute("CREATE ROLE app LOGIN PASSWORD 'secret'").await;
    let pool = member(as_app(&server)).build().unwrap();
    eventually("the pool is a member", LONG, async || is_sharing(&pool, 1)).await;
    let text = "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'ff1 shop %' AND query LIKE 'WITH%'";
    let mut question = String::new();
    eventually("a reading is seen", LONG, async || {
        question = server.scalar(text).await;
        !question.is_empty()
    })
    .await;
    drop(pool);
    let mut others = Vec::new();
    println!("| connections | beacons | mean | p99 |\n|---|---|---|---|");
    for (connections, beacons) in [(10, 8), (100, 50), (500, 8), (500, 500)] {
        let name = |number: usize| match number < beacons {
            true => format!("ff1 shop k{number:05} w14 g9 h7 m2"),
            false => "orders".to_owned(),
        };
        others.clear();
        eventually("the server is empty", LONG, async || {
            server.scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").await == "0"
        })
        .await;
        for numbers in (0..connections).collect::<Vec<_>>().chunks(20) {
            let connect = |number: &usize| {
                let mut config = as_app(&server);
                config.application_name(name(*number));
                async move {
                    let (client, connection) = config.connect(NoTls).await.unwrap();
                    tokio::spawn(connection);
                    client
                }
            };
            others.extend(join_all(numbers.iter().map(connect)).await);
        }
        let (client, connection) = as_app(&server).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            client.simple_query(&question).await.unwrap();
            times.push(begun.elapsed());
        }
        times.sort();
        let mean = times.iter().sum::<Duration>() / ROUNDS;
        println!("| {connections} | {beacons} | {mean:.2?} | {:.2?} |", times[times.len() * 99 / 100]);
    }
}
