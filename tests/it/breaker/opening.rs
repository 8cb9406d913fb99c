//! What opens the circuit, what does not, and what happens to queued callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::breaker::{BreakerConfig, State};
use failfast::{Error, ErrorKind, Pool, RetryConfig};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{MILLISECOND, ask, comes_to};
use crate::pool::{LONG, shared};
use crate::support::eventually;
use crate::support::server::Server;

/// A statement that always ends late.
const SLOW: &str = "SELECT pg_sleep(60)";

async fn late(pool: &Pool) -> Result<u64, Error> {
    pool.call().timeout(20 * MILLISECOND).execute(SLOW, &[]).await
}

/// The server answers every Sync, but no query in time. The pool's own successful look at the server must not close the
/// circuit.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_dead_server_is_probed_once_per_reset_timeout() {
    const RESET: Duration = Duration::from_millis(1_500);
    let halves = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&halves);
    let config = BreakerConfig::default().reset_timeout(RESET).reset_timeout_jitter(0).on_transition(move |change| {
        counter.fetch_add(u64::from(change.to == State::HalfOpen), SeqCst);
    });
    let pool = shared("half_dead").await.max_size(5).breaker(config).build().unwrap();
    let begun = Instant::now();
    let mut late_calls = 0;
    while begun.elapsed() < 5 * RESET {
        late_calls += u64::from(matches!(late(&pool).await, Err(Error::QueryTimeout { .. })));
        sleep(MILLISECOND).await;
    }
    let halves = halves.load(SeqCst);
    println!("half dead: half-open {halves} times in {:.1?}, {late_calls} statements", begun.elapsed());
    assert!((3..=5).contains(&halves), "{halves}");
    assert!(
        (halves..=10 + halves).contains(&late_calls),
        "more than the calls that open the circuit and one per half-open state: {late_calls}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn case_23_of_500_callers_at_half_open_one_reaches_the_server() {
    let config = BreakerConfig::default().reset_timeout(300 * MILLISECOND).reset_timeout_jitter(0);
    let pool = shared("stampede").await.max_size(10).breaker(config).retry(RetryConfig::off()).build().unwrap();
    pool.warm_up(10, LONG).await.unwrap();
    let server = Server::shared().await;
    server.execute("DROP SEQUENCE IF EXISTS stampede; CREATE SEQUENCE stampede").await;
    while pool.breaker().state() != State::Open {
        let _ = late(&pool).await;
    }
    eventually("all ten connections are idle", LONG, async || pool.status().idle == 10).await;
    comes_to(&pool, State::HalfOpen).await;
    let all = (0..500).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            pool.call().timeout(LONG).execute("SELECT nextval('stampede'), pg_sleep(0.5)", &[]).await
        })
    });
    let answers: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
    let open = answers.iter().filter(|answer| matches!(answer, Err(Error::CircuitOpen { .. }))).count();
    let reached: u64 = server.scalar("SELECT last_value FROM stampede").await.parse().unwrap();
    println!("stampede: {reached} of 500 reached the server");
    assert_eq!((reached, open), (1, 499));
    comes_to(&pool, State::Closed).await;
}

#[tokio::test]
async fn queued_callers_get_an_error_when_the_circuit_opens() {
    let pool = shared("drained").await.max_size(1).acquire_timeout(LONG).build().unwrap();
    let held = pool.get().await.unwrap();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.get().await.map(drop) })
        })
        .collect();
    eventually("all 50 callers wait", LONG, async || pool.status().waiting == 50).await;
    pool.breaker().force_open("a test");
    for told in join_all(waiting).await {
        let error = told.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CircuitOpen);
        assert!(error.retry_after().unwrap() > Duration::ZERO);
    }
    assert!(held.query_one("SELECT 1", &[]).await.is_ok(), "a lease is not cut off");
    drop(held);
    assert!(matches!(ask(&pool).await, Err(Error::CircuitOpen { .. })));
    pool.breaker().reset("over");
    ask(&pool).await.unwrap();
    let history = pool.breaker().snapshot().to_string();
    println!("{history}");
}

/// Callers with short deadlines bring ten times the load that the pool can serve. The server is not at fault.
#[tokio::test(flavor = "multi_thread")]
async fn overload_alone_does_not_open_the_circuit() {
    const CONNECTIONS: usize = 5;
    const HOLD: Duration = Duration::from_millis(20);
    let pool = shared("overload").await.max_size(CONNECTIONS).build().unwrap();
    pool.warm_up(CONNECTIONS, LONG).await.unwrap();
    let (begun, mut callers) = (Instant::now(), Vec::new());
    let rate = 10.0 * CONNECTIONS as f64 / HOLD.as_secs_f64();
    while begun.elapsed() < Duration::from_secs(5) {
        while (callers.len() as f64) < begun.elapsed().as_secs_f64() * rate {
            let pool = pool.clone();
            let budget = MILLISECOND * fastrand::u32(10..250);
            callers.push(tokio::spawn(async move {
                let call = pool.call().deadline(budget);
                call.execute("SELECT pg_sleep(0.02)", &[]).await.map_err(|error| error.kind())
            }));
        }
        sleep(MILLISECOND).await;
    }
    let answers: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    let count = |kind| answers.iter().filter(|answer| **answer == Err(kind)).count();
    let (served, late) = (answers.iter().filter(|answer| answer.is_ok()).count(), count(ErrorKind::QueryTimeout));
    println!("overload: {} callers, {served} served, {late} late", answers.len());
    assert!(served > 0 && late > 0);
    assert_eq!(count(ErrorKind::CircuitOpen), 0);
    assert_eq!(pool.breaker().state(), State::Closed);
}

#[tokio::test]
async fn errors_of_a_request_do_not_open_the_circuit_by_default() {
    let plain = shared("wrong").await.max_size(1).build().unwrap();
    let strict = shared("strict").await.max_size(1).is_failure(|error| {
        let is_syntax = error.sqlstate().is_some_and(|state| state.code() == "42601");
        is_syntax.then_some(true)
    });
    let strict = strict.build().unwrap();
    for _ in 0..20 {
        assert_eq!(plain.query_one("SELEKT", &[]).await.unwrap_err().kind(), ErrorKind::Postgres);
        let _ = strict.query_one("SELEKT", &[]).await;
    }
    assert_eq!(plain.breaker().state(), State::Closed);
    assert_eq!(strict.breaker().state(), State::Open);
}

/// A probe without a result frees its permit for the next caller.
#[tokio::test]
async fn a_probe_lease_without_a_call_frees_its_permit() {
    let config = BreakerConfig::default().reset_timeout(MILLISECOND).reset_timeout_jitter(0);
    let pool = shared("idle_probe").await.max_size(2).breaker(config).build().unwrap();
    while pool.breaker().state() == State::Closed {
        let _ = late(&pool).await;
    }
    comes_to(&pool, State::HalfOpen).await;
    for _ in 0..3 {
        let probe = eventually_get(&pool).await;
        assert!(matches!(pool.get().await, Err(Error::CircuitOpen { .. })));
        drop(probe);
    }
    assert_eq!(pool.breaker().state(), State::HalfOpen);
    let through_the_deref = eventually_get(&pool).await;
    (&*through_the_deref as &deadpool_postgres::Object).simple_query("SELECT 1").await.unwrap();
    drop(through_the_deref);
    comes_to(&pool, State::Closed).await;
}

async fn eventually_get(pool: &Pool) -> failfast::Client {
    let got = async {
        loop {
            match pool.get().await {
                Ok(client) => return client,
                Err(_) => sleep(MILLISECOND).await,
            }
        }
    };
    timeout(LONG, got).await.unwrap()
}

/// Without its synchronous standby, a server answers statements but no COMMIT.
#[tokio::test]
async fn a_late_commit_counts_as_a_failure() {
    Server::shared()
        .await
        .execute(
            "CREATE TABLE hangs (n int);
            CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN NULL; END';
            CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON hangs DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION hang()",
        )
        .await;
    let pool = shared("hangs").await.query_timeout(200 * MILLISECOND).build().unwrap();
    let work = async |tx: failfast::Transaction| tx.batch_execute("INSERT INTO hangs VALUES (1)").await;
    let error = pool.transaction(work).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitUnknown);
    assert_eq!(pool.breaker().snapshot().counts.failures, 1);
}
