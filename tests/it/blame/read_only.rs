//! Refused writes. The first ones may mean a failover. When they go on, they only mean that a caller writes to a server
//! that is read-only by design.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use failfast::{Event, EventKind, Pool};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::LONG;
use crate::support::server::Server;

const MILLISECOND: Duration = Duration::from_millis(1);
const LASTS: Duration = Duration::from_secs(3);

/// Runs 20 readers, and a writer that writes every 20 ms. Returns the number of sessions beyond the first five, and how
/// often the pool reported a new primary.
async fn stray_writer(name: &str, server: &Server, settings: &str) -> (usize, u64) {
    let at = format!("host={} port={} {settings}", server.addr().ip(), server.addr().port());
    let changes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&changes);
    let builder = Pool::builder(server.config_with(&at)).name(name).max_size(5);
    let pool = builder
        .observer(move |event: &Event| {
            counter.fetch_add(u64::from(matches!(event.kind, EventKind::PrimaryChanged { .. })), Relaxed);
        })
        .build()
        .unwrap();
    pool.warm_up(5, LONG).await.unwrap();
    let is_over = AtomicBool::new(false);
    let read = async || {
        let (mut slowest, mut processes) = (Duration::ZERO, HashSet::new());
        while !is_over.load(Relaxed) {
            let begun = Instant::now();
            let process: i32 = pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            slowest = slowest.max(begun.elapsed());
            processes.insert(process);
            sleep(MILLISECOND).await;
        }
        (slowest, processes)
    };
    let write = async {
        let begun = Instant::now();
        while begun.elapsed() < LASTS {
            pool.execute("CREATE TABLE never (id int)", &[]).await.unwrap_err();
            sleep(20 * MILLISECOND).await;
        }
        is_over.store(true, Relaxed);
    };
    let (read, ()) = tokio::join!(join_all((0..20).map(|_| read())), write);
    let slowest = read.iter().map(|(slowest, _)| slowest).max().unwrap();
    let processes: HashSet<_> = read.iter().flat_map(|(_, processes)| processes).collect();
    println!("{name}: {} sessions, slowest read {slowest:.0?}", processes.len());
    (processes.len() - 5, changes.load(Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stray_writer_in_a_read_only_role_costs_its_readers_nothing() {
    let server = Server::own(&[]).await;
    server.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on").await;
    assert_eq!(stray_writer("stray_role", &server, "").await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stray_writer_on_a_standby_causes_one_look_up_of_the_name() {
    let primary = Server::own(&[]).await;
    let standby = Server::standby(&primary, &[]).await;
    assert_eq!(stray_writer("stray_standby", &standby, "").await, (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stray_writer_in_a_pool_for_standbys_causes_one_look_up_of_the_name() {
    let primary = Server::own(&[]).await;
    let standby = Server::standby(&primary, &[]).await;
    assert_eq!(stray_writer("stray_wanted", &standby, "target_session_attrs=read-only").await, (5, 0));
}
