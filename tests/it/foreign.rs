//! Pools with parts of other crates: a circuit breaker of failsafe, and retry schedules of backoff.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use backoff::backoff::{Backoff, Zero};
use failfast::breaker::{Export, RollingWindow, State};
use failfast::{BreakerConfig, Error, Pool, RetryConfig};
use failsafe::{StateMachine, backoff::constant, failure_policy};
use tokio_postgres::error::SqlState;

use crate::pool::{LONG, shared};
use crate::support::{
    eventually,
    proxy::{Close, Proxy},
    server::Server,
};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_failsafe_machine_with_the_pools_window_decides() {
    let config = BreakerConfig::default().volume_threshold(4).reset_timeout(HOUR).reset_timeout_jitter(0);
    let machine = StateMachine::new(RollingWindow::new(config.clone()).unwrap(), ());
    let builder = shared("foreign-window").await.breaker(config).breaker_with(machine.clone());
    // In this test, errors that are the caller's fault count as failures of the database.
    let pool = builder.is_failure(|error| error.sqlstate().map(|_| true)).build().unwrap();
    assert_eq!(pool.breaker().state(), State::Disabled);
    let history = pool.breaker().snapshot().history;
    assert!(history[0].transition.to_string().contains("a failsafe state machine decides"), "{history:?}");

    for fails in [false, false, true, true] {
        let sql = if fails { "SELECT 1/0" } else { "SELECT 1" };
        assert_eq!(pool.execute(sql, &[]).await.is_err(), fails);
    }
    for _ in 0..3 {
        let rejected = pool.execute("SELECT 1", &[]).await.unwrap_err();
        assert!(matches!(rejected, Error::CircuitOpen { retry_after, .. } if retry_after == HOUR), "{rejected}");
    }
    assert!(pool.try_get().is_err());
    machine.reset();
    pool.execute("SELECT 1", &[]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_opens_a_failsafe_machine() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let machine = StateMachine::new(failure_policy::consecutive_failures(2, constant(HOUR)), ());
    let pool = Pool::builder(server.config_at(proxy.addr())).breaker_with(machine.clone()).build().unwrap();
    pool.execute("SELECT 1", &[]).await.unwrap();
    proxy.refuse().await;
    proxy.cut(Close::Reset);
    let is_open = async || matches!(pool.execute("SELECT 1", &[]).await, Err(Error::CircuitOpen { .. }));
    eventually("the circuit is open", LONG, is_open).await;
    proxy.accept().await;
    assert!(!machine.is_call_permitted());
    machine.reset();
    eventually("a connection", LONG, async || pool.execute("SELECT 1", &[]).await.is_ok()).await;
}

/// Both breakers are half-open. Ten callers arrive before the first of them has a result.
#[tokio::test]
async fn failsafe_half_open_lets_all_callers_through_and_failfast_one() {
    let machine = StateMachine::new(failure_policy::consecutive_failures(1, constant(Duration::ZERO)), ());
    let theirs = shared("foreign-half-open").await.breaker_with(machine.clone()).build().unwrap();
    theirs.warm_up(10, LONG).await.unwrap();
    machine.on_error();
    eventually("the machine is half-open", LONG, async || machine.is_call_permitted()).await;
    assert!(format!("{machine:?}").contains("half_open"));
    assert_eq!(let_through(&theirs).await, 10);

    let ours = shared("own-half-open").await.build().unwrap();
    ours.warm_up(10, LONG).await.unwrap();
    let mut half_open = Export::default();
    half_open.state = State::HalfOpen;
    ours.breaker().import(&half_open);
    assert_eq!(let_through(&ours).await, 1);
}

async fn let_through(pool: &Pool) -> usize {
    let mut clients = Vec::new();
    for _ in 0..10 {
        match pool.get().await {
            Ok(client) => clients.push(client),
            Err(error) => assert!(matches!(error, Error::CircuitOpen { .. }), "{error}"),
        }
    }
    clients.len()
}

/// A schedule of this many pauses of zero length.
struct Few(u32);

impl Backoff for Few {
    fn next_backoff(&mut self) -> Option<Duration> {
        self.0 = self.0.checked_sub(1)?;
        Some(Duration::ZERO)
    }
}

/// Returns how often a transaction runs that conflicts every time.
async fn attempts(pool: &Pool) -> u32 {
    let attempts = AtomicU32::new(0);
    let lost = pool.transaction(|tx| {
        attempts.fetch_add(1, SeqCst);
        async move { tx.batch_execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$").await }
    });
    assert_eq!(lost.await.unwrap_err().sqlstate(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    attempts.into_inner()
}

#[tokio::test]
async fn each_call_gets_its_own_backoff_schedule() {
    let retry = RetryConfig::default().max_attempts(9).backoff_with(|| Few(3));
    let pool = shared("foreign-backoff").await.retry(retry).build().unwrap();
    assert_eq!(attempts(&pool).await, 4);
    assert_eq!(attempts(&pool).await, 4);

    let retry = RetryConfig::default().max_attempts(5).backoff_with(|| Zero {});
    let pool = shared("foreign-backoff").await.retry(retry).build().unwrap();
    assert_eq!(attempts(&pool).await, 5, "max_attempts holds");
}
