//! A connection to a real server, seen from inside: what its wire has read, when it is at rest, and why it ended.

#[path = "../../examples/support/mod.rs"]
mod support;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use self::support::Throwaway;
use super::wire::{Tag, TransactionStatus, Wire};
use super::*;
use crate::breaker::{BreakerConfig, Export, PoolBreaker, State};
use crate::clock::now;
use crate::slots::{Connection as _, Dial as _};
use crate::telemetry::{Given, Meter, Tracer};

const LONG: Duration = Duration::from_secs(20);

/// A server for all tests that do it no harm.
pub(super) async fn shared_server() -> &'static Throwaway {
    static SHARED: OnceCell<Throwaway> = OnceCell::const_new();
    SHARED.get_or_init(async || Throwaway::start().await.unwrap()).await
}

async fn shared() -> Box<Conn> {
    connect(shared_server().await).await
}

async fn connect(server: &Throwaway) -> Box<Conn> {
    connect_with(server, BreakerConfig::default()).await
}

async fn connect_with(server: &Throwaway, breaker: BreakerConfig) -> Box<Conn> {
    dialer(server.config(), LONG, breaker, Arc::new(|_| ())).dial(|| {}).await.unwrap()
}

pub(super) fn dialer(
    config: tokio_postgres::Config,
    connect_timeout: Duration,
    breaker: BreakerConfig,
    receiver: connection_event::EventReceiver,
) -> Dialer {
    let recorder = Arc::new(OutcomeRecorder::new(PoolBreaker::new(breaker, None).unwrap(), None, receiver));
    let tracer = Tracer::new("tests", &config);
    let meter = Meter::new("tests".into(), 0, Given::default());
    let listeners = Listeners { recorder, registry: Arc::default(), tracer, meter };
    let handling = Handling::new(
        Hooks::default(),
        Reset::default(),
        16,
        None,
        (LONG, LONG),
        ReadingLimits::new(LONG, LONG, LONG),
        listeners,
    );
    Dialer::new(config, connect_timeout, Connector::none(), handling)
}

/// Returns whether the connection comes to rest by itself within 200 ms.
async fn comes_to_rest(conn: &Conn) -> bool {
    timeout(Duration::from_millis(200), conn.link.monitor.quiet()).await.unwrap_or(false)
}

/// Polls a future once, which must not complete it.
async fn begin<F: Future>(future: &mut std::pin::Pin<&mut F>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending(), "it should take a while");
        Poll::Ready(())
    })
    .await;
}

fn known(wire: &Wire) -> (usize, TransactionStatus, Tag, u64) {
    (wire.unanswered(), wire.status(), wire.last_tag(), wire.errors())
}

#[tokio::test]
async fn the_wire_knows_an_answer_when_the_caller_gets_it() {
    let conn = shared().await;
    let (client, wire) = (&conn.object, &conn.link.wire);
    assert_eq!(known(wire), (0, TransactionStatus::Idle, Tag::Other, 0));
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(pid, wire.process_id());
    let version: &str = conn.task.server_version().unwrap();
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");

    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(known(wire), (0, TransactionStatus::Open, Tag::Begin, 0));
    client.batch_execute("SAVEPOINT here").await.unwrap();
    assert_eq!(known(wire), (0, TransactionStatus::Open, Tag::Savepoint, 0));
    client.query_one("SELECT 1 / 0", &[]).await.unwrap_err();
    assert_eq!(wire.errors(), 1);
    client.batch_execute("ROLLBACK TO here; RELEASE here").await.unwrap();
    assert_eq!(known(wire), (0, TransactionStatus::Open, Tag::Release, 1));
    client.batch_execute("SELEC").await.unwrap_err();
    assert!(conn.link.monitor.quiet().await);
    assert_eq!(known(wire), (0, TransactionStatus::Failed, Tag::Release, 2));
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(known(wire), (0, TransactionStatus::Idle, Tag::Rollback, 2), "the driver says Ok");
}

#[tokio::test]
async fn changes_of_a_session_are_seen() {
    let conn = shared().await;
    let touches = async |sql: &str| {
        conn.link.wire.begin_session();
        conn.object.batch_execute(sql).await.unwrap();
        conn.link.wire.has_touched_session()
    };
    assert!(!touches("SELECT 1; BEGIN; ROLLBACK").await);
    assert!(touches("RESET work_mem").await, "the owner's hook may have set it");
    assert!(touches("SET work_mem = '8MB'").await);
    assert!(touches("LISTEN news").await);
    assert!(touches("CREATE TEMPORARY TABLE passing (n int)").await);
    assert!(touches("BEGIN; DECLARE it CURSOR WITH HOLD FOR SELECT 1; COMMIT").await);
    assert!(touches("SELECT set_config('work_mem', '9MB', false)").await);
    assert!(touches("CREATE TEMPORARY TABLE unnoticed AS SELECT 1").await, "its tag is SELECT");
    assert!(!touches("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'; SELECT set_config('a.b', 'c', true); COMMIT").await);
    let hidden = "CREATE SCHEMA seen;
        CREATE FUNCTION seen.hidden(n text, v text) RETURNS text LANGUAGE sql AS $$ SELECT set_config(n, v, false) $$";
    conn.object.batch_execute(hidden).await.unwrap();
    assert!(!touches("SELECT seen.hidden('work_mem', '7MB')").await, "a function does it by itself");
    assert!(touches("SELECT seen.hidden('TimeZone', 'Asia/Tokyo')").await, "the server reports some parameters");
}

#[tokio::test]
async fn an_idle_connection_is_at_rest_without_a_packet() {
    let conn = shared().await;
    let attempts = conn.link.wire.attempts();
    for _ in 0..1_000 {
        assert!(conn.link.monitor.quiet().await);
    }
    assert_eq!(conn.link.wire.attempts(), attempts);
}

#[tokio::test]
async fn an_abandoned_query_is_at_rest_when_answered() {
    let conn = shared().await;
    for n in 0..20 {
        conn.object.query_one("SELECT pg_sleep(0.03)", &[]).now_or_never();
        // The request is still in the driver's channel, and the wire has not seen it.
        assert!(conn.link.monitor.quiet().await);
        assert_eq!(conn.link.wire.unanswered(), 0);
        let (one, two) = futures_util::future::join(conn.link.monitor.quiet(), conn.link.monitor.quiet()).await;
        assert!(one && two, "{n}");
    }
    conn.object.batch_execute("SELECT pg_sleep(30)").now_or_never();
    assert!(!comes_to_rest(&conn).await);
    assert_eq!(conn.link.wire.unanswered(), 1);
}

#[tokio::test]
async fn unread_rows_keep_a_connection_from_rest() {
    let conn = shared().await;
    for count in [3, 100_000] {
        let query = format!("SELECT repeat('x', 100) FROM generate_series(1, {count})");
        let mut rows = Box::pin(conn.object.query_raw(&query, std::iter::empty::<i32>()).await.unwrap());
        rows.next().await.unwrap().unwrap();
        if count == 3 {
            assert!(conn.link.monitor.quiet().await, "the driver has read so few rows to their end");
        } else {
            assert!(!comes_to_rest(&conn).await);
        }
        drop(rows);
        assert!(conn.link.monitor.quiet().await);
        assert_eq!(conn.link.wire.unanswered(), 0);
    }
    // A later request behind unread rows: the wire may have seen every answer, but the driver has not.
    let rows = conn.object.query_raw("SELECT generate_series(1, 5000)", std::iter::empty::<i32>()).await.unwrap();
    let mut later = pin!(conn.object.simple_query("SELECT 1"));
    begin(&mut later).await;
    assert!(!comes_to_rest(&conn).await);
    drop(rows);
    later.await.unwrap();
    assert!(conn.link.monitor.quiet().await);
}

/// The wire may have seen the end of an answer before the driver, which waits until the caller takes the rows.
#[tokio::test]
async fn an_answer_that_the_driver_has_not_read_keeps_a_connection_from_rest() {
    let conn = shared().await;
    let noisy = "CREATE FUNCTION pg_temp.noisy(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', n; RETURN n; END'";
    conn.object.batch_execute(noisy).await.unwrap();
    // A notice after each row makes the driver pass them on one by one.
    let statement = conn.object.prepare("SELECT pg_temp.noisy(n) FROM generate_series(1, 10) n").await.unwrap();
    let mut wire_was_quiet = false;
    for tries in 1..100 {
        let mut rows = pin!(conn.object.query_raw(&statement, std::iter::empty::<i32>()));
        begin(&mut rows).await;
        tokio::task::yield_now().await;
        // Blocks the task, which then often reads the whole answer at once.
        std::thread::sleep(Duration::from_millis(tries));
        let rows = rows.await.unwrap();
        assert!(!comes_to_rest(&conn).await);
        wire_was_quiet = conn.link.wire.is_quiet();
        drop(rows);
        assert!(conn.link.monitor.quiet().await);
        if wire_was_quiet {
            break;
        }
    }
    assert!(wire_was_quiet, "the test needs a wire that is quiet before the driver is");
}

#[tokio::test]
async fn the_close_of_a_statement_is_no_request_but_delays_rest() {
    let conn = shared().await;
    for _ in 0..50 {
        drop(conn.object.prepare("SELECT 1").await.unwrap());
        assert_eq!(conn.link.wire.unanswered(), 0);
        assert!(conn.link.monitor.quiet().await);
    }
    let gone = conn.object.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap();
    assert_eq!(gone.get::<_, i64>(0), 1, "only the statement of this query is prepared");
}

const COPY_SETUP: &str = "CREATE TEMPORARY TABLE copied (n int PRIMARY KEY);
    CREATE TEMPORARY VIEW viewed AS SELECT 1 AS n;
    CREATE TEMPORARY TABLE guarded (n int);
    CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
    CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.refuse()";

#[tokio::test]
async fn a_copy_is_one_request_until_its_end() {
    let conn = shared().await;
    let wire = &conn.link.wire;
    conn.object.batch_execute(COPY_SETUP).await.unwrap();
    let mut sink = pin!(conn.object.copy_in::<_, &[u8]>("COPY copied FROM STDIN").await.unwrap());
    assert_eq!(wire.unanswered(), 1);
    sink.send(b"1\n").await.unwrap();
    assert!(!comes_to_rest(&conn).await);
    assert_eq!(wire.unanswered(), 1);
    sink.finish().await.unwrap();
    assert!(conn.link.monitor.quiet().await);
    assert_eq!(wire.unanswered(), 0);
    // The same holds if the caller does not wait for the server's answer, or for the end of the copy.
    conn.object.copy_in::<_, &[u8]>("COPY copied FROM STDIN").now_or_never();
    drop(conn.object.copy_in::<_, &[u8]>("COPY copied FROM STDIN").await.unwrap());
    conn.object.batch_execute("SELECT 1").await.unwrap();
    assert!(conn.link.monitor.quiet().await);
    assert_eq!((wire.unanswered(), conn.object.is_closed()), (0, false));
}

#[tokio::test]
async fn after_a_failed_copy_only_the_next_answer_brings_rest() {
    let conn = shared().await;
    let wire = &conn.link.wire;
    conn.object.batch_execute(COPY_SETUP).await.unwrap();
    // Kept to the end, because dropping it sends a Close, whose answer would bring rest.
    let copy = conn.object.prepare("COPY copied FROM STDIN").await.unwrap();
    for lines in ["1\n1\n", "x\n", "1\ny\n2\n"] {
        let mut sink = pin!(conn.object.copy_in::<_, &[u8]>(&copy).await.unwrap());
        sink.send(lines.as_bytes()).await.unwrap();
        sink.finish().await.unwrap_err();
        assert!(!comes_to_rest(&conn).await);
        assert_eq!(wire.unanswered(), 1);
        conn.object.check_connection().await.unwrap();
        assert_eq!(wire.unanswered(), 1, "the answer to a Sync does not show it");
        conn.object.batch_execute("SELECT 1").await.unwrap();
        assert!(conn.link.monitor.quiet().await);
        assert_eq!((wire.unanswered(), wire.status()), (0, TransactionStatus::Idle));
    }
}

/// Returns whether a pool of one connection gives it to the next caller after this lease.
async fn is_kept_after(lease: impl AsyncFnOnce(Client)) -> bool {
    let pool = crate::Pool::builder(shared_server().await.config()).max_size(1).acquire_timeout(LONG).build().unwrap();
    let client = pool.get().await.unwrap();
    let process_id = client.process_id();
    client.batch_execute("CREATE TEMPORARY TABLE copied (n int PRIMARY KEY)").await.unwrap();
    lease(client).await;
    pool.get().await.unwrap().process_id() == process_id
}

#[tokio::test]
async fn a_failed_copy_costs_no_connection() {
    let failed = async |client: Client| {
        let mut copy = client.copy_in("COPY copied FROM STDIN").await.unwrap();
        copy.send(&b"1\n1\n"[..]).await.unwrap();
        copy.finish().await.unwrap_err();
    };
    assert!(is_kept_after(failed).await);
    let given_up = async |client: Client| {
        let mut copy = client.copy_in("COPY copied FROM STDIN").await.unwrap();
        copy.send(&b"1\n"[..]).await.unwrap();
    };
    assert!(is_kept_after(given_up).await);
    let untracked = async |client: Client| {
        let statement = (*client).prepare_cached("COPY copied FROM STDIN").await.unwrap();
        let mut sink = pin!((*client).copy_in::<_, &[u8]>(&statement).await.unwrap());
        sink.send(b"x\n").await.unwrap();
        sink.finish().await.unwrap_err();
    };
    assert!(is_kept_after(untracked).await);
}

/// Two answers confuse the driver, so the connection must never count as clean.
#[tokio::test]
async fn a_connection_with_a_refused_copy_never_comes_to_rest() {
    for sql in ["COPY viewed FROM STDIN", "COPY guarded FROM STDIN", "COPY nothing FROM STDIN"] {
        for at_once in [true, false] {
            let conn = shared().await;
            conn.object.batch_execute(COPY_SETUP).await.unwrap();
            if let Ok(sink) = conn.object.copy_in::<_, &[u8]>(sql).await {
                let sink = pin!(sink);
                if !at_once {
                    assert!(!comes_to_rest(&conn).await, "{sql}");
                }
                sink.finish().await.unwrap_err();
            }
            let confused = timeout(LONG, conn.link.monitor.quiet()).await;
            assert_eq!(confused, Ok(false), "{sql}");
        }
    }
}

#[tokio::test]
async fn a_sealed_connection_sends_nothing_more() {
    let other = shared().await;
    let conn = shared().await;
    other.object.batch_execute("CREATE TABLE sealed (n int)").await.unwrap();
    let wire = &conn.link.wire;
    conn.object.batch_execute("SELECT 1").await.unwrap();
    let begun = wire.attempts();
    let mut insert = pin!(conn.object.execute("INSERT INTO sealed VALUES (1)", &[]));
    begin(&mut insert).await; // on this one thread, the task has not run yet
    assert_eq!(wire.seal(), begun);
    insert.await.unwrap_err();
    let lost = conn.link.monitor.close_reason().last_cause().await.unwrap();
    assert_eq!(lost.to_string(), "the pool closed the connection, because its state was uncertain");
    assert_eq!((wire.attempts(), wire.is_sealed(), conn.link.monitor.quiet().await), (begun, true, false));
    let count = other.object.query_one("SELECT count(*) FROM sealed", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
    other.object.batch_execute("DROP TABLE sealed").await.unwrap();
}

#[tokio::test]
async fn a_change_of_the_servers_role_is_noticed() {
    let conn = shared().await;
    assert_eq!(conn.link.monitor.is_read_only(), Some(false));
    let role_after = async |sql: &str| {
        conn.object.batch_execute(sql).await.unwrap();
        assert!(conn.link.monitor.quiet().await);
        conn.link.monitor.is_read_only()
    };
    let set = |value: &str| format!("SELECT set_config('default_transaction_read_only', '{value}', false)");
    assert_eq!(role_after(&set("on")).await, Some(true), "as if the setting of the server had changed");
    assert_eq!(role_after(&set("off")).await, Some(false));
    assert_eq!(
        role_after("SET default_transaction_read_only = on").await,
        Some(false),
        "the session was made read-only by a SET, and the server was not"
    );
}

async fn last_words(conn: &Conn) -> (Option<SqlState>, String) {
    let lost = timeout(LONG, conn.link.monitor.close_reason().last_cause()).await.unwrap().unwrap();
    (lost.sqlstate().cloned(), lost.to_string())
}

#[tokio::test]
async fn a_terminated_session_is_known_as_such() {
    let admin = shared().await;
    for is_busy in [false, true] {
        let conn = shared().await;
        let mut first = pin!(conn.object.batch_execute("SELECT pg_sleep(60)"));
        let mut second = pin!(conn.object.batch_execute("SELECT 1"));
        if is_busy {
            begin(&mut first).await;
            begin(&mut second).await;
        }
        assert!(conn.link.monitor.close_reason().cause().is_none());
        let pid = conn.link.wire.process_id();
        admin.object.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
        if is_busy {
            assert_eq!(first.await.unwrap_err().code(), Some(&SqlState::ADMIN_SHUTDOWN));
            let second = second.await.unwrap_err();
            assert!(second.is_closed(), "{second}");
            assert!(
                conn.link.monitor.close_reason().cause().is_some(),
                "the reason is known when the driver reports the end"
            );
        }
        let message = "the server was shut down, or an administrator ended the connection \
            (57P01: terminating connection due to administrator command)";
        assert_eq!(last_words(&conn).await, (Some(SqlState::ADMIN_SHUTDOWN), message.to_owned()));
        assert!(!conn.link.monitor.quiet().await);
    }
}

/// Runs a shell command where the server keeps its data.
async fn shell(conn: &Conn, command: &str) {
    let _ = conn.object.batch_execute(&format!("COPY (SELECT 1) TO PROGRAM '{command}'")).await;
}

#[tokio::test]
async fn a_crash_and_a_shutdown_are_known_by_name() {
    let stop = |signal| format!("kill -{signal} $(head -n 1 postmaster.pid)");
    for (command, state, line) in [
        (None, SqlState::CRASH_SHUTDOWN, "the server crashed (57P02: "),
        (
            Some(stop("QUIT")),
            SqlState::ADMIN_SHUTDOWN,
            "the server was shut down, or an administrator ended the connection (57P01: ",
        ),
        (
            Some(stop("INT")),
            SqlState::ADMIN_SHUTDOWN,
            "the server was shut down, or an administrator ended the connection (57P01: ",
        ),
    ] {
        if std::env::var_os("DATABASE_URL").is_some() {
            return; // a server that is not the tests' own
        }
        let server = Throwaway::start().await.unwrap();
        let (admin, idle, busy) = (connect(&server).await, connect(&server).await, connect(&server).await);
        let mut query = pin!(busy.object.batch_execute("SELECT pg_sleep(60)"));
        begin(&mut query).await;
        let victim = connect(&server).await;
        let kill = format!("kill -KILL {}", victim.link.wire.process_id());
        let is_crash = command.is_none();
        shell(&admin, &command.unwrap_or(kill)).await;
        query.await.unwrap_err();
        for conn in [&idle, &busy] {
            let (code, message) = last_words(conn).await;
            assert_eq!(code.as_ref(), Some(&state), "{message}");
            assert!(message.starts_with(line), "{message}");
        }
        if is_crash {
            assert_eq!(last_words(&victim).await, (None, "the server closed the connection".to_owned()));
        }
    }
}

#[tokio::test]
async fn a_graceful_close_is_no_loss() {
    let conn = shared().await;
    let monitor = Arc::clone(&conn.link.monitor);
    conn.close().await;
    assert!(monitor.close_reason().last_cause().await.is_none());
}

#[test]
fn a_runtime_that_ends_is_the_close_reason() {
    let runtime = Runtime::new().unwrap();
    let conn = runtime.block_on(shared());
    runtime.shutdown_background();
    let other = Runtime::new().unwrap();
    other.block_on(async {
        let said = last_words(&conn).await.1;
        assert_eq!(said, "the runtime that drove the connection ended");
        assert!(!conn.link.monitor.quiet().await);
    });
}

/// The next lease may begin before the last part of a lease is dropped.
#[tokio::test]
async fn a_connection_that_has_ended_is_not_fit() {
    let conn = shared().await;
    assert!(conn.is_fit());
    conn.object.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
    conn.link.monitor.close_reason().last_cause().await;
    assert!(!conn.link.wire.is_sealed() && !conn.is_fit());
}

#[tokio::test]
async fn a_probe_that_ends_late_leaves_the_ticket_of_the_next_alone() {
    let conn = connect_with(shared_server().await, BreakerConfig::default().permitted_probes(2)).await;
    let (link, breaker) = (&conn.link, conn.handling.recorder.breaker());
    breaker.own().import(&Export { state: State::HalfOpen, ..Export::default() });
    let answered = || link.record(|recorder, ticket| recorder.answered(now(), ticket, Duration::ZERO));
    let first = link.begin_lease(breaker.admit(now, |now| crate::policy::Deadline::after(now, LONG)).unwrap());
    answered();
    let second = link.begin_lease(breaker.admit(now, |now| crate::policy::Deadline::after(now, LONG)).unwrap());
    link.end_probe(first);
    assert_eq!(breaker.own().snapshot().probes, 1);
    answered();
    link.end_probe(second);
    assert_eq!(breaker.own().state(), State::Closed);

    breaker.own().import(&Export { state: State::HalfOpen, ..Export::default() });
    let silent = link.begin_lease(breaker.admit(now, |now| crate::policy::Deadline::after(now, LONG)).unwrap());
    link.end_probe(silent);
    answered();
    assert_eq!(
        (breaker.own().snapshot().probes, breaker.own().state()),
        (0, State::HalfOpen),
        "a result after the end of the probe does not count"
    );
}
