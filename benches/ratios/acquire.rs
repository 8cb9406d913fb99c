//! Measures getting a connection without a query: idle, contended and refused. Also measures the fairness of the queue.

use std::hint::black_box;
use std::time::{Duration, Instant};

use failfast::{Error, Pool, PoolBuilder};
use tokio::task::{JoinSet, yield_now};

use super::peers::{self, LIMIT, crowd};
use super::support::Throwaway;
use super::turns::{self, Plan, Ratio, Side};
use super::{Report, median};

const ROUNDS: usize = 201;
const BATCH: u32 = 1_000;
const CONNECTIONS: usize = 10;

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("get-idle") {
        let ours = peers::failfast(server.config(), CONNECTIONS).await;
        get_idle(server, &ours, || ()).await.at_most(report, "get-idle", 0.6);
    }
    if report.wants("get-idle-recorded") {
        let recorder = failfast::metrics::prometheus().expect("good buckets").build_recorder();
        let handle = recorder.handle();
        let builder = peers::builder(server.config(), CONNECTIONS).recorder(recorder);
        let ours = peers::filled(builder, CONNECTIONS).await;
        // A service does this in a task of its own.
        let ratio = get_idle(server, &ours, || handle.run_upkeep()).await;
        ratio.at_most(report, "get-idle-recorded", 0.75);
    }
    if report.wants("tasks-2000") {
        for tasks in [20, 200] {
            contended(server, tasks).await; // printed, without a limit
        }
        contended(server, 2_000).await.at_most(report, "tasks-2000", 0.75);
    }
    if report.wants("refusal-us") {
        let pool = Pool::builder(server.config()).max_size(1).max_waiting(1);
        report.at_most("refusal-us", refusal(pool, || ()).await, 0.25);
    }
    if report.wants("refusal-recorded-us") {
        let recorder = failfast::metrics::prometheus().expect("good buckets").build_recorder();
        let handle = recorder.handle();
        let pool = Pool::builder(server.config()).max_size(1).max_waiting(1).recorder(recorder);
        report.at_most("refusal-recorded-us", refusal(pool, || handle.run_upkeep()).await, 1.0);
    }
    if report.wants("fairness") {
        report.at_most("fairness", fairness(server).await, 3.0);
    }
}

/// Times `get` and drop on an idle pool, beside bare deadpool.
async fn get_idle(server: &Throwaway, ours: &Pool, between: impl Fn()) -> Ratio {
    let plan = Plan { sets: 3, rounds: 66 };
    let prepare = async || peers::deadpool(server.config(), CONNECTIONS, peers::NO_TIMEOUT).await;
    turns::measure(&format!("{BATCH} times get + drop"), plan, prepare, async |theirs, side| {
        let begun = Instant::now();
        match side {
            Side::Ours => {
                for _ in 0..BATCH {
                    let _ = black_box(ours.get().await.expect("idle"));
                }
            }
            Side::Theirs => {
                for _ in 0..BATCH {
                    let _ = black_box(theirs.get().await.expect("idle"));
                }
            }
        }
        let took = begun.elapsed();
        between();
        took
    })
    .await
}

/// Times tasks that each take a connection many times, beside deadpool with the same acquire timeout. Prints the times
/// of the other pools.
async fn contended(server: &Throwaway, tasks: u32) -> Ratio {
    let config = server.config();
    let prepare = async || {
        let ours = peers::failfast(config.clone(), CONNECTIONS).await;
        (ours, peers::deadpool(config.clone(), CONNECTIONS, peers::WAIT_TIMEOUT).await)
    };
    let what = format!("{tasks} tasks on {CONNECTIONS} connections, 0 refused");
    let plan = Plan { sets: 10, rounds: 12 };
    let ratio = turns::measure(&what, plan, prepare, async |(ours, theirs), side| match side {
        Side::Ours => crowd(tasks, ours, |pool| async move { pool.get().await.ok() }).await,
        Side::Theirs => crowd(tasks, theirs, |pool| async move { pool.get().await.ok() }).await,
    })
    .await;
    let three = peers::deadpool(config.clone(), CONNECTIONS, peers::THREE_TIMEOUTS).await;
    let (bb8, sqlx) = (peers::bb8(config.clone(), CONNECTIONS).await, peers::sqlx(&config, CONNECTIONS).await);
    // The other pools do not run in between, because a pool that follows a slow one finds its memory returned and its
    // caches cold.
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..11 {
        times[0].push(crowd(tasks, &three, |pool| async move { pool.get().await.ok() }).await);
        times[1].push(crowd(tasks, &bb8, |pool| async move { pool.get_owned().await.ok() }).await);
        times[2].push(crowd(tasks, &sqlx, |pool| async move { pool.acquire().await.ok() }).await);
    }
    let [three, bb8, sqlx] = times.map(median);
    println!("# other pools: deadpool with three timeouts {three:.1?}, bb8 {bb8:.1?}, sqlx {sqlx:.1?}");
    ratio
}

/// Returns the time of a refusal by a full queue, in microseconds.
async fn refusal(builder: PoolBuilder, between: impl Fn()) -> f64 {
    let pool = builder.build().expect("good settings");
    let held = pool.get_timeout(LIMIT).await.expect("a connection");
    let waiting = pool.clone();
    let waiting = tokio::spawn(async move { drop(waiting.get_timeout(LIMIT).await) });
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
        between();
    }
    drop(held);
    waiting.await.expect("served");
    median(times).as_secs_f64() * 1e6 / f64::from(BATCH)
}

/// Runs a thousand tasks on fifty connections for five seconds. Returns the slowest wait as a multiple of the median.
async fn fairness(server: &Throwaway) -> f64 {
    let pool = peers::failfast(server.config(), 50).await;
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
