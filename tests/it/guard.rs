//! Several calls on one lease, of which one does not end.

use std::io::Cursor;
use std::pin::pin;
use std::time::{Duration, Instant};

use failfast::{BusyReason, Effect, Error, Pool};
use futures_util::TryStreamExt;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::pool::{LONG, shared};
use crate::support::{
    eventually,
    proxy::{Cut, Proxy, Way},
    server::Server,
};

const SOON: Duration = Duration::from_millis(300);

async fn one(client: &failfast::Client) -> Result<i32, Error> {
    Ok(client.query_one("SELECT 1", &[]).await?.get(0))
}

#[tokio::test]
async fn a_call_after_one_that_cannot_be_stopped_is_busy() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("busy").max_size(1).build().unwrap();
    let client = pool.call().timeout(SOON).get().await.unwrap();
    let pid = client.process_id();
    proxy.stall();
    let late = client.batch_execute("SELECT 1").await;
    assert!(matches!(late, Err(Error::QueryTimeout { effect: Effect::Unknown, .. })), "{late:?}");
    let busy = one(&client).await;
    match &busy {
        Err(Error::Busy { waited, process_id, .. }) => assert!(*waited >= SOON && *process_id == pid, "{busy:?}"),
        _ => panic!("{busy:?}"),
    }
    proxy.resume();
    eventually("the connection serves again", LONG, async || one(&client).await.is_ok()).await;
}

#[tokio::test]
async fn a_dropped_call_does_not_stop_another() {
    let pool = shared("joined").await.max_size(1).build().unwrap();
    let client = pool.get().await.unwrap();
    assert_eq!(one(&client).await.unwrap(), 1);
    let slow = client.simple_query("SELECT 7 FROM pg_sleep(0.5)");
    let (slow, waiting) = tokio::join!(slow, timeout(Duration::from_millis(100), one(&client)));
    assert!(waiting.is_err(), "the second call did not wait for the first");
    assert!(slow.is_ok(), "{slow:?}");
    assert_eq!(one(&client).await.unwrap(), 1);

    // The pool does not cancel the dropped first call, because the second one may already be running.
    let slow = timeout(Duration::from_millis(100), client.batch_execute("SELECT pg_sleep(0.5)"));
    let (slow, waiting) = tokio::join!(slow, one(&client));
    assert!(slow.is_err());
    assert_eq!(waiting.unwrap(), 1);
    assert_eq!(one(&client).await.unwrap(), 1);
}

/// The driver gives up after two rows, but the server would go on.
#[tokio::test]
async fn too_many_rows_do_not_delay_the_next_call() {
    let pool = shared("rows").await.max_size(1).build().unwrap();
    let client = pool.get().await.unwrap();
    let many = client.query_one("SELECT generate_series(1, 2000000000)", &[]).await;
    assert!(matches!(many, Err(Error::Postgres { .. })), "{many:?}");
    let asked = Instant::now();
    assert_eq!(one(&client).await.unwrap(), 1);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_dropped_begin_leaves_no_transaction_open() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("begin").max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE given_up (n int)").await.unwrap();
    let client = pool.get().await.unwrap();
    proxy.delay(Way::ToClient, Duration::from_millis(10));
    assert!(timeout(Duration::from_millis(3), client.batch_execute("BEGIN")).await.is_err());
    client.batch_execute("INSERT INTO given_up VALUES (1)").await.unwrap();
    drop(client);
    pool.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(server.scalar("SELECT count(*) FROM given_up").await, "1");
}

/// A caller who begins a transaction by hand may commit it by hand, even after a failure.
#[tokio::test]
async fn a_transaction_by_hand_may_be_committed_after_a_failure() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("by_hand").max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE hand (n int)").await.unwrap();
    let client = pool.call().timeout(Duration::from_secs(2)).get().await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    // No cancel reaches the server, so the statement succeeds once it gets the lock.
    proxy.arm(Cut::at_cancel().times(100));
    let blocker = server.admin().await;
    blocker.batch_execute("SELECT pg_advisory_lock(815)").await.unwrap();
    let late = client.batch_execute("INSERT INTO hand SELECT 1 FROM pg_advisory_xact_lock(815)").await;
    assert!(matches!(late, Err(Error::QueryTimeout { effect: Effect::Unknown, .. })), "{late:?}");
    blocker.batch_execute("SELECT pg_advisory_unlock(815)").await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(server.scalar("SELECT count(*) FROM hand").await, "1");

    client.batch_execute("BEGIN; INSERT INTO hand VALUES (2)").await.unwrap();
    proxy.arm(Cut::at_text("COMMIT").answer_lost());
    let lost = client.batch_execute("COMMIT").await;
    assert!(matches!(lost, Err(Error::CommitUnknown { .. })), "{lost:?}");
    assert_eq!(server.scalar("SELECT count(*) FROM hand").await, "2");
}

#[tokio::test]
async fn rows_are_copied_in_and_out() {
    let pool = shared("copies").await.max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE copies (n int)").await.unwrap();
    let client = pool.get().await.unwrap();
    let mut sink = client.copy_in("COPY copies FROM STDIN").await.unwrap();
    for n in 0..10_000 {
        sink.send(Cursor::new(format!("{n}\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 10_000);
    let again = sink.finish().await.unwrap_err();
    assert!(matches!(again, Error::Busy { reason: BusyReason::CopyEnded, .. }), "{again:?}");
    assert!(again.to_string().contains("the COPY has ended") && again.to_string().contains("copy_in"), "{again}");
    drop(sink);
    let copied: Vec<_> = client.copy_out("COPY copies TO STDOUT").await.unwrap().try_collect().await.unwrap();
    assert_eq!(copied.concat().split(|byte| *byte == b'\n').count(), 10_001);
    assert_eq!(one(&client).await.unwrap(), 1);

    let mut sink = client.copy_in("COPY copies FROM STDIN").await.unwrap();
    sink.send(&b"7\n"[..]).await.unwrap();
    drop(sink);
    assert_eq!(client.query_one("SELECT count(*) FROM copies", &[]).await.unwrap().get::<_, i64>(0), 10_000);
    let mut some = pin!(client.copy_out("COPY copies TO STDOUT").await.unwrap());
    assert!(some.try_next().await.unwrap().is_some());
}

#[tokio::test]
async fn copies_end_in_time() {
    let pool = shared("slow_copies").await.max_size(1).build().unwrap();
    let tables = "CREATE TABLE slow_copies (n int);
        CREATE FUNCTION slow_copies() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
        CREATE TRIGGER slow BEFORE INSERT ON slow_copies FOR EACH ROW EXECUTE FUNCTION slow_copies()";
    pool.batch_execute(tables).await.unwrap();
    let client = pool.call().timeout(SOON).get().await.unwrap();
    let mut sink = client.copy_in("COPY slow_copies FROM STDIN").await.unwrap();
    sink.send(&b"1\n"[..]).await.unwrap();
    let late = sink.finish().await;
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    drop(sink);
    eventually("the copy has stopped", LONG, async || one(&client).await.is_ok()).await;

    let slow = "COPY (SELECT repeat('x', 100000) UNION ALL SELECT pg_sleep(60)::text) TO STDOUT";
    let mut data = client.copy_out(slow).await.unwrap();
    assert!(data.try_next().await.unwrap().is_some());
    let late = data.try_next().await;
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    drop(data);
    eventually("the copy has stopped", LONG, async || one(&client).await.is_ok()).await;

    let (holder, sleeping) =
        (Server::shared().await.admin().await, "application_name = 'slow_copies' AND state = 'active'");
    holder.batch_execute("BEGIN; LOCK TABLE slow_copies").await.unwrap();
    let late = client.copy_in::<_, &[u8]>("COPY slow_copies FROM STDIN").await;
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    drop(late);
    drop(client);
    let running = format!("SELECT count(*) FROM pg_stat_activity WHERE {sleeping}");
    eventually("the copy has stopped", LONG, async || Server::shared().await.scalar(&running).await == "0").await;
    eventually("the pool serves again", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
}

#[tokio::test]
async fn a_refused_copy_has_the_servers_error_and_the_pool_serves_on() {
    let pool = shared("refused_copy").await.max_size(1).build().unwrap();
    let view = "CREATE TABLE refused_copy (n int); CREATE VIEW refused_copies AS SELECT * FROM refused_copy";
    pool.batch_execute(view).await.unwrap();
    for (sql, state) in [
        ("COPY no_such_table FROM STDIN", SqlState::UNDEFINED_TABLE),
        ("COPY refused_copies FROM STDIN", SqlState::WRONG_OBJECT_TYPE),
        ("COPY nonsense", SqlState::SYNTAX_ERROR),
    ] {
        let client = pool.get().await.unwrap();
        let refused = async {
            let mut sink = client.copy_in(sql).await?;
            sink.send(&b"1\n"[..]).await?;
            sink.finish().await
        };
        let refused = refused.await.unwrap_err();
        assert_eq!((refused.sqlstate(), refused.effect()), (Some(&state), Effect::NotApplied), "{sql}: {refused}");
        // The driver loses track of the protocol, unless the server refuses the statement early. The pool then replaces
        // the connection.
        let next = one(&client).await;
        assert!(next.is_err() || matches!(next, Ok(1)), "{next:?}");
        assert!(next.is_ok() || state != SqlState::SYNTAX_ERROR, "{next:?}");
        drop(client);
        assert_eq!(pool.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    }
}
