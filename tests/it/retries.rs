//! What is tried again and what is not, by what the server saw: sequences count attempts, for they are never rolled back.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::breaker::State;
use failfast::{Error, ErrorKind, Pool, PoolBuilder, RetryConfig};
use futures_util::future::join_all;

use crate::pool::{LONG, shared};
use crate::support::eventually;
use crate::support::proxy::{Cut, Proxy};
use crate::support::server::Server;

const MILLISECOND: Duration = Duration::from_millis(1);

fn quick() -> RetryConfig {
    RetryConfig::default().initial_backoff(MILLISECOND)
}

/// Counts calls on the server, under a name that only one test uses.
struct Counter(&'static str);

impl Counter {
    async fn new(name: &'static str) -> Self {
        let server = Server::shared().await;
        server
            .execute(&format!(
                "DROP SEQUENCE IF EXISTS {name}; CREATE SEQUENCE {name} MINVALUE 0 START 0; SELECT nextval('{name}')"
            ))
            .await;
        Self(name)
    }

    /// Counts, then fails with this SQLSTATE.
    fn failing(&self, state: &str) -> String {
        format!("DO $$ BEGIN PERFORM nextval('{}'); RAISE EXCEPTION 'a test' USING ERRCODE = '{state}'; END $$", self.0)
    }

    async fn seen(&self) -> u64 {
        Server::shared().await.scalar(&format!("SELECT last_value FROM {}", self.0)).await.parse().unwrap()
    }
}

async fn through_a_proxy(name: &str) -> (Proxy, PoolBuilder) {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name(name).retry(quick());
    (proxy, builder)
}

#[tokio::test]
async fn what_the_server_says_decides() {
    let pool = shared("says").await.retry(quick()).build().unwrap();
    let counter = Counter::new("says").await;
    let mut seen = 0;
    for (state, if_idempotent) in
        [("40001", 3), ("40P01", 3), ("40003", 3), ("55P03", 3), ("53100", 3), ("23505", 1), ("42601", 1), ("57014", 1)]
    {
        for (call, attempts) in [(pool.call(), 1), (pool.call().idempotent(), if_idempotent)] {
            let error = call.batch_execute(&counter.failing(state)).await.unwrap_err();
            assert_eq!(error.sqlstate().unwrap().code(), state);
            assert_eq!(counter.seen().await - seen, attempts, "{state}");
            seen += attempts;
        }
    }
    let counter = Counter::new("says_in_transaction").await;
    let failing = &counter.failing("40001");
    pool.transaction(|tx| async move { tx.batch_execute(failing).await }).await.unwrap_err();
    assert_eq!(counter.seen().await, 3, "undone as a whole");
}

#[tokio::test]
async fn a_conflict_that_ends_is_not_seen_by_the_caller() {
    let pool = shared("ends").await.retry(quick()).build().unwrap();
    let counter = Counter::new("ends").await;
    let sql =
        "DO $$ BEGIN IF nextval('ends') < 3 THEN RAISE EXCEPTION 'a test' USING ERRCODE = '40001'; END IF; END $$";
    pool.call().idempotent().batch_execute(sql).await.unwrap();
    assert_eq!(counter.seen().await, 3);
}

/// The statement is applied; the answer is lost.
#[tokio::test]
async fn a_statement_lost_in_flight_is_repeated_only_if_it_may_be() {
    let (proxy, builder) = through_a_proxy("in_flight").await;
    let pool = builder.max_size(1).build().unwrap();
    let counter = Counter::new("in_flight").await;
    let select = "SELECT nextval('in_flight')";
    let ask = || pool.call().uncached();
    ask().query_one(select, &[]).await.unwrap();
    proxy.arm(Cut::at_text(select).answer_lost());
    let error = ask().query_one(select, &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Postgres, failfast::Effect::Unknown));
    assert_eq!(counter.seen().await, 2, "once, and no second time");

    ask().query_one(select, &[]).await.unwrap();
    proxy.arm(Cut::at_text(select).answer_lost());
    ask().idempotent().query_one(select, &[]).await.unwrap();
    assert_eq!(counter.seen().await, 5, "twice, as allowed");
}

/// Connections that died while idle are the pool's own matter, for reads and writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_had_died_while_idle_costs_nobody_an_error() {
    const SIZE: usize = 5;
    let pool = shared("stale").await.max_size(SIZE).build().unwrap();
    let counter = Counter::new("stale_calls").await;
    let server = Server::shared().await;
    for round in 0..20 {
        pool.warm_up(SIZE, LONG).await.unwrap();
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stale'").await;
        // Told to end is not yet ended: in between, nobody can know what became of a statement.
        eventually("they have ended", LONG, async || server.connection_count("stale").await == 0).await;
        let calls = (0..SIZE).map(|_| pool.query_one("SELECT nextval('stale_calls')", &[]));
        for answer in join_all(calls).await {
            answer.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
    assert_eq!(counter.seen().await, 20 * SIZE as u64, "each once");
}

/// A dial that fails, and a server that is there again a moment later.
#[tokio::test]
async fn a_server_that_is_back_in_a_moment_is_not_missed() {
    let (proxy, builder) = through_a_proxy("moment").await;
    let retry = RetryConfig::default().max_attempts(20).initial_backoff(50 * MILLISECOND).max_backoff(50 * MILLISECOND);
    let pool = builder.retry(retry).build().unwrap();
    proxy.refuse().await;
    let call = tokio::spawn({
        let pool = pool.clone();
        async move { pool.query_one("SELECT 1", &[]).await.map(drop) }
    });
    eventually("a dial has failed", LONG, async || pool.breaker().snapshot().counts.failures > 0).await;
    proxy.accept().await;
    call.await.unwrap().unwrap();
}

/// Everything fails: what reaches the server is little more than what was asked.
#[tokio::test(flavor = "multi_thread")]
async fn retries_are_no_storm() {
    const CALLS: u64 = 3_000;
    let pool = shared("retry_storm").await.retry(quick()).build().unwrap();
    pool.breaker().disable("it would end the storm");
    let counter = Counter::new("retry_storm").await;
    let failing = counter.failing("55P03");
    let begun = Instant::now();
    let left = AtomicU64::new(CALLS);
    let callers = (0..10).map(|_| async {
        while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            pool.call().idempotent().batch_execute(&failing).await.unwrap_err();
        }
    });
    join_all(callers).await;
    let seen = counter.seen().await;
    println!("retry storm: {CALLS} calls, {seen} attempts in {:.1?}", begun.elapsed());
    assert!(seen > CALLS && seen as f64 <= 1.1 * CALLS as f64, "{seen}");
}

#[tokio::test]
async fn no_attempt_begins_that_could_not_end_in_time() {
    let pool =
        shared("no_time").await.retry(RetryConfig::default().initial_backoff(LONG).max_backoff(LONG)).build().unwrap();
    let counter = Counter::new("no_time").await;
    let begun = Instant::now();
    let call = pool.call().idempotent().deadline(Duration::from_millis(500));
    call.batch_execute(&counter.failing("40001")).await.unwrap_err();
    // Up to 20 s, by chance: one in forty is short enough.
    assert!(begun.elapsed() < Duration::from_millis(700));
    assert!(counter.seen().await <= 3);
}

#[tokio::test]
async fn off_is_off_and_an_open_circuit_is_not_tried_again() {
    let pool = shared("off").await.retry(RetryConfig::off()).build().unwrap();
    let counter = Counter::new("off").await;
    pool.call().idempotent().batch_execute(&counter.failing("40001")).await.unwrap_err();
    assert_eq!(counter.seen().await, 1);

    let pool = shared("off").await.retry(quick()).build().unwrap();
    pool.breaker().force_open("a test");
    let begun = Instant::now();
    assert!(matches!(pool.query_one("SELECT 1", &[]).await, Err(Error::CircuitOpen { .. })));
    assert!(begun.elapsed() < 20 * MILLISECOND);
    let counts = pool.breaker().snapshot().counts;
    assert_eq!((counts.rejected, pool.breaker().state()), (1, State::ForcedOpen));
}

/// Several statements on one lease: again only if the caller says that all of it may be done twice.
#[tokio::test]
async fn a_run_is_done_again_as_a_whole() {
    let pool = shared("run").await.retry(quick()).build().unwrap();
    for (name, is_idempotent, attempts) in [("run_once", false, 1), ("run_again", true, 3)] {
        let counter = Counter::new(name).await;
        let failing = counter.failing("40001");
        let call = if is_idempotent { pool.call().idempotent() } else { pool.call() };
        let result = call.run(|client| {
            let failing = &failing;
            async move {
                client.query_one("SELECT 1", &[]).await?;
                client.batch_execute(failing).await
            }
        });
        result.await.unwrap_err();
        assert_eq!(counter.seen().await, attempts, "{name}");
    }
    let counter = Counter::new("run_own").await;
    let own = pool.call().idempotent().run(|client| async move {
        client.query_one("SELECT nextval('run_own')", &[]).await?;
        Err::<(), _>(Box::<dyn std::error::Error + Send + Sync>::from("the caller's own"))
    });
    own.await.unwrap_err();
    assert_eq!(counter.seen().await, 1, "an error of the caller's own");
}

/// What the database could not answer comes from elsewhere; what it did answer does not.
#[tokio::test]
async fn a_fallback_answers_when_the_database_does_not() {
    let pool = shared("fallback").await.retry(RetryConfig::off()).build().unwrap();
    let asked = AtomicU64::new(0);
    let ask_within = async |timeout, sql: &'static str| {
        let instead = |_: &Error| (asked.fetch_add(1, SeqCst) < 1).then_some(7);
        let call = pool.call().timeout(timeout).fallback(instead);
        call.run(|client| async move { Ok(client.query_one(sql, &[]).await?.get::<_, i32>(0)) }).await
    };
    let ask = async |sql| ask_within(LONG, sql).await;
    assert_eq!(ask("SELECT 1").await.unwrap(), 1);
    assert_eq!(ask("SELECT 1/0").await.unwrap_err().kind(), ErrorKind::Postgres);
    assert_eq!(asked.load(SeqCst), 0, "an answer is an answer");
    assert_eq!(ask_within(100 * MILLISECOND, "SELECT 1 FROM pg_sleep(60)").await.unwrap(), 7);
    pool.breaker().force_open("a test");
    assert_eq!(ask("SELECT 1").await.unwrap_err().kind(), ErrorKind::CircuitOpen, "nothing was at hand");
    assert_eq!(asked.load(SeqCst), 2);
}

/// What comes after a COMMIT fails. The rest has been applied, and runs again only if it may.
#[tokio::test]
async fn a_batch_that_has_committed_is_not_done_again() {
    let pool = shared("committed").await.retry(quick()).build().unwrap();
    let counter = Counter::new("committed_part").await;
    let server = Server::shared().await;
    server.execute("DROP TABLE IF EXISTS committed; CREATE TABLE committed (n int)").await;
    for state in ["40001", "55P03", "53100"] {
        let sql = format!("BEGIN; INSERT INTO committed VALUES (1); COMMIT; {}", counter.failing(state));
        let error = pool.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.effect(), failfast::Effect::Unknown);
        let error = pool.call().simple_query(&sql).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().code(), state);
    }
    assert_eq!(server.scalar("SELECT count(*) FROM committed").await, "6", "each once");

    let sql = format!("INSERT INTO committed VALUES (2); COMMIT; {}", counter.failing("40001"));
    pool.call().idempotent().batch_execute(&sql).await.unwrap_err();
    assert_eq!(server.scalar("SELECT count(*) FROM committed WHERE n = 2").await, "3", "as allowed");
    let sql = format!("BEGIN; INSERT INTO committed VALUES (3); ROLLBACK; {}", counter.failing("40001"));
    assert_eq!(pool.batch_execute(&sql).await.unwrap_err().effect(), failfast::Effect::NotApplied);
}

#[tokio::test]
async fn a_transaction_that_was_committed_by_hand_is_not_run_again() {
    let pool = shared("hand_committed").await.retry(quick()).build().unwrap();
    let counter = Counter::new("hand_committed_part").await;
    let server = Server::shared().await;
    server.execute("DROP TABLE IF EXISTS hand_committed; CREATE TABLE hand_committed (n int)").await;
    let failing = counter.failing("40001");
    let run = pool.transaction(|tx| {
        let failing = &failing;
        async move {
            tx.batch_execute("INSERT INTO hand_committed VALUES (1); COMMIT; BEGIN").await?;
            tx.batch_execute(failing).await
        }
    });
    run.await.unwrap_err();
    assert_eq!(server.scalar("SELECT count(*) FROM hand_committed").await, "1");
}

/// What a procedure has committed before it fails shows nowhere. These codes say elsewhere that nothing has begun.
#[tokio::test]
async fn a_procedure_that_may_have_committed_is_not_called_again() {
    const STATES: [&str; 7] = ["26000", "42P05", "25006", "25P03", "57P05", "53300", "57P03"];
    let pool = shared("procedure").await.retry(quick()).build().unwrap();
    pool.breaker().disable("a test");
    let server = Server::shared().await;
    server.execute("DROP TABLE IF EXISTS procedures; CREATE TABLE procedures (state text)").await;
    let failing = |state: &str, failure: &str| {
        format!("DO $$ BEGIN INSERT INTO procedures VALUES ('{state}'); COMMIT; {failure}; END $$")
    };
    for state in STATES {
        let sql = failing(state, &format!("RAISE EXCEPTION 'a test' USING ERRCODE = '{state}'"));
        let error = pool.execute(&sql, &[]).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().code(), state);
        assert_eq!(error.http_status(), 500, "whoever gets a 503 calls it again: {error:?}");
        pool.call().uncached().execute(&sql, &[]).await.unwrap_err();
        pool.batch_execute(&sql).await.unwrap_err();
    }
    let sql = failing("lost", "EXECUTE 'EXECUTE nowhere'");
    assert_eq!(pool.execute(&sql, &[]).await.unwrap_err().sqlstate().unwrap().code(), "26000");
    let calls = "SELECT string_agg(state || ' ' || calls, ', ' ORDER BY state) FROM
        (SELECT state, count(*) AS calls FROM procedures GROUP BY state) AS counted";
    assert_eq!(
        server.scalar(calls).await,
        "25006 3, 25P03 3, 26000 3, 42P05 3, 53300 3, 57P03 3, 57P05 3, lost 1",
        "each once"
    );
    for state in ["40001", "40P01", "55P03", "53200"] {
        let sql = failing(state, &format!("RAISE EXCEPTION 'a test' USING ERRCODE = '{state}'"));
        assert_eq!(pool.batch_execute(&sql).await.unwrap_err().http_status(), 500, "{state}");
    }
}

/// The first attempt may have been applied; that the second was refused does not change that.
#[tokio::test]
async fn a_refusal_does_not_hide_what_may_have_been_applied() {
    let (proxy, builder) = through_a_proxy("doubt").await;
    let retry = RetryConfig::default().initial_backoff(300 * MILLISECOND).max_backoff(300 * MILLISECOND);
    let pool = builder.max_size(1).retry(retry).build().unwrap();
    let (counter, mut refused) = (Counter::new("doubt_calls").await, 0);
    let sql = "SELECT nextval('doubt_calls')";
    let own = pool.clone();
    // By chance a pause may be over before the circuit is open.
    for _ in 0..20 {
        proxy.arm(Cut::at_text(sql).answer_lost());
        let before = counter.seen().await;
        let call = tokio::spawn({
            let pool = own.clone();
            async move { pool.call().uncached().idempotent().query_one(sql, &[]).await.map(drop) }
        });
        eventually("it was applied", LONG, async || counter.seen().await > before).await;
        pool.breaker().force_open("a test");
        if let Err(error) = call.await.unwrap() {
            refused += 1;
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Postgres, failfast::Effect::Unknown), "{error}");
        }
        pool.breaker().reset("over");
        if refused == 2 {
            break;
        }
    }
    assert_eq!(refused, 2);
}
