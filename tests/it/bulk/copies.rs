//! `copy_in` and `copy_out` of the pool, which own their connection, and the copy as a sink.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};

use bytes::Bytes;
use failfast::{Effect, Error, ErrorKind, HolderState, Pool};
use futures_util::{SinkExt, Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::{count, polled, with_table};
use crate::pool::{LONG, shared};
use crate::support::eventually;
use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::server::Server;

const SOON: Duration = Duration::from_millis(300);

/// Behind a proxy that can stall and cut.
async fn proxied(name: &str) -> (Proxy, Pool) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name(name).max_size(1).build().unwrap();
    pool.batch_execute(&format!("CREATE TABLE {name} (line text)")).await.unwrap();
    (proxy, pool)
}

#[tokio::test]
async fn a_copy_owns_its_connection_and_gives_it_back_at_its_end() {
    let pool = with_table("owned_copies").await;
    let mut first = pool.copy_in("COPY owned_copies FROM STDIN").await.unwrap();
    assert_eq!(pool.status().in_use, 1);
    first.send(&b"1\tone\n"[..]).await.unwrap();
    assert_eq!((first.rows_affected(), first.finish().await.unwrap(), first.rows_affected()), (None, 1, Some(1)));
    // The copy is still there, and the connection serves another.
    let call = pool.call().deadline(LONG).name("second");
    let mut second = call.copy_in("COPY owned_copies FROM STDIN").await.unwrap();
    second.send(Bytes::from("2\ttwo\n")).await.unwrap();
    assert_eq!(second.finish().await.unwrap(), 1);
    assert!(matches!(second.finish().await, Err(Error::Busy { .. })));

    let mut data = pool.copy_out("COPY owned_copies TO STDOUT").await.unwrap();
    let lines: Vec<_> = data.by_ref().try_collect().await.unwrap();
    assert_eq!(lines.concat(), b"1\tone\n2\ttwo\n");
    assert_eq!(count(&pool, "owned_copies").await, 2);
    let mut dropped = pool.copy_in("COPY owned_copies FROM STDIN").await.unwrap();
    dropped.send(&b"3\tthree\n"[..]).await.unwrap();
    drop(dropped);
    drop(pool.copy_out("COPY owned_copies TO STDOUT").await.unwrap());
    assert_eq!(count(&pool, "owned_copies").await, 2);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

/// A copy that has ended is still there, and its connection serves another copy, which waits for its caller.
#[tokio::test]
async fn a_copy_that_has_ended_changes_nothing_of_the_next() {
    let pool = with_table("ended_copies").await;
    let sql = "COPY ended_copies FROM STDIN";
    let state = || pool.holders().first().map(|holder| holder.state);
    for (round, is_finished) in [true, false].into_iter().enumerate() {
        let mut first = pool.copy_in(sql).await.unwrap();
        first.send(Bytes::from(if is_finished { "1\tone\n" } else { "nonsense\n" })).await.unwrap();
        assert_eq!(first.finish().await.is_ok(), is_finished);
        let mut second = pool.copy_in(sql).await.unwrap();
        second.send(Bytes::from(format!("{}\ttwo\n", 10 + round))).await.unwrap();
        assert_eq!(state(), Some(HolderState::WaitingForCaller), "{is_finished}");
        assert!(matches!(first.send(Bytes::from("3\tx\n")).await, Err(Error::Busy { .. })));
        assert_eq!(state(), Some(HolderState::WaitingForCaller), "{is_finished}: a step of the first");
        drop(first);
        assert_eq!(state(), Some(HolderState::WaitingForCaller), "{is_finished}: the end of the first");
        assert_eq!(second.finish().await.unwrap(), 1);
    }
    assert_eq!(count(&pool, "ended_copies").await, 3);
}

#[tokio::test]
async fn a_stream_is_forwarded_to_a_copy() {
    let pool = with_table("forwarded").await;
    let lines = (0..1_000).map(|n| Ok(Bytes::from(format!("{n}\tname {n}\n"))));
    let mut copy = pool.copy_in("COPY forwarded FROM STDIN").await.unwrap();
    stream::iter(lines).forward(&mut copy).await.unwrap();
    assert_eq!(copy.rows_affected(), Some(1_000));
    copy.close().await.unwrap();

    // From one table into another.
    let pool = shared("forwarded").await.max_size(2).build().unwrap();
    pool.batch_execute("CREATE TABLE forwarded_to (id int, name text)").await.unwrap();
    let data = pool.copy_out("COPY forwarded TO STDOUT").await.unwrap();
    let mut copy = pool.copy_in("COPY forwarded_to FROM STDIN").await.unwrap();
    data.forward(&mut copy).await.unwrap();
    assert_eq!((copy.rows_affected(), count(&pool, "forwarded_to").await), (Some(1_000), 1_000));

    // A stream that fails: the copy is not finished.
    let mut copy = pool.copy_in("COPY forwarded_to FROM STDIN").await.unwrap();
    let broken = [Ok(Bytes::from("1\tx\n")), Err(Error::Closed)];
    assert!(matches!(stream::iter(broken).forward(&mut copy).await, Err(Error::Closed)));
    drop(copy);
    assert_eq!(count(&pool, "forwarded_to").await, 1_000);
}

#[tokio::test]
async fn a_dropped_step_of_the_sink_does_not_abort_the_copy_and_a_dropped_send_does() {
    let pool = with_table("dropped_steps").await;
    let mut copy = pool.copy_in("COPY dropped_steps FROM STDIN").await.unwrap();
    copy.feed(Bytes::from("1\tone\n")).await.unwrap();
    while polled(1, SinkExt::flush(&mut copy)).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(copy.finish().await.unwrap(), 1);

    let mut copy = pool.copy_in("COPY dropped_steps FROM STDIN").await.unwrap();
    while polled(1, copy.send(Bytes::from("2\ttwo\n"))).await.is_some() {}
    assert!(matches!(copy.finish().await, Err(Error::Busy { .. })));
    // The connection is already back.
    assert_eq!(count(&pool, "dropped_steps").await, 1);
}

/// The server takes no data.
#[tokio::test]
async fn each_step_of_a_sink_has_the_query_timeout() {
    for is_sink in [false, true] {
        let name = format!("stalled_{is_sink}");
        let (proxy, pool) = proxied(&name).await;
        let sql = format!("COPY {name} FROM STDIN");
        let mut copy = pool.call().timeout(SOON).copy_in(&sql).await.unwrap();
        proxy.stall_way(Way::ToServer);
        let begun = Instant::now();
        let piece = Bytes::from("x\n".repeat(100_000));
        let late = loop {
            let sent = if is_sink { copy.feed(piece.clone()).await } else { copy.send(piece.clone()).await };
            if let Err(error) = sent {
                break error;
            }
        };
        assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
        assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
        assert!(matches!(copy.feed(piece).await, Err(Error::Busy { .. })));
        proxy.resume();
        eventually("the pool serves again", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
        assert_eq!(count(&pool, &name).await, 0);
    }
}

#[tokio::test]
async fn the_deadline_ends_a_copy_that_nobody_polls_and_one_that_waits() {
    let (proxy, pool) = proxied("copy_deadline").await;
    let sql = "COPY copy_deadline FROM STDIN";
    let mut copy = pool.call().deadline(SOON).copy_in(sql).await.unwrap();
    copy.send(&b"x\n"[..]).await.unwrap();
    eventually("the connection is back", LONG, async || pool.status().idle == 1).await;
    assert_eq!(count(&pool, "copy_deadline").await, 0);
    assert_eq!(copy.finish().await.unwrap_err().kind(), ErrorKind::QueryTimeout);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0, "the caller was slow, not the server");

    let mut copy = pool.call().deadline(SOON).copy_in(sql).await.unwrap();
    proxy.stall_way(Way::ToServer);
    let piece = Bytes::from("x\n".repeat(100_000));
    let waiting = async {
        loop {
            if let Err(error) = copy.feed(piece.clone()).await {
                break error;
            }
        }
    };
    let late = timeout(LONG, waiting).await.expect("nobody woke the step that waits");
    assert_eq!(late.kind(), ErrorKind::QueryTimeout);
    drop(copy);
    proxy.resume();
    eventually("the pool serves again", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
}

/// A step that polls the copy while the watcher aborts it. The copy may be committed, so the step must not say that
/// nothing of it was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_waits_until_the_watcher_has_aborted_the_copy() {
    let (is_aborting, mut aborting) = unbounded_channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let builder = shared("copy_ending").await.max_size(2).is_failure(move |error| {
        if error.kind() == ErrorKind::QueryTimeout {
            is_aborting.send(()).unwrap();
            let _ = may_go_on.lock().unwrap().recv();
        }
        None
    });
    let pool = builder.build().unwrap();
    pool.batch_execute("CREATE TABLE copy_ending (id int PRIMARY KEY)").await.unwrap();
    let holder = pool.get().await.unwrap();
    holder.batch_execute("BEGIN; INSERT INTO copy_ending VALUES (1)").await.unwrap();
    let call = pool.call().deadline(Duration::from_secs(2));
    let mut copy = call.copy_in("COPY copy_ending FROM STDIN").await.unwrap();
    copy.send(Bytes::from("1\n")).await.unwrap();
    assert!(polled(1, copy.close()).await.is_none(), "the answer was there at once");
    timeout(LONG, aborting.recv()).await.expect("the watcher aborts the copy");
    let polled = polled(1, copy.close()).await;
    assert!(polled.is_none(), "{polled:?}");
    copy.start_send_unpin(Bytes::from("2\n")).unwrap();
    go_on.send(()).unwrap();
    let late = timeout(LONG, copy.close()).await.expect("nobody woke the step that waits").unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::QueryTimeout, Effect::Unknown), "{late}");
    assert!(matches!(copy.close().await, Err(Error::Busy { .. })));
    drop(holder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hook_that_panics_at_the_deadline_keeps_no_step_waiting() {
    let builder = shared("copy_panics").await.max_size(2).is_failure(|_| panic!("a hook of the owner"));
    let pool = builder.build().unwrap();
    pool.batch_execute("CREATE TABLE copy_panics (id int PRIMARY KEY)").await.unwrap();
    let holder = pool.get().await.unwrap();
    holder.batch_execute("BEGIN; INSERT INTO copy_panics VALUES (1)").await.unwrap();
    let mut copy = pool.call().deadline(2 * SOON).copy_in("COPY copy_panics FROM STDIN").await.unwrap();
    copy.send(Bytes::from("1\n")).await.unwrap();
    let late = timeout(LONG, copy.close()).await.expect("the step ends").unwrap_err();
    assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
    drop(holder);
}

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Its own timer does not go off, because its runtime is not driven.
#[tokio::test]
async fn the_deadline_wakes_a_step_whose_runtime_stands_still() {
    let (proxy, pool) = proxied("copy_woken").await;
    let mut copy = pool.call().deadline(2 * SOON).copy_in("COPY copy_woken FROM STDIN").await.unwrap();
    proxy.stall_way(Way::ToServer);
    let piece = Bytes::from("x\n".repeat(100_000));
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    loop {
        woken.0.store(false, SeqCst);
        let inside = idle.enter();
        let is_waiting = copy.poll_ready_unpin(&mut Context::from_waker(&waker)).is_pending();
        drop(inside);
        if !is_waiting {
            copy.start_send_unpin(piece.clone()).unwrap();
        }
        tokio::task::yield_now().await;
        // The last of the pieces that the driver takes wakes it once.
        if is_waiting
            && timeout(SOON / 10, async {
                while !woken.0.load(SeqCst) {
                    tokio::task::yield_now().await
                }
            })
            .await
            .is_err()
        {
            break;
        }
    }
    eventually("the step is woken", LONG, async || woken.0.load(SeqCst)).await;
    assert_eq!(copy.finish().await.unwrap_err().kind(), ErrorKind::QueryTimeout);
    idle.shutdown_background();
}

#[tokio::test]
async fn a_reader_that_pauses_for_too_long_gives_the_connection_back() {
    let pool = shared("copy_idle").await.max_size(1).stream_idle_timeout(SOON).build().unwrap();
    let rows = "SELECT repeat('x', 9000) FROM generate_series(1, 100000)";
    let mut data = pool.copy_out(&format!("COPY ({rows}) TO STDOUT")).await.unwrap();
    data.next().await.unwrap().unwrap();
    assert_eq!(pool.call().deadline(LONG).query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    assert_eq!(data.next().await.unwrap().unwrap_err().kind(), ErrorKind::StreamIdle);
    // A reader that is slow but steady reads all.
    let mut data =
        pool.copy_out("COPY (SELECT repeat('x', 1000000) FROM generate_series(1, 20)) TO STDOUT").await.unwrap();
    let mut read = 0;
    while let Some(piece) = data.try_next().await.unwrap() {
        read += piece.len();
        sleep(SOON / 10).await;
    }
    assert_eq!(read, 20 * 1_000_001);
}

/// What the next caller gets: the error of its own statement, then answers of its own.
async fn answers_are_in_order(pool: &Pool, table: &str, before: &str) {
    for round in 0..3 {
        let twice = format!("INSERT INTO {table} VALUES ({}), ({0})", 1_000 + round);
        let error = pool.batch_execute(&twice).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(&SqlState::UNIQUE_VIOLATION), "{before}: {error}");
        let row = pool.query_one("SELECT $1::int", &[&round]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), round, "{before}");
    }
}

#[tokio::test]
async fn a_statement_that_is_no_such_copy_leaves_no_stray_answer() {
    let pool = with_table("no_copy").await;
    for sql in [
        "INSERT INTO no_copy VALUES (1, 'one') ON CONFLICT DO NOTHING",
        "INSERT INTO no_copy VALUES (2, 'two') ON CONFLICT DO NOTHING RETURNING id",
        "SELECT id FROM no_copy",
        "COPY no_copy TO STDOUT",
        "",
    ] {
        let error = pool.copy_in::<Bytes>(sql).await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "unexpected message from server", "{sql}");
        assert_ne!(error.effect(), Effect::NotApplied, "{sql}: it may have been applied");
        answers_are_in_order(&pool, "no_copy", sql).await;
    }
    let client = pool.get().await.unwrap();
    let statement = client.prepare("INSERT INTO no_copy VALUES (3, 'three')").await.unwrap();
    client.copy_in::<_, Bytes>(&statement).await.map(drop).unwrap_err();
    drop(client);
    answers_are_in_order(&pool, "no_copy", "a prepared INSERT").await;
    assert_eq!(count(&pool, "no_copy").await, 3, "they were applied all the same");
    for sql in ["SELECT 1", "INSERT INTO no_copy VALUES (4, 'four')", "COPY no_copy FROM STDIN"] {
        pool.copy_out(sql).await.map(drop).unwrap_err();
        answers_are_in_order(&pool, "no_copy", sql).await;
    }
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

/// Dropped or late before it began: the driver does not know whether the server will ask for data.
#[tokio::test]
async fn a_copy_that_did_not_begin_leaves_no_stray_answer() {
    let pool = with_table("not_begun").await;
    for sql in ["COPY not_begun FROM STDIN", "COPY no_such_table FROM STDIN", "INSERT INTO not_begun VALUES (1, 'x')"] {
        let mut polls = 1;
        while polled(polls, pool.copy_in::<Bytes>(sql)).await.is_none() {
            answers_are_in_order(&pool, "not_begun", &format!("{sql} after {polls} polls")).await;
            pool.execute("TRUNCATE not_begun", &[]).await.unwrap();
            polls += 1;
        }
    }
    pool.execute("TRUNCATE not_begun", &[]).await.unwrap();
    let (server, holder) = (Server::shared().await, Server::shared().await.admin().await);
    holder.batch_execute("BEGIN; LOCK TABLE not_begun IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let late = pool.call().timeout(SOON).copy_in::<Bytes>("COPY not_begun FROM STDIN").await.map(drop).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::QueryTimeout, "{late}");
    // The server does not notice the end of a connection while it waits for a lock.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'not_begun' AND wait_event_type = 'Lock'";
    eventually("the copy is cancelled", LONG, async || server.scalar(waiting).await == "0").await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    answers_are_in_order(&pool, "not_begun", "late").await;
}

/// Reads a stream to its end. Returns how many items came, and the error that was the last.
async fn read_all<T>(stream: impl Stream<Item = Result<T, Error>>) -> (usize, Option<Error>) {
    let mut stream = pin!(stream);
    let mut read = 0;
    while let Some(item) = stream.next().await {
        match item {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(stream.next().await.is_none(), "the error is the last item");
                return (read, Some(error));
            }
        }
    }
    (read, None)
}

/// A copy of `query` from the server, in the text format or the binary one.
async fn copied_out(pool: &Pool, query: &str, is_binary: bool) -> (usize, Option<Error>) {
    if is_binary {
        let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        read_all(pool.copy_out_rows(&sql, &[Type::INT4]).await.unwrap()).await
    } else {
        read_all(pool.copy_out(&format!("COPY ({query}) TO STDOUT")).await.unwrap()).await
    }
}

/// The server sends all data before it fires AFTER triggers, checks constraints and commits.
#[tokio::test]
async fn a_copy_from_the_server_ends_when_the_server_has_finished() {
    let pool = with_table("copy_ends").await;
    let tables = "CREATE TABLE copy_child (id int REFERENCES copy_ends);
        CREATE TABLE copy_deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE copy_slow (id int);
        CREATE FUNCTION copy_sleeps() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
        CREATE TRIGGER sleeps AFTER DELETE ON copy_slow FOR EACH STATEMENT EXECUTE FUNCTION copy_sleeps();
        CREATE TABLE copy_ended (id int);
        CREATE FUNCTION copy_terminates() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END';
        CREATE TRIGGER terminates AFTER INSERT ON copy_ended FOR EACH STATEMENT EXECUTE FUNCTION copy_terminates()";
    pool.batch_execute(tables).await.unwrap();
    for is_binary in [false, true] {
        for (table, insert, state) in [
            ("copy_child", "INSERT INTO copy_child VALUES (99) RETURNING id", SqlState::FOREIGN_KEY_VIOLATION),
            ("copy_deferred", "INSERT INTO copy_deferred VALUES (7), (7) RETURNING id", SqlState::UNIQUE_VIOLATION),
        ] {
            let (read, error) = copied_out(&pool, insert, is_binary).await;
            let error = error.unwrap_or_else(|| panic!("{table} {is_binary}: {read} rows and no error"));
            assert_eq!((error.sqlstate(), error.effect()), (Some(&state), Effect::NotApplied), "{table}: {error}");
            assert!(read > 0, "{table} {is_binary}: the rows come before the error");
            assert_eq!(count(&pool, table).await, 0, "{table} {is_binary}");
        }
        // A server that takes its time is not cancelled.
        pool.batch_execute("INSERT INTO copy_slow SELECT generate_series(1, 3)").await.unwrap();
        let begun = Instant::now();
        let (read, error) = copied_out(&pool, "DELETE FROM copy_slow RETURNING id", is_binary).await;
        assert!(error.is_none(), "{is_binary}: {error:?}");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{is_binary}: the trigger was awaited");
        assert_eq!((read, count(&pool, "copy_slow").await), (3, 0), "{is_binary}");
        // Nothing failed until here.
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
    for is_binary in [false, true] {
        let (_, error) = copied_out(&pool, "INSERT INTO copy_ended VALUES (1) RETURNING id", is_binary).await;
        error.unwrap_or_else(|| panic!("{is_binary}: the session has ended before the commit"));
        eventually("the pool serves again", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
        assert_eq!(count(&pool, "copy_ended").await, 0, "{is_binary}");
    }
}

#[tokio::test]
async fn a_copy_that_was_cut_before_it_began_runs_again_and_never_later() {
    let (proxy, pool) = proxied("copy_again").await;
    let sql = "COPY copy_again FROM STDIN";
    proxy.arm(Cut::at_text("COPY"));
    let mut copy = pool.copy_in(sql).await.unwrap();
    assert_eq!((proxy.fired(), proxy.accepted()), (1, 2));
    copy.send(&b"x\n"[..]).await.unwrap();
    proxy.arm(Cut::at_message(b'c'));
    let lost = copy.finish().await.unwrap_err();
    assert_eq!((lost.effect(), proxy.fired(), proxy.accepted()), (Effect::Unknown, 2, 2), "{lost}");
    assert!(lost.to_string().contains("connection lost"), "{lost}");
    eventually("the pool serves again", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
    assert_eq!(count(&pool, "copy_again").await, 0);
}

#[tokio::test]
async fn a_refused_copy_of_the_pool_has_the_servers_error() {
    let pool = with_table("refused_pool_copy").await;
    pool.batch_execute("CREATE VIEW refused_pool_view AS SELECT * FROM refused_pool_copy").await.unwrap();
    for (sql, state) in [
        ("COPY no_such_table FROM STDIN", SqlState::UNDEFINED_TABLE),
        ("COPY refused_pool_view FROM STDIN", SqlState::WRONG_OBJECT_TYPE),
        ("COPY nonsense", SqlState::SYNTAX_ERROR),
    ] {
        let refused = async {
            let mut copy = pool.copy_in(sql).await?;
            copy.send(&b"1\n"[..]).await?;
            copy.finish().await
        };
        let refused = refused.await.unwrap_err();
        assert_eq!((refused.sqlstate(), refused.effect()), (Some(&state), Effect::NotApplied), "{sql}: {refused}");
        let refused = pool.copy_out(&sql.replace("FROM STDIN", "TO STDOUT")).await.map(|_| ());
        assert_eq!(refused.unwrap_err().sqlstate(), Some(&state), "{sql}");
        assert_eq!(count(&pool, "refused_pool_copy").await, 0);
    }
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}
