//! Counts the instructions of the hot paths with valgrind: those of failfast, deadpool and failsafe.
//!
//! `ratios/instructions.rs` runs this program, sets `DATABASE_URL` and compares the counts. Each benchmark is a process
//! of its own with one thread. A count covers what the process does in user space, the driver included. It does not
//! cover the server and the kernel.

#![allow(missing_docs, unused_qualifications, reason = "the macros of the harness generate such code")]

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod peers;

use std::env;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use deadpool_postgres::Timeouts;
use failfast::{BreakerConfig, CircuitBreaker, Error};
use gungraun::Callgrind;
use gungraun::prelude::*;
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio_postgres::Config;

use peers::{LIMIT, NO_TIMEOUT, WAIT_TIMEOUT};

const TURNS: usize = 1_000;
const CONNECTIONS: usize = 10;
const SQL: &str = "SELECT 1";

/// Makes glibc copy large blocks without `rep movsb`, for which valgrind counts an instruction per byte.
const NO_REP: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffffffffffff";

/// Does one thing `TURNS` times.
type Work = Box<dyn FnMut()>;

#[library_benchmark]
#[bench::get_idle(work(peers::failfast(config(), CONNECTIONS), async |pool| {
    drop(pool.get().await.expect("idle"));
}))]
#[bench::get_idle_recorded(work(recorded(), async |pool| {
    drop(pool.get().await.expect("idle"));
}))]
#[bench::get_idle_deadpool(work(peers::deadpool(config(), CONNECTIONS, NO_TIMEOUT), async |pool| {
    drop(pool.get().await.expect("idle"));
}))]
#[bench::hand_over(work(peers::failfast(config(), 1), async |pool| {
    let held = pool.get().await.expect("idle");
    let mut next = pin!(pool.get());
    join_queue(next.as_mut());
    drop(held);
    drop(next.await.expect("given back"));
}))]
#[bench::hand_over_deadpool(work(peers::deadpool(config(), 1, WAIT_TIMEOUT), async |pool| {
    let held = pool.get().await.expect("idle");
    let mut next = pin!(pool.get());
    join_queue(next.as_mut());
    drop(held);
    drop(next.await.expect("given back"));
}))]
#[bench::refusal(work(full(), async |(pool, _held)| {
    assert!(matches!(black_box(pool.get().await), Err(Error::Shed { .. })));
}))]
#[bench::refusal_deadpool(work(full_deadpool(), async |(pool, _held)| {
    assert!(black_box(pool.get().await).is_err());
}))]
#[bench::breaker(work(async { CircuitBreaker::new(BreakerConfig::default()).expect("good settings") }, async |breaker| {
    black_box(breaker).try_acquire().expect("a closed circuit").success();
}))]
#[bench::breaker_failsafe(work(async { peers::failsafe() }, async |breaker| {
    assert!(black_box(breaker).is_call_permitted());
    breaker.on_success();
}))]
#[bench::select_1(work(peers::failfast(config(), 1), async |pool| {
    pool.query_one(SQL, &[]).await.expect("a row");
}))]
#[bench::select_1_deadpool(work(peers::deadpool(config(), 1, NO_TIMEOUT), async |pool| {
    let client = pool.get().await.expect("idle");
    let statement = client.prepare_cached(SQL).await.expect("a statement");
    client.query_one(&statement, &[]).await.expect("a row");
}))]
fn counted(mut work: Work) -> Work {
    work();
    work
}

library_benchmark_group!(name = hot_paths, benchmarks = counted);

main!(
    config = LibraryBenchmarkConfig::default()
        .pass_through_env("DATABASE_URL")
        .env("GLIBC_TUNABLES", NO_REP)
        .tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = hot_paths
);

/// Returns work that does `turn` with the result of `prepare`. One turn has already run, so caches are warm.
fn work<P: 'static>(prepare: impl Future<Output = P>, turn: impl AsyncFn(&P) + 'static) -> Work {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let prepared = runtime.block_on(prepare);
    let work = Box::new(move || {
        runtime.block_on(async {
            for _ in 0..TURNS {
                turn(&prepared).await;
            }
        });
    });
    work();
    work
}

/// Polls a caller once, so that it waits for a connection.
fn join_queue(caller: Pin<&mut impl Future>) {
    assert!(caller.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

fn config() -> Config {
    env::var("DATABASE_URL").expect("DATABASE_URL").parse().expect("a URL")
}

async fn recorded() -> failfast::Pool {
    let recorder = failfast::metrics::prometheus().expect("good buckets").build_recorder();
    peers::filled(peers::builder(config(), CONNECTIONS).recorder(recorder), CONNECTIONS).await
}

/// A pool that refuses each caller, because its queue is full.
async fn full() -> (failfast::Pool, failfast::Client) {
    let pool = failfast::Pool::builder(config()).max_size(1).max_waiting(1).build().expect("good settings");
    let held = pool.get_timeout(LIMIT).await.expect("a connection");
    let waiting = pool.clone();
    tokio::spawn(async move { drop(waiting.get_timeout(LIMIT).await) });
    while pool.status().waiting == 0 {
        yield_now().await;
    }
    (pool, held)
}

/// A pool that refuses each caller, because its callers do not wait.
async fn full_deadpool() -> (deadpool_postgres::Pool, deadpool_postgres::Object) {
    let timeouts = Timeouts { wait: Some(Duration::ZERO), ..NO_TIMEOUT };
    let pool = peers::deadpool(config(), 1, timeouts).await;
    let held = pool.get().await.expect("idle");
    (pool, held)
}
