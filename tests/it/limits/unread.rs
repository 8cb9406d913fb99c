//! Streams whose readers pause, stop, or never come. Every limit holds even if no task polls, and the pool keeps the
//! connection.

use std::mem;
use std::pin::pin;
use std::time::Instant;

use failfast::{Error, ErrorKind, Pool, PoolBuilder, RowStream, ShedReason};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future};
use tokio::time::{sleep, timeout};

use super::{LONG, MILLISECOND, shared};
use crate::support::eventually;

const NONE: [i32; 0] = [];
/// More than fits into all buffers.
const ROWS: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";

async fn one(name: &str) -> PoolBuilder {
    shared(name).await.max_size(1).acquire_timeout(LONG)
}

/// Returns the backend that serves the next caller, and how long that took.
async fn next(pool: &Pool) -> (i32, std::time::Duration) {
    let begun = Instant::now();
    let client = pool.get().await.unwrap();
    (client.process_id().unwrap(), begun.elapsed())
}

/// Returns the error at the end of the stream, and asserts that nothing follows it.
async fn last_words(rows: RowStream<'_>) -> Error {
    let mut rows = pin!(rows);
    let error = rows.next().await.unwrap().unwrap_err();
    assert!(rows.next().await.is_none(), "the stream went on after its error");
    error
}

fn nothing_counted(pool: &Pool) {
    assert_eq!(pool.breaker().snapshot().counts.failures, 0, "the reader's pause counted against the server");
}

#[tokio::test]
async fn the_deadline_holds_although_no_task_polls() {
    let pool = one("unread_deadline").await.build().unwrap();
    let (backend, _) = next(&pool).await;
    let mut rows = pool.call().name("export").deadline(500 * MILLISECOND).query_raw(ROWS, NONE).await.unwrap();
    rows.next().await.unwrap().unwrap();
    let (after, took) = next(&pool).await;
    assert!(took > 350 * MILLISECOND && took < 1_000 * MILLISECOND, "{took:?}");
    assert_eq!(after, backend, "settled, not replaced");
    let error = last_words(rows).await;
    assert_eq!(error.kind(), ErrorKind::QueryTimeout, "{error}");
    nothing_counted(&pool);
}

#[tokio::test]
async fn a_forgotten_stream_gives_its_connection_back() {
    let pool = one("unread_forgotten").await.stream_idle_timeout(200 * MILLISECOND).build().unwrap();
    let (backend, _) = next(&pool).await;
    for by_deadline in [true, false] {
        let call = pool.call();
        let call = if by_deadline { call.deadline(300 * MILLISECOND) } else { call };
        mem::forget(call.query_raw(ROWS, NONE).await.unwrap());
        assert_eq!(next(&pool).await.0, backend);
    }
}

#[tokio::test]
async fn a_reader_that_leaves_while_the_server_works_delays_no_caller() {
    let builder = one("unread_waiting").await.query_timeout(300 * MILLISECOND);
    let pool = builder.stream_idle_timeout(800 * MILLISECOND).build().unwrap();
    let sql = "SELECT pg_sleep(CASE i WHEN 1 THEN 0 ELSE 60 END), repeat('x', 20000) FROM generate_series(1, 2) i";
    let mut rows = pool.query_raw(sql, NONE).await.unwrap();
    rows.next().await.unwrap().unwrap();
    assert!(rows.next().now_or_never().is_none());
    let (_, took) = next(&pool).await;
    assert!(took < 1_500 * MILLISECOND, "{took:?}");
    assert_eq!(last_words(rows).await.kind(), ErrorKind::QueryTimeout);
    assert_eq!(pool.breaker().snapshot().counts.failures, 1, "the silence of the server did not count");
}

#[tokio::test]
async fn a_pause_beyond_stream_idle_timeout_ends_the_stream() {
    let pool = one("unread_idle").await.stream_idle_timeout(400 * MILLISECOND).build().unwrap();
    let (backend, _) = next(&pool).await;
    let mut rows = pool.call().name("export").query_raw(ROWS, NONE).await.unwrap();
    rows.next().await.unwrap().unwrap();
    let (after, took) = next(&pool).await;
    assert!(took > 300 * MILLISECOND && took < 1_000 * MILLISECOND, "{took:?}");
    assert_eq!(after, backend, "settled, not replaced");
    let error = last_words(rows).await;
    assert!(matches!(error, Error::StreamIdle { operation: Some("export"), .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("stream_idle_timeout") && text.contains(&backend.to_string()), "{text}");
    nothing_counted(&pool);
}

/// A reader that waits for the server does not pause.
#[tokio::test]
async fn waits_for_the_server_and_short_pauses_do_not_end_a_stream() {
    let pool = one("unread_not").await.stream_idle_timeout(200 * MILLISECOND).build().unwrap();
    let slow = "SELECT pg_sleep(0.5), repeat('x', 20000) FROM generate_series(1, 3)";
    let rows = pin!(pool.query_raw(slow, NONE).await.unwrap());
    assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap().len(), 3);
    let many = "SELECT repeat('x', 20000) FROM generate_series(1, 10)";
    let mut rows = pin!(pool.query_raw(many, NONE).await.unwrap());
    let mut read = 0;
    while rows.try_next().await.unwrap().is_some() {
        read += 1;
        sleep(100 * MILLISECOND).await;
    }
    assert_eq!(read, 10);
}

#[tokio::test]
async fn the_next_statement_on_the_guard_of_an_unread_stream_runs() {
    let pool = one("unread_guard").await.stream_idle_timeout(200 * MILLISECOND).build().unwrap();
    let client = pool.get().await.unwrap();
    let backend = client.process_id();
    let mut rows = client.query_raw(ROWS, NONE).await.unwrap();
    rows.next().await.unwrap().unwrap();
    sleep(400 * MILLISECOND).await;
    // The stream has not been polled since.
    assert_eq!(client.query_one("SELECT 7", &[]).await.unwrap().get::<_, i32>(0), 7);
    assert_eq!(last_words(rows).await.kind(), ErrorKind::StreamIdle);
    drop(client);
    assert_eq!(Some(next(&pool).await.0), backend);
}

#[tokio::test]
async fn a_transaction_whose_stream_was_cut_is_not_committed() {
    let pool = one("unread_tx").await.stream_idle_timeout(200 * MILLISECOND).build().unwrap();
    let outcome = pool.transaction_once(async |tx| {
        let mut rows = tx.query_raw(ROWS, NONE).await?;
        rows.next().await.unwrap()?;
        sleep(400 * MILLISECOND).await;
        Ok::<_, Error>(())
    });
    assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::TransactionAborted);
    next(&pool).await;
}

#[tokio::test]
async fn pauses_of_copies_are_bounded() {
    let pool = one("unread_copy").await.stream_idle_timeout(300 * MILLISECOND).build().unwrap();
    pool.batch_execute("CREATE TABLE IF NOT EXISTS unread_copy (line text)").await.unwrap();
    let client = pool.get().await.unwrap();
    let mut out = client.copy_out(format!("COPY ({ROWS}) TO STDOUT").as_str()).await.unwrap();
    out.next().await.unwrap().unwrap();
    sleep(500 * MILLISECOND).await;
    assert_eq!(out.next().await.unwrap().unwrap_err().kind(), ErrorKind::StreamIdle);
    drop(out);
    drop(client);

    // The pool would refuse a call that had to wait, because the previous lease was longer than its deadline.
    eventually("the connection is settled", LONG, async || pool.status().idle == 1).await;
    let client = pool.call().deadline(400 * MILLISECOND).get().await.unwrap();
    let backend = client.process_id().unwrap();
    let mut copy = client.copy_in("COPY unread_copy FROM STDIN").await.unwrap();
    copy.send(&b"x\n"[..]).await.unwrap();
    // The table is free again, although the caller still holds the copy and the connection.
    let locked = async || {
        let (server, sql) = (crate::support::server::Server::shared().await, "SELECT count(*) FROM pg_locks l");
        server.scalar(&format!("{sql} WHERE l.pid = {backend} AND l.mode = 'RowExclusiveLock'")).await != "0"
    };
    assert!(locked().await);
    eventually("the copy is aborted", LONG, async || !locked().await).await;
    assert_eq!(copy.finish().await.unwrap_err().kind(), ErrorKind::QueryTimeout);
    drop(copy);
    drop(client);
    nothing_counted(&pool);
}

/// Ten downloads at two kilobytes a second.
#[tokio::test]
async fn slow_readers_on_all_connections_refuse_newcomers_at_once() {
    let builder = shared("unread_full").await.max_size(3).acquire_timeout(1_000 * MILLISECOND);
    let pool = builder.build().unwrap();
    let sql = "SELECT repeat('x', 100) FROM generate_series(1, 1000000)";
    let read = async || {
        let mut rows = pin!(pool.query_raw(sql, NONE).await.unwrap());
        while rows.try_next().await.unwrap().is_some() {
            sleep(50 * MILLISECOND).await;
        }
    };
    let readers = future::join3(read(), read(), read());
    let newcomers = async {
        let is_refused = async || {
            let begun = Instant::now();
            let refused = pool.get().await.err();
            let is_refused =
                matches!(&refused, Some(Error::Shed { reason: ShedReason::Unread, retry_after: Some(_), .. }));
            if is_refused {
                assert!(begun.elapsed() < 100 * MILLISECOND, "{:?}", begun.elapsed());
            }
            is_refused
        };
        eventually("newcomers are refused", LONG, is_refused).await;
        for _ in 0..20 {
            assert!(is_refused().await, "the pool queued a newcomer although nothing had changed");
            sleep(20 * MILLISECOND).await;
        }
    };
    future::select(pin!(readers), pin!(newcomers)).await;
    // Without the slow readers, the pool serves every caller.
    next(&pool).await;
    nothing_counted(&pool);
}

/// The progress of a stream whose reader keeps up does not show when the stream ends.
#[tokio::test]
async fn readers_that_keep_up_refuse_no_caller() {
    let builder = shared("unread_fast").await.max_size(2).acquire_timeout(800 * MILLISECOND);
    let pool = builder.build().unwrap();
    let sql = "SELECT pg_sleep(0.05), repeat('x', 20000) FROM generate_series(1, 30)";
    let read = async || {
        let rows = pin!(pool.query_raw(sql, NONE).await.unwrap());
        rows.try_collect::<Vec<_>>().await.unwrap().len()
    };
    let newcomers = async {
        let mut refused = 0;
        for _ in 0..40 {
            let answer = timeout(25 * MILLISECOND, pool.get()).await;
            refused += u32::from(matches!(answer, Ok(Err(Error::Shed { reason: ShedReason::Unread, .. }))));
        }
        refused
    };
    let (one, other, refused) = future::join3(read(), read(), newcomers).await;
    assert_eq!((one, other, refused), (30, 30, 0));
}
