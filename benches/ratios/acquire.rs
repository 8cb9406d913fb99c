//! Getting a connection, without a query: idle, contended, refused; and how fair the queue is.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use failfast::{Error, Pool};
use tokio::task::{JoinSet, yield_now};

use super::support::Throwaway;
use super::{Report, median};

const ROUNDS: usize = 201;
const BATCH: u32 = 1_000;
const CONNECTIONS: usize = 10;
/// The same for all pools: long enough that nobody gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("get-idle") {
        report.at_most("get-idle", get_idle(server).await, 0.6);
    }
    if report.wants("tasks-2000") {
        for tasks in [20, 200] {
            contended(server, tasks).await; // without a limit, for the eye
        }
        report.at_most("tasks-2000", contended(server, 2_000).await, 0.8);
    }
    if report.wants("refusal-us") {
        report.at_most("refusal-us", refusal(server).await, 1.0);
    }
    if report.wants("fairness") {
        report.at_most("fairness", fairness(server).await, 3.0);
    }
}

async fn ours(server: &Throwaway, size: usize) -> Pool {
    let builder = Pool::builder(server.config()).max_size(size).max_waiting(10_000).acquire_timeout(PATIENCE);
    let pool = builder.build().expect("good settings");
    pool.warm_up(size, PATIENCE).await.expect("connections");
    pool
}

async fn deadpool(server: &Throwaway, size: usize, wait: Option<Duration>) -> deadpool_postgres::Pool {
    let manager = deadpool_postgres::Manager::new(server.config(), tokio_postgres::NoTls);
    let builder = deadpool_postgres::Pool::builder(manager).max_size(size).wait_timeout(wait);
    let pool = builder.runtime(deadpool_postgres::Runtime::Tokio1).build().expect("good settings");
    let mut all = Vec::new();
    for _ in 0..size {
        all.push(pool.get().await.expect("a connection"));
    }
    pool
}

/// `get` and drop on an idle pool, beside bare deadpool.
async fn get_idle(server: &Throwaway) -> f64 {
    let (ours, theirs) = (ours(server, CONNECTIONS).await, deadpool(server, CONNECTIONS, None).await);
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..BATCH {
            let _ = black_box(ours.get().await.expect("idle"));
        }
        our_times.push(begun.elapsed());
        let begun = Instant::now();
        for _ in 0..BATCH {
            let _ = black_box(theirs.get().await.expect("idle"));
        }
        their_times.push(begun.elapsed());
    }
    compare("get + drop", median(our_times) / BATCH, median(their_times) / BATCH)
}

/// So many tasks, each taking a connection many times over, beside deadpool with the same acquire timeout.
async fn contended(server: &Throwaway, tasks: u32) -> f64 {
    let (ours, theirs) = (ours(server, CONNECTIONS).await, deadpool(server, CONNECTIONS, Some(PATIENCE)).await);
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..21 {
        our_times.push(crowd(tasks, &ours, |pool| async move { pool.get().await.expect("no refusal") }).await);
        their_times.push(crowd(tasks, &theirs, |pool| async move { pool.get().await.expect("no refusal") }).await);
    }
    compare(&format!("{tasks} tasks on {CONNECTIONS} connections, 0 refused"), median(our_times), median(their_times))
}

/// How long it takes until each task has had a connection ten times, and has let others run while it had it.
async fn crowd<P, C, F>(tasks: u32, pool: &P, get: impl Fn(P) -> F + Copy + Send + 'static) -> Duration
where
    P: Clone + Send + 'static,
    C: Send + 'static,
    F: Future<Output = C> + Send,
{
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let pool = pool.clone();
        running.spawn(async move {
            for _ in 0..10 {
                let client = get(pool.clone()).await;
                yield_now().await;
                drop(client);
            }
        });
    }
    running.join_all().await;
    begun.elapsed()
}

/// From call to answer, in microseconds, when the queue is full.
async fn refusal(server: &Throwaway) -> f64 {
    let pool = Pool::builder(server.config()).max_size(1).max_waiting(1).build().expect("good settings");
    let held = pool.get_timeout(PATIENCE).await.expect("a connection");
    let waiting = pool.clone();
    let waiting = tokio::spawn(async move { drop(waiting.get_timeout(PATIENCE).await) });
    while pool.status().waiting == 0 {
        yield_now().await;
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..BATCH {
            let refused = pool.get().await;
            assert!(matches!(black_box(refused), Err(Error::Shed { .. })));
        }
        times.push(begun.elapsed());
    }
    drop(held);
    waiting.await.expect("served");
    median(times).as_secs_f64() * 1e6 / f64::from(BATCH)
}

/// A thousand tasks on fifty connections for five seconds: the slowest wait, in medians.
async fn fairness(server: &Throwaway) -> f64 {
    let pool = ours(server, 50).await;
    let end = Instant::now() + Duration::from_secs(5);
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while Instant::now() < end {
                let asked = Instant::now();
                let client = pool.get().await.expect("no refusal");
                waits.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(client);
            }
            waits
        });
    }
    let waits: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let (count, slowest, median) = (waits.len(), waits.iter().max().copied().unwrap_or_default(), median(waits));
    println!("# {count} waits, median {median:.1?}, slowest {slowest:.1?}");
    slowest.as_secs_f64() / median.as_secs_f64()
}

fn compare(what: &str, ours: Duration, theirs: Duration) -> f64 {
    println!("# {what}: {ours:.1?} beside {theirs:.1?}");
    ours.as_secs_f64() / theirs.as_secs_f64()
}
