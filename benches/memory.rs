//! What a waiter costs in memory: its future, and all that was allocated for it.
//!
//! A program of its own: to count what is allocated slows all that allocates, so it would make every other figure wrong.

#[allow(dead_code, reason = "some of it is for other figures")]
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

#[tokio::main]
async fn main() -> ExitCode {
    let mut report = Report::from_arguments();
    if !report.wants("bytes-per-waiter") {
        return ExitCode::SUCCESS;
    }
    match Throwaway::start().await {
        Ok(server) => report.at_most("bytes-per-waiter", per_waiter(&server).await, 256.0),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    report.end()
}

async fn per_waiter(server: &Throwaway) -> f64 {
    let builder = Pool::builder(server.config()).max_size(1).max_waiting(WAITERS);
    let pool = builder.acquire_timeout(Duration::from_secs(60)).build().expect("good settings");
    let _held = pool.get().await.expect("a connection");
    let mut waiting = Vec::with_capacity(WAITERS);
    let region = Region::new(COUNTED);
    for _ in 0..WAITERS {
        let mut waiter = Box::pin(pool.get());
        let polled = waiter.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
        waiting.push(waiter);
    }
    let change = region.change();
    let future = size_of_val(&pool.get());
    println!("# {WAITERS} waiters; the future itself {future} bytes");
    (change.bytes_allocated - change.bytes_deallocated) as f64 / WAITERS as f64
}
