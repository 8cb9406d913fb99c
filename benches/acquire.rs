//! Times getting a connection and giving it back, beside other pools: idle, with more tasks than connections, and
//! refused.
//!
//! `./dev bench [FILTER]` runs it.

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod peers;
#[path = "../examples/support/mod.rs"]
mod support;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use deadpool_postgres::Timeouts;
use peers::crowd;
use support::Throwaway;
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio_postgres::Config;

const CONNECTIONS: usize = 10;

/// All pools, on one server.
struct Pools {
    failfast: failfast::Pool,
    deadpool: [(&'static str, deadpool_postgres::Pool); 3],
    bb8: peers::Bb8,
    sqlx: sqlx::PgPool,
}

impl Pools {
    async fn new(config: Config) -> Self {
        let deadpool = |timeouts| peers::deadpool(config.clone(), CONNECTIONS, timeouts);
        Self {
            failfast: peers::failfast(config.clone(), CONNECTIONS).await,
            deadpool: [
                ("deadpool", deadpool(peers::NO_TIMEOUT).await),
                ("deadpool, wait timeout", deadpool(peers::WAIT_TIMEOUT).await),
                ("deadpool, three timeouts", deadpool(peers::THREE_TIMEOUTS).await),
            ],
            bb8: peers::bb8(config.clone(), CONNECTIONS).await,
            sqlx: peers::sqlx(&config, CONNECTIONS).await,
        }
    }
}

fn acquire(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Throwaway::start()).expect("a server");
    let pools = runtime.block_on(Pools::new(server.config()));
    idle(criterion, &runtime, &pools);
    for tasks in [20, 200, 2_000] {
        contended(criterion, &runtime, &pools, tasks);
    }
    refused(criterion, &runtime, server.config());
}

fn idle(criterion: &mut Criterion, runtime: &Runtime, pools: &Pools) {
    let mut group = criterion.benchmark_group("get and drop, idle");
    group.bench_function("failfast", |bencher| {
        bencher.to_async(runtime).iter(|| async { drop(pools.failfast.get().await.expect("idle")) });
    });
    for (name, pool) in &pools.deadpool {
        group.bench_function(*name, |bencher| {
            bencher.to_async(runtime).iter(|| async { drop(pool.get().await.expect("idle")) });
        });
    }
    group.bench_function("bb8, unchecked", |bencher| {
        bencher.to_async(runtime).iter(|| async { drop(pools.bb8.get().await.expect("idle")) });
    });
    group.bench_function("sqlx, unchecked", |bencher| {
        bencher.to_async(runtime).iter(|| async { drop(pools.sqlx.acquire().await.expect("idle")) });
    });
    group.finish();
}

fn contended(criterion: &mut Criterion, runtime: &Runtime, pools: &Pools, tasks: u32) {
    let mut group = criterion.benchmark_group(format!("{tasks} tasks on {CONNECTIONS} connections, ten times each"));
    group.sample_size(10);
    group.bench_function("failfast", |bencher| {
        let crowd = || crowd(tasks, &pools.failfast, |pool| async move { pool.get().await.ok() });
        bencher.to_async(runtime).iter(crowd);
    });
    for (name, pool) in &pools.deadpool {
        group.bench_function(*name, |bencher| {
            let crowd = || crowd(tasks, pool, |pool| async move { pool.get().await.ok() });
            bencher.to_async(runtime).iter(crowd);
        });
    }
    group.bench_function("bb8, unchecked", |bencher| {
        let crowd = || crowd(tasks, &pools.bb8, |pool| async move { pool.get_owned().await.ok() });
        bencher.to_async(runtime).iter(crowd);
    });
    group.bench_function("sqlx, unchecked", |bencher| {
        let crowd = || crowd(tasks, &pools.sqlx, |pool| async move { pool.acquire().await.ok() });
        bencher.to_async(runtime).iter(crowd);
    });
    group.finish();
}

/// Deadpool's queue has no bound. Its closest counterpart of a refusal is a `get` that does not wait.
fn refused(criterion: &mut Criterion, runtime: &Runtime, config: Config) {
    let mut group = criterion.benchmark_group("refused");
    let builder = failfast::Pool::builder(config.clone()).max_size(1).max_waiting(1);
    let failfast = builder.acquire_timeout(peers::LIMIT).build().expect("good settings");
    let held = runtime.block_on(failfast.get()).expect("a connection");
    let patient = failfast.clone();
    let waiting = runtime.spawn(async move { patient.get().await.map(drop) });
    runtime.block_on(async {
        while failfast.status().waiting == 0 {
            yield_now().await;
        }
    });
    group.bench_function("failfast, the queue is full", |bencher| {
        bencher.to_async(runtime).iter(|| async { failfast.get().await.expect_err("full") });
    });
    drop(held);
    runtime.block_on(waiting).expect("no panic").expect("served");

    let deadpool = runtime.block_on(peers::deadpool(config, 1, peers::NO_TIMEOUT));
    let held = runtime.block_on(deadpool.get()).expect("a connection");
    let at_once = Timeouts { wait: Some(Duration::ZERO), ..peers::NO_TIMEOUT };
    group.bench_function("deadpool, without waiting", |bencher| {
        bencher.to_async(runtime).iter(|| async { deadpool.timeout_get(&at_once).await.expect_err("in use") });
    });
    drop(held);
    group.finish();
}

criterion_group!(benches, acquire);
criterion_main!(benches);
