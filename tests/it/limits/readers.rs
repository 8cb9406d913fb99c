//! Streams and their readers: in bursts, on other runtimes, and beside other statements on the same connection.

use std::mem;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use failfast::breaker::State;
use failfast::{BreakerConfig, Error, ErrorKind, Pool, PoolBuilder, RetryConfig, ShedReason};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use super::{LONG, MILLISECOND, shared};
use crate::support::eventually;
use crate::support::server::Server;

const NONE: [i32; 0] = [];
/// More than fits into all buffers.
const ROWS: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";

async fn one(name: &str) -> PoolBuilder {
    shared(name).await.max_size(1)
}

/// Returns how long the next caller waits.
async fn next(pool: &Pool) -> Duration {
    let begun = Instant::now();
    drop(pool.get().await.unwrap());
    begun.elapsed()
}

/// Returns when callers were refused because of unread streams, although the connection came back within their time.
async fn wrongly_refused(pool: &Pool, reader: impl Future<Output = ()>) -> Vec<Duration> {
    let begun = Instant::now();
    let reader = async {
        reader.await;
        begun.elapsed()
    };
    let newcomers = async {
        let mut refused = Vec::new();
        for _ in 0..250 {
            let came = begun.elapsed();
            let answer = timeout(5 * MILLISECOND, pool.get()).await;
            if matches!(answer, Ok(Err(Error::Shed { reason: ShedReason::Unread, .. }))) {
                refused.push(came);
            }
            sleep(5 * MILLISECOND).await;
        }
        refused
    };
    let (ended, refused) = future::join(reader, newcomers).await;
    refused.into_iter().filter(|came| *came < ended && *came + 900 * MILLISECOND > ended).collect()
}

#[tokio::test]
async fn a_late_reader_of_a_few_rows_refuses_no_caller() {
    let pool = one("readers_late").await.build().unwrap();
    next(&pool).await;
    let reader = async {
        let rows = pool.query_raw("SELECT i FROM generate_series(1, 10) i", NONE).await.unwrap();
        sleep(500 * MILLISECOND).await;
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap().len(), 10);
    };
    let wrong = wrongly_refused(&pool, reader).await;
    assert!(wrong.is_empty(), "{} from {:?}", wrong.len(), wrong.first());
}

#[tokio::test]
async fn a_reader_in_batches_refuses_no_caller() {
    let pool = one("readers_batches").await.build().unwrap();
    next(&pool).await;
    let reader = async {
        let mut rows = pin!(pool.query_raw("SELECT i FROM generate_series(1, 600) i", NONE).await.unwrap());
        for _ in 0..3 {
            for _ in 0..200 {
                rows.next().await.unwrap().unwrap();
            }
            sleep(300 * MILLISECOND).await;
        }
        assert!(rows.next().await.is_none());
    };
    let wrong = wrongly_refused(&pool, reader).await;
    assert!(wrong.is_empty(), "{} from {:?}", wrong.len(), wrong.first());
}

#[tokio::test]
async fn an_abandoned_wait_ends_soon_under_any_other_limits() {
    let pool = one("readers_waiting").await.acquire_timeout(LONG).query_timeout(300 * MILLISECOND).build().unwrap();
    let sql = "SELECT pg_sleep(CASE i WHEN 1 THEN 0 ELSE 60 END), repeat('x', 20000) FROM generate_series(1, 2) i";
    let mut rows = pool.query_raw(sql, NONE).await.unwrap();
    rows.next().await.unwrap().unwrap();
    assert!(rows.next().now_or_never().is_none());
    let took = next(&pool).await;
    assert!(took < 1_000 * MILLISECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_runtime_has_ended_is_ended_by_another_runtime() {
    let pool = one("readers_runtime").await.acquire_timeout(5_000 * MILLISECOND).build().unwrap();
    next(&pool).await;
    let other = pool.clone();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let call = async { other.call().deadline(500 * MILLISECOND).query_raw(ROWS, NONE).await.unwrap() };
        runtime.block_on(call)
    });
    let _rows = thread.join().unwrap();
    let took = timeout(3_000 * MILLISECOND, next(&pool)).await;
    assert!(took.is_ok());
}

/// A program that calls from threads without a runtime behaves like this.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_runtime_is_blocked_is_ended_by_another_runtime() {
    let pool = one("readers_still").await.acquire_timeout(5_000 * MILLISECOND).build().unwrap();
    next(&pool).await;
    let other = pool.clone();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let call = async { other.call().deadline(500 * MILLISECOND).query_raw(ROWS, NONE).await.unwrap() };
        (runtime.block_on(call), runtime)
    });
    let both = thread.join().unwrap();
    let took = timeout(3_000 * MILLISECOND, next(&pool)).await;
    thread::spawn(move || drop(both)).join().unwrap();
    assert!(took.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_the_end_of_the_runtime_that_it_waited_on() {
    let pool = one("readers_moved").await.build().unwrap();
    next(&pool).await;
    let other = pool.clone();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let call = async {
            let sql =
                "SELECT pg_sleep(CASE i WHEN 1 THEN 0 ELSE 0.5 END), repeat('x', 20000) FROM generate_series(1, 3) i";
            let mut rows = other.query_raw(sql, NONE).await.unwrap();
            rows.next().await.unwrap().unwrap();
            assert!(rows.next().now_or_never().is_none());
            rows
        };
        runtime.block_on(call)
    });
    let rows = thread.join().unwrap();
    let rest = tokio::spawn(rows.try_collect::<Vec<_>>()).await;
    assert_eq!(rest.expect("no panic").unwrap().len(), 2);
}

#[tokio::test]
async fn a_prompt_reader_is_not_idle_under_a_short_limit() {
    let pool = one("readers_prompt").await.stream_idle_timeout(MILLISECOND).build().unwrap();
    for _ in 0..4 {
        let sql = "SELECT pg_sleep(0.0103), repeat('x', 20000) FROM generate_series(1, 60)";
        let rows = pool.query_raw(sql, NONE).await.unwrap();
        assert_eq!(
            rows.try_collect::<Vec<_>>().await.map(|rows| rows.len()).map_err(|error| error.to_string()),
            Ok(60)
        );
    }
}

/// A reader has the whole limit from the moment at which it was woken.
#[tokio::test]
async fn a_pause_begins_when_a_row_is_there_to_read() {
    let pool = one("readers_since").await.acquire_timeout(LONG).stream_idle_timeout(800 * MILLISECOND).build().unwrap();
    let sql = "SELECT pg_sleep(CASE i WHEN 2 THEN 0.29 ELSE 0 END), repeat('x', 20000) FROM generate_series(1, 3) i";
    let mut rows = pin!(pool.query_raw(sql, NONE).await.unwrap());
    rows.next().await.unwrap().unwrap();
    let begun = Instant::now();
    assert!(rows.next().now_or_never().is_none());
    let came = begun + 290 * MILLISECOND;
    let pool = pool.clone();
    drop(pool.get().await.unwrap());
    let idle = came.elapsed();
    assert!(idle >= 790 * MILLISECOND, "{idle:?}");
}

#[tokio::test]
async fn a_statement_behind_an_unread_stream_does_not_count_against_the_server() {
    let pool = one("readers_behind").await.query_timeout(300 * MILLISECOND).build().unwrap();
    let client = pool.get().await.unwrap();
    let rows = client.query_raw(ROWS, NONE).await.unwrap();
    let error = client.query_one("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueryTimeout, "{error}");
    drop(rows);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

#[tokio::test]
async fn a_stream_behind_an_unread_stream_does_not_count_against_the_server() {
    let pool = one("readers_two").await.query_timeout(300 * MILLISECOND).build().unwrap();
    let client = pool.get().await.unwrap();
    let rows = client.query_raw(ROWS, NONE).await.unwrap();
    let error = client.query_raw("SELECT 1", NONE).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::QueryTimeout, "{error}");
    drop(rows);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

#[tokio::test]
async fn a_stream_on_a_closed_connection_delays_no_caller() {
    let pool = one("readers_closed").await.build().unwrap();
    let client = pool.get().await.unwrap();
    let mut rows = client.query_raw("SELECT repeat('x', 1000) FROM generate_series(1, 100000)", NONE).await.unwrap();
    for _ in 0..15 {
        rows.next().await.unwrap().unwrap();
        sleep(100 * MILLISECOND).await;
    }
    mem::forget(rows);
    assert!(matches!(pool.get().await.err(), Some(Error::Shed { reason: ShedReason::Unread, .. })));
    client.discard();
    // The connection has one second to end.
    sleep(1_500 * MILLISECOND).await;
    let held = pool.get().await.unwrap();
    let waits = async { pool.get().await.map(drop).map_err(|error| error.to_string()) };
    let gives_back = async {
        sleep(300 * MILLISECOND).await;
        drop(held);
    };
    let (served, ()) = future::join(waits, gives_back).await;
    assert_eq!(served, Ok(()));
}

#[tokio::test]
async fn a_stream_on_a_detached_connection_delays_no_caller() {
    let pool = one("readers_detached").await.build().unwrap();
    let client = pool.get().await.unwrap();
    let mut rows = client.query_raw("SELECT repeat('x', 1000) FROM generate_series(1, 100000)", NONE).await.unwrap();
    for _ in 0..15 {
        rows.next().await.unwrap().unwrap();
        sleep(100 * MILLISECOND).await;
    }
    mem::forget(rows);
    assert!(matches!(pool.get().await.err(), Some(Error::Shed { reason: ShedReason::Unread, .. })));
    let _detached = client.detach();
    sleep(300 * MILLISECOND).await;
    let held = pool.get().await.unwrap();
    let waits = async { pool.get().await.map(drop).map_err(|error| error.to_string()) };
    let gives_back = async {
        sleep(300 * MILLISECOND).await;
        drop(held);
    };
    let (served, ()) = future::join(waits, gives_back).await;
    assert_eq!(served, Ok(()));
}

#[tokio::test]
async fn a_stream_read_to_its_last_row_fails_no_transaction() {
    let pool = one("readers_last").await.stream_idle_timeout(200 * MILLISECOND).build().unwrap();
    let outcome = pool.transaction_once(async |tx| {
        let mut rows = pin!(tx.query_raw("SELECT i FROM generate_series(1, 3) i", NONE).await?);
        for _ in 0..3 {
            rows.next().await.unwrap()?;
        }
        sleep(500 * MILLISECOND).await;
        assert!(rows.next().await.is_none_or(|row| row.is_ok()), "an error came after the last row");
        Ok::<_, Error>(())
    });
    outcome.await.unwrap();
}

/// Streams behaved like this before the pool watched them.
#[tokio::test]
async fn a_stream_read_to_its_last_row_may_be_dropped_before_its_end() {
    let pool = one("readers_drop").await.build().unwrap();
    let outcome = pool.transaction_once(async |tx| {
        let mut rows = tx.query_raw("SELECT i FROM generate_series(1, 3) i", NONE).await?;
        for _ in 0..3 {
            rows.next().await.unwrap()?;
        }
        drop(rows);
        Ok::<_, Error>(())
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn rows_of_another_statement_do_not_count_as_unread() {
    let pool = one("readers_other").await.build().unwrap();
    let client = pool.get().await.unwrap();
    let mut first = pin!(client.query_raw("SELECT i FROM generate_series(1, 12) i", NONE).await.unwrap());
    first.next().await.unwrap().unwrap();
    let second = client.query_raw("SELECT i FROM generate_series(1, 300) i", NONE).await.unwrap();
    let reader = async {
        // The reader is within every limit: half a second.
        while first.try_next().await.unwrap().is_some() {
            sleep(50 * MILLISECOND).await;
        }
        drop(second);
    };
    let newcomers = async {
        sleep(300 * MILLISECOND).await;
        timeout(100 * MILLISECOND, pool.get()).await.ok().map(|got| got.map(drop).map_err(|error| error.to_string()))
    };
    let ((), newcomer) = future::join(reader, newcomers).await;
    assert_eq!(newcomer, None, "the newcomer did not wait");
}

#[tokio::test]
async fn a_reader_gets_the_servers_own_error() {
    let pool = one("readers_error").await.build().unwrap();
    let sql = "SELECT 1 / (50000 - i), repeat('x', 100) FROM generate_series(1, 100000) i";
    let mut rows = pin!(pool.query_raw(sql, NONE).await.unwrap());
    rows.next().await.unwrap().unwrap();
    sleep(200 * MILLISECOND).await;
    let error = loop {
        if let Err(error) = rows.next().await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Postgres, "{error}");
}

#[tokio::test]
async fn a_stream_of_a_killed_backend_ends_with_its_error() {
    let pool =
        one("readers_killed").await.acquire_timeout(LONG).stream_idle_timeout(1_000 * MILLISECOND).build().unwrap();
    let backend = pool.get().await.unwrap().process_id().unwrap();
    let mut rows = pin!(pool.query_raw(ROWS, NONE).await.unwrap());
    rows.next().await.unwrap().unwrap();
    Server::shared().await.execute(&format!("SELECT pg_terminate_backend({backend})")).await;
    let took = next(&pool).await;
    println!("killed: next after {took:?}");
    let error = loop {
        if let Err(error) = rows.next().await.unwrap() {
            break error;
        }
    };
    println!("killed: {error}");
    assert!(matches!(error.kind(), ErrorKind::Postgres | ErrorKind::StreamIdle), "{error}");
}

#[tokio::test]
async fn a_probe_that_is_an_unread_stream_frees_its_permit() {
    let breaker = BreakerConfig::default().reset_timeout(200 * MILLISECOND).reset_timeout_jitter(0);
    let builder = shared("readers_probe").await.max_size(2).breaker(breaker).retry(RetryConfig::off());
    let pool = builder.stream_idle_timeout(400 * MILLISECOND).build().unwrap();
    while pool.breaker().state() == State::Closed {
        let _ = pool.call().timeout(50 * MILLISECOND).query("SELECT pg_sleep(60)", &[]).await;
    }
    eventually("the circuit is half-open", LONG, async || pool.breaker().state() == State::HalfOpen).await;
    let rows = pool.query_raw(ROWS, NONE).await.unwrap();
    assert!(pool.get().await.is_err(), "the breaker let a second probe through");
    sleep(600 * MILLISECOND).await;
    pool.query_one("SELECT 1", &[]).await.unwrap();
    eventually("closed", LONG, async || pool.breaker().state() == State::Closed).await;
    drop(rows);
}

#[tokio::test]
async fn unread_streams_on_half_of_the_connections_refuse_no_caller() {
    let pool = shared("readers_half").await.max_size(2).build().unwrap();
    let _rows = pool.query_raw(ROWS, NONE).await.unwrap();
    sleep(500 * MILLISECOND).await;
    for _ in 0..10 {
        let held = pool.get().await.unwrap();
        let (served, ()) = future::join(pool.get(), async {
            sleep(30 * MILLISECOND).await;
            drop(held)
        })
        .await;
        drop(served.unwrap());
    }
}

/// A race between everything that can end a stream: the watcher, a reader, and a caller's own timeout of the same
/// length.
#[tokio::test(flavor = "multi_thread")]
async fn any_end_of_a_stream_keeps_the_connection() {
    let pool = shared("readers_race").await.max_size(4).acquire_timeout(LONG).build().unwrap();
    pool.warm_up(4, LONG).await.unwrap();
    let one = async |pool: Pool| {
        for i in 0..40 {
            let Ok(client) = pool.call().deadline(40 * MILLISECOND).get().await else { continue };
            let Ok(mut rows) = client.query_raw(ROWS, NONE).await else { continue };
            let _ = rows.next().await;
            let read = async {
                loop {
                    sleep(4 * MILLISECOND).await;
                    match rows.next().await {
                        Some(Ok(_)) => {}
                        other => break other.is_some(),
                    }
                }
            };
            let _ = timeout(Duration::from_micros(39_000 + 50 * i), read).await;
            drop(rows);
            drop(client);
        }
    };
    let all = (0..4).map(|_| {
        let pool = pool.clone();
        tokio::spawn(one(pool))
    });
    for task in future::join_all(all).await {
        task.unwrap();
    }
    let snapshot = pool.status();
    println!("race: {snapshot:?}");
    eventually("all connections are idle", LONG, async || pool.status().idle == 4).await;
    let opened = Server::shared()
        .await
        .scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%readers_race%'")
        .await;
    println!("race: opened {opened}");
}

#[tokio::test]
async fn an_error_after_the_last_row_is_kept_for_the_reader() {
    let pool = one("readers_late_error").await.build().unwrap();
    let mut rows = pin!(pool.query_raw("SELECT 1 / (3 - i) FROM generate_series(1, 5) i", NONE).await.unwrap());
    rows.next().await.unwrap().unwrap();
    rows.next().await.unwrap().unwrap();
    sleep(300 * MILLISECOND).await;
    assert_eq!(pool.status().idle, 1, "the connection did not come back");
    let error = rows.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Postgres, "{error}");
    assert!(rows.next().await.is_none());
}

#[tokio::test]
async fn rows_affected_are_known_after_an_end_that_came_unpolled() {
    let pool = one("readers_affected").await.build().unwrap();
    let mut rows = pin!(pool.query_raw("SELECT i FROM generate_series(1, 3) i", NONE).await.unwrap());
    for _ in 0..3 {
        rows.next().await.unwrap().unwrap();
    }
    next(&pool).await;
    assert!(rows.next().await.is_none());
    assert_eq!(rows.rows_affected(), Some(3));
}

#[tokio::test]
async fn a_deadline_that_passes_unread_does_not_count_against_the_server() {
    let pool = one("readers_blame").await.query_timeout(200 * MILLISECOND).acquire_timeout(LONG).build().unwrap();
    next(&pool).await;
    let call = pool.call().timeout(200 * MILLISECOND).deadline(600 * MILLISECOND);
    let mut rows = call.query_raw(ROWS, NONE).await.unwrap();
    rows.next().await.unwrap().unwrap();
    next(&pool).await;
    assert_eq!(rows.next().await.unwrap().unwrap_err().kind(), ErrorKind::QueryTimeout);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

/// Until the burst, the server alone limited the reader's pace.
#[tokio::test]
async fn a_reader_that_kept_up_until_a_burst_refuses_no_caller() {
    let pool = one("readers_burst").await.build().unwrap();
    next(&pool).await;
    let reader = async {
        let sql = "SELECT pg_sleep(CASE WHEN i <= 20 THEN 0.1 ELSE 0 END), repeat('x', CASE WHEN i <= 20 THEN 20000 ELSE 9 END)
            FROM generate_series(1, 400) i";
        let mut rows = pin!(pool.query_raw(sql, NONE).await.unwrap());
        for _ in 0..20 {
            rows.next().await.unwrap().unwrap();
            sleep(90 * MILLISECOND).await;
        }
        sleep(400 * MILLISECOND).await;
        while rows.try_next().await.unwrap().is_some() {}
    };
    let wrong = wrongly_refused(&pool, reader).await;
    assert!(wrong.is_empty(), "{} from {:?}", wrong.len(), wrong.first());
}
