//! The long series that `./dev adaptive` runs: the limit beside a sweep of fixed sizes, while other sessions keep the
//! server's processor busy.

use std::time::{Duration, Instant};

use failfast::Adaptive;
use tokio::time::sleep;

use super::saturated::{Burners, WORK, busy_server, calm};
use super::{Load, MILLISECOND, SECOND, lines, status};

/// Calls a second over this time.
async fn goodput(load: &Load, within: Duration) -> f64 {
    let (before, begun) = (load.done(), Instant::now());
    sleep(within).await;
    (load.done() - before) as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a series of minutes, which ./dev adaptive runs"]
async fn a_busy_server_beside_fixed_sizes() {
    let server = busy_server().await;
    let burners = Burners::begin(&server, 4).await;
    println!("| size | calls a second |\n|---|---|");
    let mut best = 0.0_f64;
    for size in [2, 4, 6, 8, 10, 13, 15] {
        let (pool, _) = calm(&server, "adaptive-fixed", Adaptive::Off).await;
        pool.resize(size).unwrap();
        let load = Load::begin(&pool, "work", WORK, 25, MILLISECOND);
        sleep(5 * SECOND).await;
        let calls = goodput(&load, 30 * SECOND).await;
        println!("| {size} | {calls:.1} |");
        best = best.max(calls);
    }
    burners.end().await;
    let (pool, seen) = calm(&server, "adaptive-series", Adaptive::Act).await;
    let burners = Burners::begin(&server, 4).await;
    let load = Load::begin(&pool, "work", WORK, 25, MILLISECOND);
    sleep(60 * SECOND).await;
    let (mut limits, begun, before) = (Vec::new(), Instant::now(), load.done());
    while begun.elapsed() < 300 * SECOND {
        limits.push(status(&pool).limit);
        sleep(SECOND).await;
    }
    let calls = (load.done() - before) as f64 / begun.elapsed().as_secs_f64();
    let (least, most) = (limits.iter().min().unwrap(), limits.iter().max().unwrap());
    println!("| follows the database, {least} to {most} | {calls:.1} |");
    lines(&seen).iter().for_each(|line| println!("{line}"));
    // A step is a tenth, rounded up.
    assert!(most - least <= 4, "more than two steps in five minutes: {limits:?}");
    assert!(calls >= 0.95 * best, "{calls:.1} a second, and {best:.1} with the best fixed size");
    drop(load);
    burners.end().await;
}
