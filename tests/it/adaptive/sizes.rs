//! Growth, and no reason to shrink.

use std::time::Instant;

use failfast::{Adaptive, AdviceReason, Pool};

use super::{Load, MILLISECOND, SECOND, STEPS, has, lines, pool, status};
use crate::support::eventually;
use crate::support::server::Server;

/// A statement that takes no processor.
const CALL: &str = "SELECT pg_sleep(0.05)";

#[tokio::test(flavor = "multi_thread")]
async fn twice_the_traffic_on_an_idle_server_makes_the_pool_grow_within_10_s() {
    let server = Server::shared().await;
    let (builder, seen) = pool(server.config(), "adaptive-growth", Adaptive::Act);
    let pool = builder.max_size(40).adaptive_start(6).build().unwrap();
    assert_eq!((pool.status().max_size, status(&pool).limit, status(&pool).max_size), (6, 6, 40));
    let calm = Load::begin(&pool, "call", CALL, 1, 20 * MILLISECOND);
    calm.more(100).await;
    drop(calm);
    let half = Load::begin(&pool, "call", CALL, 5, SECOND / 1_000);
    half.more(200).await;
    assert_eq!(status(&pool).limit, 6, "{:?}", lines(&seen));
    let (doubled, begun) = (Load::begin(&pool, "call", CALL, 5, SECOND / 1_000), Instant::now());
    eventually("it grows", STEPS, async || status(&pool).limit > 6).await;
    let took = begun.elapsed();
    assert!(took <= 10 * SECOND, "{took:?}");
    assert!(has(&seen, "limit_changed", Some(AdviceReason::CallersQueue)), "{:?}", lines(&seen));
    eventually("it grows as far as it is needed", STEPS, async || {
        let status = pool.status();
        status.max_size >= 9 && status.max_size == super::status(&pool).limit
    })
    .await;
    assert!(status(&pool).limit <= 12, "{:?}", lines(&seen));
    drop((half, doubled));
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_to_grow_is_said_and_changes_nothing() {
    let server = Server::shared().await;
    let (builder, seen) = pool(server.config(), "adaptive-advice", Adaptive::Advise);
    let pool = builder.max_size(5).build().unwrap();
    let calm = Load::begin(&pool, "call", CALL, 1, 20 * MILLISECOND);
    calm.more(100).await;
    drop(calm);
    let load = Load::begin(&pool, "call", CALL, 12, MILLISECOND);
    eventually("it is said", STEPS, async || has(&seen, "limit_advised", Some(AdviceReason::CallersQueue))).await;
    let line = lines(&seen).concat();
    assert!(line.contains("advice: 5 -> 6 connections, because callers wait"), "{line}");
    let advice = pool.status().advice().copied().expect("it stands in the status");
    assert_eq!((advice.reason, advice.from, advice.to), (AdviceReason::CallersQueue, 5, 6));
    assert!(!has(&seen, "limit_changed", None) && pool.status().max_size == 5 && !status(&pool).acts);
    drop(load);
}

/// Slow operations that have always been slow are no overload.
#[tokio::test(flavor = "multi_thread")]
async fn a_shift_to_slow_reports_is_no_reason_to_shrink() {
    let server = Server::shared().await;
    let (builder, seen) = pool(server.config(), "adaptive-reports", Adaptive::Act);
    let pool = builder.max_size(20).build().unwrap();
    let read = Load::begin(&pool, "read", "SELECT pg_sleep(0.02)", 1, 5 * MILLISECOND);
    let reports = Load::begin(&pool, "report", "SELECT pg_sleep(0.2)", 3, MILLISECOND);
    reports.more(270).await;
    let more = Load::begin(&pool, "report", "SELECT pg_sleep(0.2)", 14, MILLISECOND);
    // At 85 a second: nine windows.
    more.more(1_260).await;
    assert_eq!(pool.status().max_size, 20);
    assert!(lines(&seen).is_empty(), "{:?}", lines(&seen));
    assert!(status(&pool).inflation.is_some_and(|inflation| inflation < 1.5), "{:?}", status(&pool));
    drop((read, reports, more));
}

#[tokio::test]
async fn settings_out_of_range_are_refused_by_name() {
    let build = |change: fn(failfast::PoolBuilder) -> failfast::PoolBuilder| {
        let config = "host=localhost user=app".parse().unwrap();
        change(Pool::builder(config).max_size(5).adaptive(Adaptive::Act)).build().map(drop)
    };
    let error = |change| build(change).unwrap_err().to_string();
    assert_eq!(error(|builder| builder.adaptive_start(0)), "adaptive.start = 0: must be 1 to 5");
    assert_eq!(error(|builder| builder.adaptive_start(6)), "adaptive.start = 6: must be 1 to 5");
    assert_eq!(error(|builder| builder.min_idle(3).adaptive_start(2)), "adaptive.start = 2: must be 3 to 5");
    assert_eq!(
        error(|builder| builder.adaptive(Adaptive::Advise).adaptive_start(2)),
        "adaptive.start = 2: needs adaptive.mode = act"
    );
    assert!(build(|builder| builder.min_idle(2).adaptive_start(2)).is_ok());
}
