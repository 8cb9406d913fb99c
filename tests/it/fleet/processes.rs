//! Real processes. None of them is refused a connection, while load moves between them, while some die, and during a
//! rolling deploy.

use std::time::{Duration, Instant};

use super::worker::{Kind, Worker};
use super::{SECOND, refusals, small_server};
use crate::support::server::Server;

pub(crate) fn url(server: &Server) -> String {
    format!("postgresql://app:secret@{}/failfast", server.addr())
}

async fn start(url: &str, count: usize, kind: Kind) -> Vec<Worker> {
    let mut workers = Vec::new();
    for _ in 0..count {
        let mut worker = Worker::start(url, kind);
        worker.is_up();
        workers.push(worker);
        tokio::time::sleep(SECOND / 2).await;
    }
    workers
}

fn granted(workers: &mut [Worker]) -> Vec<usize> {
    workers.iter_mut().map(|worker| worker.report().granted).collect()
}

/// Waits until the condition holds. Returns how long that took, or `None` after `within`.
async fn time_until(within: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if holds() {
            return Some(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_follow_the_load_between_eight_processes_and_leave_a_killed_one() {
    let server = small_server("50").await;
    let mut workers = start(&url(&server), 8, Kind::Fleet).await;
    // 50, less 3 that are reserved, 5 of headroom, 8 beacons: 34.
    for busy in [[0, 1], [6, 7], [2, 4]] {
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.load(if busy.contains(&number) { 30 } else { 0 });
        }
        let follow = time_until(15 * SECOND, || {
            let granted = granted(&mut workers);
            busy.iter().all(|number| granted[*number] >= 12)
        });
        let took = follow.await;
        println!("the slots have followed the load after {took:?}");
        assert!(took.is_some_and(|took| took < 10 * SECOND), "{:?}", granted(&mut workers));
    }
    let before = workers[4].report().granted;
    workers.swap_remove(2).kill();
    // The last one is in its place.
    let took = time_until(10 * SECOND, || workers[4].report().granted >= before + before / 2).await;
    println!("the slots of a killed process are used again after {took:?}");
    assert!(took.is_some_and(|took| took < 5 * SECOND), "{:?}", granted(&mut workers));
    let failed: u64 = workers.iter_mut().map(|worker| worker.report().failed).sum();
    assert_eq!((refusals(&server).await, failed), (0, 0));
}

/// The server learns of it by its keepalives. Until then the sessions of that process are open on the server, and the
/// others must not use their slots.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_network_gives_up_its_slots_within_half_a_minute() {
    let server = small_server("50").await;
    let inner = format!("postgresql://app:secret@{}/failfast", server.inner_addr().await);
    let mut other = Worker::start(&url(&server), Kind::Fleet);
    other.is_up();
    let (mut cut_off, network) = Worker::start_apart(&inner).await;
    cut_off.is_up();
    other.load(30);
    cut_off.load(30);
    // 50, less 3 that are reserved, 5 of headroom, 2 beacons: 40.
    let both = time_until(30 * SECOND, || (19..=21).contains(&other.report().granted)).await;
    assert!(both.is_some(), "{} and {}", other.report().granted, cut_off.report().granted);
    network.cut();
    let took = time_until(60 * SECOND, || other.report().granted >= 30).await;
    println!("the slots of a process without a network are used again after {took:?}");
    assert!(took.is_some_and(|took| took < 30 * SECOND), "{}", other.report().granted);
    assert_eq!((refusals(&server).await, other.report().failed), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deploy_fails_no_call() {
    let server = small_server("50").await;
    let url = url(&server);
    let mut workers = start(&url, 8, Kind::Fleet).await;
    workers.iter_mut().for_each(|worker| worker.load(8));
    tokio::time::sleep(5 * SECOND).await;
    let mut newer = Vec::new();
    for _ in 0..8 {
        let mut worker = Worker::start(&url, Kind::Fleet);
        worker.is_up();
        worker.load(8);
        newer.push(worker);
        tokio::time::sleep(5 * SECOND / 2).await;
    }
    assert!(newer.iter_mut().all(|worker| worker.report().members >= 15));
    let mut failed = 0;
    for worker in workers {
        failed += worker.drain().failed;
        tokio::time::sleep(SECOND).await;
    }
    tokio::time::sleep(5 * SECOND).await;
    let reports: Vec<_> = newer.iter_mut().map(Worker::report).collect();
    failed += reports.iter().map(|report| report.failed).sum::<u64>();
    assert_eq!((refusals(&server).await, failed), (0, 0));
    assert!(reports.iter().all(|report| report.members == 8 && report.granted >= 4), "{reports:?}");
}
