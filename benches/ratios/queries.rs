//! One statement through everything, beside a bare connection: they take turns, call by call, and the order changes each time. `-aa` is the
//! yardstick against itself: how far the machine can be trusted.

use std::time::{Duration, Instant};

use failfast::{Pool, Reset};

use super::support::Throwaway;
use super::{Report, median};

const CALLS: usize = 20_000;
const SQL: &str = "SELECT 1";

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("select-1") {
        select_1(server, report).await;
    }
    if report.wants("deref") {
        deref(server, report).await;
    }
}

/// A get and a query on a pool.
trait Peer {
    async fn call(&self);
}

struct Ours(Pool);

impl Peer for Ours {
    async fn call(&self) {
        self.0.query_one(SQL, &[]).await.expect("a row");
    }
}

struct Bare(deadpool_postgres::Pool);

impl Peer for Bare {
    async fn call(&self) {
        let client = self.0.get().await.expect("a connection");
        let statement = client.prepare_cached(SQL).await.expect("a statement");
        client.query_one(&statement, &[]).await.expect("a row");
    }
}

/// Ours through the deref: verified before the next use.
struct Derefed(Pool);

impl Peer for Derefed {
    async fn call(&self) {
        let client = self.0.get().await.expect("a connection");
        let statement = (*client).prepare_cached(SQL).await.expect("a statement");
        (*client).query_one(&statement, &[]).await.expect("a row");
    }
}

fn ours(server: &Throwaway, reset: Reset) -> Pool {
    Pool::builder(server.config())
        .max_size(1)
        .reset(reset)
        .acquire_timeout(Duration::from_secs(60))
        .build()
        .expect("good settings")
}

fn bare(server: &Throwaway) -> Bare {
    let manager = deadpool_postgres::Manager::new(server.config(), tokio_postgres::NoTls);
    Bare(deadpool_postgres::Pool::builder(manager).max_size(1).build().expect("good settings"))
}

async fn select_1(server: &Throwaway, report: &mut Report) {
    let (a, b) = (bare(server), bare(server));
    let (first, second) = turns(&a, &b).await;
    println!("# select-1-aa {:.3}", first.as_secs_f64() / second.as_secs_f64());
    let (ours, theirs) = turns(&Ours(ours(server, Reset::WhenSeen)), &a).await;
    println!("# {SQL} through the pool: {ours:.1?} beside {theirs:.1?}");
    report.at_most("select-1", ours.as_secs_f64() / theirs.as_secs_f64(), 1.05);
}

/// What a use through the deref costs, until the connection is there again.
async fn deref(server: &Throwaway, report: &mut Report) {
    let tracked = Ours(ours(server, Reset::WhenSeen));
    let (derefed, tracked) = turns(&Derefed(ours(server, Reset::WhenSeen)), &tracked).await;
    println!("# {SQL} through the deref: {derefed:.1?} beside {tracked:.1?} tracked");
    report.at_most("deref", derefed.as_secs_f64() / tracked.as_secs_f64(), 1.15);
}

/// The medians.
async fn turns(a: &impl Peer, b: &impl Peer) -> (Duration, Duration) {
    let (mut times_a, mut times_b) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
    for turn in 0..CALLS {
        if turn % 2 == 0 {
            times_a.push(time(a).await);
            times_b.push(time(b).await);
        } else {
            times_b.push(time(b).await);
            times_a.push(time(a).await);
        }
    }
    (median(times_a), median(times_b))
}

async fn time(peer: &impl Peer) -> Duration {
    let begun = Instant::now();
    peer.call().await;
    begun.elapsed()
}
