//! The figures that have a limit, each measured beside its yardstick in one process: batches of both take turns, and the medians
//! are compared, so that a noisy machine slows both.
//!
//! `./dev ratios [NAME...]` prints one line per figure, `name value limit ok|SHORT`, and fails if one is short.

#[path = "../examples/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use failfast::{Error, Pool};
use support::Throwaway;

const ROUNDS: usize = 301;
const BATCH: u32 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    let server = match Throwaway::start().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut all_ok = true;
    let mut report = |name: &str, value: f64, unit: &str, limit: f64| {
        let verdict = if value <= limit { "ok" } else { "SHORT" };
        println!("{name} {value:.3}{unit} {limit}{unit} {verdict}");
        all_ok &= value <= limit;
    };
    if is_wanted("get-idle") {
        report("get-idle", get_idle(&server).await, "", 0.6);
    }
    if is_wanted("refusal") {
        report("refusal", refusal(&server).await, "us", 1.0);
    }
    if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `get` and drop on an idle pool, beside bare deadpool.
async fn get_idle(server: &Throwaway) -> f64 {
    let ours = Pool::builder(server.config()).build().expect("good settings");
    let manager = deadpool_postgres::Manager::new(server.config(), tokio_postgres::NoTls);
    let theirs = deadpool_postgres::Pool::builder(manager)
        .max_size(10)
        .build()
        .expect("good settings");
    drop((
        ours.get().await.expect("a connection"),
        theirs.get().await.expect("a connection"),
    ));
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
    let (ours, theirs) = (median(our_times), median(their_times));
    println!("# get + drop: {:.0?} beside {:.0?}", ours / BATCH, theirs / BATCH);
    ours.as_secs_f64() / theirs.as_secs_f64()
}

/// From call to answer, in microseconds, when the queue is full.
async fn refusal(server: &Throwaway) -> f64 {
    let pool = Pool::builder(server.config())
        .max_size(1)
        .max_waiting(0)
        .build()
        .expect("good settings");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..BATCH {
            let refused = pool.get().await;
            assert!(matches!(black_box(refused), Err(Error::Shed { .. })));
        }
        times.push(begun.elapsed());
    }
    median(times).as_secs_f64() * 1e6 / f64::from(BATCH)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
