//! Which calls run again. Sequences on the server count the attempts, because they are never rolled back.

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

/// Counts calls on the server. Only one test uses each name.
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

    /// Returns SQL that counts and then fails with this SQLSTATE.
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
async fn the_sqlstate_decides_whether_a_call_runs_again() {
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
    assert_eq!(counter.seen().await, 3, "the whole transaction ran three times");
}

#[tokio::test]
async fn a_temporary_conflict_is_hidden_from_the_caller() {
    let pool = shared("ends").await.retry(quick()).build().unwrap();
    let counter = Counter::new("ends").await;
    let sql =
        "DO $$ BEGIN IF nextval('ends') < 3 THEN RAISE EXCEPTION 'a test' USING ERRCODE = '40001'; END IF; END $$";
    pool.call().idempotent().batch_execute(sql).await.unwrap();
    assert_eq!(counter.seen().await, 3);
}

/// The server applies the statement, and its answer is lost.
#[tokio::test]
async fn a_statement_lost_in_flight_runs_again_only_if_idempotent() {
    let (proxy, builder) = through_a_proxy("in_flight").await;
    let pool = builder.max_size(1).build().unwrap();
    let counter = Counter::new("in_flight").await;
    let select = "SELECT nextval('in_flight')";
    let ask = || pool.call().uncached();
    ask().query_one(select, &[]).await.unwrap();
    proxy.arm(Cut::at_text(select).answer_lost());
    let error = ask().query_one(select, &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Postgres, failfast::Effect::Unknown));
    assert_eq!(counter.seen().await, 2, "the call ran again, although it is not idempotent");

    ask().query_one(select, &[]).await.unwrap();
    proxy.arm(Cut::at_text(select).answer_lost());
    ask().idempotent().query_one(select, &[]).await.unwrap();
    assert_eq!(counter.seen().await, 5, "twice, as allowed");
}

/// Connections that died while idle are the pool's own concern, for reads and writes.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_while_idle_cause_no_errors() {
    const SIZE: usize = 5;
    let pool = shared("stale").await.max_size(SIZE).acquire_timeout(LONG).build().unwrap();
    let counter = Counter::new("stale_calls").await;
    let server = Server::shared().await;
    for round in 0..20 {
        pool.warm_up(SIZE, LONG).await.unwrap();
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stale'").await;
        // `pg_terminate_backend` returns before the session has ended. A statement in between may be applied or not.
        eventually("all sessions have ended", LONG, async || server.connection_count("stale").await == 0).await;
        let calls = (0..SIZE).map(|_| pool.query_one("SELECT nextval('stale_calls')", &[]));
        for answer in join_all(calls).await {
            answer.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
    assert_eq!(counter.seen().await, 20 * SIZE as u64, "each once");
}

/// The dial fails, and the server is back a moment later.
#[tokio::test]
async fn a_call_survives_a_short_outage() {
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

/// Every call fails. The server gets only few attempts more than calls.
#[tokio::test(flavor = "multi_thread")]
async fn retries_stay_within_their_budget() {
    const CALLS: u64 = 3_000;
    let pool = shared("retry_storm").await.retry(quick()).build().unwrap();
    pool.breaker().disable("an open circuit would end the storm");
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
async fn an_attempt_that_cannot_end_in_time_does_not_begin() {
    let pool =
        shared("no_time").await.retry(RetryConfig::default().initial_backoff(LONG).max_backoff(LONG)).build().unwrap();
    let counter = Counter::new("no_time").await;
    let begun = Instant::now();
    let call = pool.call().idempotent().deadline(Duration::from_millis(500));
    call.batch_execute(&counter.failing("40001")).await.unwrap_err();
    // The pauses are random, up to 20 s. One in forty is short enough for another attempt.
    assert!(begun.elapsed() < Duration::from_millis(700));
    assert!(counter.seen().await <= 3);
}

#[tokio::test]
async fn without_retries_or_with_an_open_circuit_no_call_runs_again() {
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

/// Several statements on one lease run again only if the caller declares all of them idempotent.
#[tokio::test]
async fn an_idempotent_run_is_repeated_as_a_whole() {
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
    assert_eq!(counter.seen().await, 1, "an error of the caller's own does not run again");
}

/// The statement after a COMMIT fails. The committed part was applied, so the batch runs again only if it is
/// idempotent.
#[tokio::test]
async fn a_batch_that_has_committed_does_not_run_again() {
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
    assert_eq!(server.scalar("SELECT count(*) FROM committed").await, "6", "each batch runs once");

    let sql = format!("INSERT INTO committed VALUES (2); COMMIT; {}", counter.failing("40001"));
    pool.call().idempotent().batch_execute(&sql).await.unwrap_err();
    assert_eq!(
        server.scalar("SELECT count(*) FROM committed WHERE n = 2").await,
        "3",
        "the idempotent batch runs three times"
    );
    let sql = format!("BEGIN; INSERT INTO committed VALUES (3); ROLLBACK; {}", counter.failing("40001"));
    assert_eq!(pool.batch_execute(&sql).await.unwrap_err().effect(), failfast::Effect::NotApplied);
}

#[tokio::test]
async fn a_transaction_committed_by_hand_does_not_run_again() {
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

/// No error shows whether a procedure has committed before it failed. In other calls these codes mean that nothing has
/// begun.
#[tokio::test]
async fn a_procedure_that_may_have_committed_does_not_run_again() {
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
        assert_eq!(error.http_status(), 500, "a client would repeat a call with status 503: {error:?}");
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

/// The first attempt may have been applied. A refusal of the second does not change that.
#[tokio::test]
async fn a_refused_second_attempt_keeps_the_unknown_effect_of_the_first() {
    let (proxy, builder) = through_a_proxy("doubt").await;
    let retry = RetryConfig::default().initial_backoff(300 * MILLISECOND).max_backoff(300 * MILLISECOND);
    let pool = builder.max_size(1).retry(retry).build().unwrap();
    let (counter, mut refused) = (Counter::new("doubt_calls").await, 0);
    let sql = "SELECT nextval('doubt_calls')";
    let own = pool.clone();
    // A random pause may end before the circuit is open.
    for _ in 0..20 {
        proxy.arm(Cut::at_text(sql).answer_lost());
        let before = counter.seen().await;
        let call = tokio::spawn({
            let pool = own.clone();
            async move { pool.call().uncached().idempotent().query_one(sql, &[]).await.map(drop) }
        });
        eventually("the server has applied the statement", LONG, async || counter.seen().await > before).await;
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
