//! Measures the memory of a waiter: its future, and everything that was allocated for it.
//!
//! This is a program of its own, because counting allocations slows them down and would distort every other figure.

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;
#[path = "../examples/support/mod.rs"]
mod support;

use std::alloc::System;
use std::future::Future;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failfast::Pool;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use report::Report;
use support::Throwaway;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WAITERS: usize = 10_000;

/// The limits in bytes: for a waiter of `pool.get()`, and for a waiter of `pool.query()`.
const LIMITS: [(&str, f64); 2] = [("bytes-per-waiter", 256.0), ("bytes-per-query", 2_500.0)];

#[tokio::main]
async fn main() -> ExitCode {
    let mut report = Report::from_arguments();
    if !LIMITS.iter().any(|(name, _)| report.wants(name)) {
        return ExitCode::SUCCESS;
    }
    let server = match Throwaway::start().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let builder = Pool::builder(server.config()).max_size(1).max_waiting(WAITERS);
    let pool = builder.acquire_timeout(Duration::from_secs(60)).build().expect("good settings");
    let _held = pool.get().await.expect("a connection");
    let [get, query] = LIMITS;
    if report.wants(get.0) {
        report.at_most(get.0, per_waiter(|| pool.get()), get.1);
    }
    if report.wants(query.0) {
        report.at_most(query.0, per_waiter(|| pool.query("SELECT 1", &[])), query.1);
    }
    report.end()
}

fn per_waiter<F: Future>(wait: impl Fn() -> F) -> f64 {
    let mut waiting = Vec::with_capacity(WAITERS);
    let region = Region::new(COUNTED);
    for _ in 0..WAITERS {
        let mut waiter = Box::pin(wait());
        let polled = waiter.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
        waiting.push(waiter);
    }
    let change = region.change();
    println!("# {WAITERS} waiters; the future itself {} bytes", size_of_val(&wait()));
    (change.bytes_allocated - change.bytes_deallocated) as f64 / WAITERS as f64
}
