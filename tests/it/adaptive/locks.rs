//! One hot row: more connections would only wait with the others, and fewer would starve everybody else.

use std::time::Duration;

use failfast::breaker::State;
use failfast::{Adaptive, AdviceReason, Operation, Pool};

use super::{Load, MILLISECOND, SECOND, STEPS, Seen, has, lines, pool, status};
use crate::support::eventually;
use crate::support::server::Server;

const READ: &str = "SELECT pg_sleep(0.03)";
const BOOK: &str = "UPDATE seat SET taken = taken + 1";
const BEGIN: &str = "BEGIN; UPDATE seat SET taken = 0";

/// A pool of 15 that knows what is usual, its readers, and what their calls usually take.
async fn calm(server: &Server, name: &'static str, adaptive: Adaptive) -> (Pool, Seen, Load, Duration) {
    server.execute("CREATE TABLE seat (taken int); INSERT INTO seat VALUES (0)").await;
    let (builder, seen) = pool(server.config(), name, adaptive);
    // The timeouts of statements are longer than the limit needs. Otherwise nothing succeeds for two seconds, and the
    // circuit opens first.
    let pool = builder.max_size(15).acquire_timeout(2 * SECOND).build().unwrap();
    let readers = Load::begin(&pool, "read", READ, 2, 5 * MILLISECOND);
    let booking = Load::begin(&pool, "book", BOOK, 1, 15 * MILLISECOND);
    booking.more(270).await;
    let usual = readers.p99(300).await;
    assert!(lines(&seen).is_empty(), "{:?}", lines(&seen));
    (pool, seen, readers, usual)
}

fn samplers(name: &str) -> String {
    format!("FROM pg_stat_activity WHERE application_name = '{name}' AND query LIKE 'SELECT pg_catalog.string_agg%'")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs processors of its own: ./dev adaptive runs it"]
async fn a_hot_row_keeps_the_size_and_limits_the_operation_that_waits() {
    let name = "adaptive-lock";
    let server = Server::own(&[]).await;
    let (pool, seen, readers, usual) = calm(&server, name, Adaptive::Act).await;
    let holder = server.admin().await;
    holder.batch_execute(BEGIN).await.unwrap();
    let booking = Load::begin(&pool, "book", BOOK, 30, MILLISECOND);
    eventually("it is limited", STEPS, async || !status(&pool).capped.is_empty()).await;
    eventually("it is said that it waits for locks", STEPS, async || has(&seen, "lock_bound", None)).await;
    let capped = status(&pool).capped;
    assert!(capped.len() == 1 && capped[0].operation == Operation::Named("book"), "{capped:?}");
    let advice = pool.status().advice().copied().expect("it stands in the status");
    assert!(advice.operation == Some(Operation::Named("book")) && advice.to == capped[0].most, "{advice:?}");
    // Those that waited when it began give up after 10 s.
    eventually("the first ones have left", STEPS, async || pool.status().in_use <= 2 + capped[0].most + 1).await;
    let p99 = readers.p99(300).await;
    assert!(p99 < 2 * usual, "{p99:?}, usually {usual:?}");
    assert!(booking.refused() > 0);
    assert_eq!(pool.status().breaker, State::Closed, "the server is well");
    assert_eq!((pool.status().max_size, status(&pool).limit), (15, 15), "{:?}", lines(&seen));
    assert!(!has(&seen, "limit_changed", Some(AdviceReason::Saturated)), "{:?}", lines(&seen));

    // The connection that asks dies: another one asks.
    let asks = async || server.scalar(&format!("SELECT string_agg(pid::text, ',') {}", samplers(name))).await;
    let first = asks().await;
    assert!(!first.is_empty());
    server.execute(&format!("SELECT pg_terminate_backend(pid) {}", samplers(name))).await;
    eventually("it is replaced", STEPS, async || {
        let now = asks().await;
        !now.is_empty() && now != first
    })
    .await;
    assert_eq!(status(&pool).limit, 15);

    // The lock is free again: so is the operation, and nobody asks any more.
    holder.batch_execute("ROLLBACK").await.unwrap();
    eventually("it is free again", STEPS, async || status(&pool).capped.is_empty()).await;
    eventually("that is said", STEPS, async || has(&seen, "lock_bound_ended", None)).await;
    drop((booking, readers));
    eventually("nobody asks", STEPS, async || asks().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_about_a_hot_row_limits_nobody_and_a_dropped_pool_stops_asking() {
    let name = "adaptive-lock-advice";
    let server = Server::own(&[]).await;
    let (pool, seen, readers, _) = calm(&server, name, Adaptive::Advise).await;
    let holder = server.admin().await;
    holder.batch_execute(BEGIN).await.unwrap();
    let booking = Load::begin(&pool, "book", BOOK, 12, MILLISECOND);
    eventually("it is said", STEPS, async || has(&seen, "lock_bound", None)).await;
    let advised =
        || [AdviceReason::SlowOperation, AdviceReason::LockBound].map(|why| has(&seen, "limit_advised", Some(why)));
    assert!(advised().contains(&true), "{:?}", lines(&seen));
    assert!(!has(&seen, "limit_changed", None) && booking.refused() == 0, "{:?}", lines(&seen));
    assert_eq!(pool.status().max_size, 15);
    drop((booking, readers, pool));
    let left = async || server.connection_count(name).await;
    eventually("no connection is left", STEPS, async || left().await == 0).await;
}
