//! A storm of timeouts: every statement is late. The pool stops each statement and keeps its connection, so that a
//! server in trouble gets no additional dials.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use failfast::{Error, Shedding};
use futures_util::future::join_all;

use super::duration;
use crate::pool::{LONG, shared};
use crate::support::{eventually, server::Server};

const CONNECTIONS: usize = 20;
const MAX_CONNECTING: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_timeouts_costs_no_connections() {
    let dials = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&dials);
    let pool = shared("storm").await.max_size(CONNECTIONS).max_connecting(MAX_CONNECTING);
    let pool = pool.shedding(Shedding::QueueOnly).acquire_timeout(LONG).after_connect(move |_| {
        counter.fetch_add(1, Relaxed);
        Box::pin(async { Ok(()) })
    });
    let pool = pool.build().unwrap();
    pool.warm_up(CONNECTIONS, LONG).await.unwrap();
    pool.breaker().disable("an open circuit would end the storm");
    let (before, begun) = (dials.load(Relaxed), Instant::now());

    let callers = (0..2 * CONNECTIONS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut late = 0;
            while begun.elapsed() < duration() {
                let told = pool.call().timeout(Duration::from_millis(50)).execute("SELECT pg_sleep(60)", &[]).await;
                assert!(matches!(told, Err(Error::QueryTimeout { .. })), "{told:?}");
                late += 1;
            }
            late
        })
    });
    let late: Vec<u64> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    let (late, dialed) = (late.iter().sum::<u64>(), dials.load(Relaxed) - before);
    let seconds = begun.elapsed().as_secs_f64();
    println!("storm: {late} late statements in {seconds:.1} s, {dialed} dials");
    assert!(late > CONNECTIONS as u64);
    assert!((dialed as f64) < 2.0 * MAX_CONNECTING as f64 * seconds, "{dialed} dials in {seconds:.1} s");

    let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm' AND state <> 'idle'";
    eventually("no statement runs any more", LONG, async || Server::shared().await.scalar(running).await == "0").await;
    pool.query_one("SELECT 1", &[]).await.unwrap();
}
