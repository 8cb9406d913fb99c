//! The pools to compare, each connected and with the same bounds: failfast, deadpool, bb8 and sqlx. deadpool has a
//! timeout for waiting, or for everything. bb8 and sqlx do not check connections at checkout. Also here: a crowd of
//! tasks that contends for one pool, and another crate's circuit breaker.

use std::future::Future;
use std::time::{Duration, Instant};

use deadpool_postgres::Timeouts;
use failsafe::{FailurePolicy, StateMachine, backoff, failure_policy};
use tokio::task::{JoinSet, yield_now};
use tokio_postgres::{Config, NoTls};

pub(crate) type Bb8 = bb8::Pool<bb8_postgres::PostgresConnectionManager<NoTls>>;

/// The timeout of every pool, long enough that no caller gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const NO_TIMEOUT: Timeouts = Timeouts { wait: None, create: None, recycle: None };
pub(crate) const WAIT_TIMEOUT: Timeouts = Timeouts { wait: Some(LIMIT), ..NO_TIMEOUT };
pub(crate) const THREE_TIMEOUTS: Timeouts = Timeouts { wait: Some(LIMIT), create: Some(LIMIT), recycle: Some(LIMIT) };

pub(crate) async fn failfast(config: Config, size: usize) -> failfast::Pool {
    filled(builder(config, size), size).await
}

/// A pool with everything on, and with an observer of events. It has no recorder of metrics.
pub(crate) fn builder(config: Config, size: usize) -> failfast::PoolBuilder {
    let builder =
        failfast::Pool::builder(config).max_size(size).min_idle(size).max_waiting(10_000).acquire_timeout(LIMIT);
    builder.observer(|_: &failfast::Event| ())
}

pub(crate) async fn filled(builder: failfast::PoolBuilder, size: usize) -> failfast::Pool {
    let pool = builder.build().expect("good settings");
    pool.warm_up(size, LIMIT).await.expect("connections");
    pool
}

pub(crate) async fn deadpool(config: Config, size: usize, timeouts: Timeouts) -> deadpool_postgres::Pool {
    let manager = deadpool_postgres::Manager::new(config, NoTls);
    let builder = deadpool_postgres::Pool::builder(manager).max_size(size).timeouts(timeouts);
    let pool = builder.runtime(deadpool_postgres::Runtime::Tokio1).build().expect("good settings");
    let mut all = Vec::new();
    for _ in 0..size {
        all.push(pool.get().await.expect("a connection"));
    }
    pool
}

/// failsafe's circuit breaker with its success-rate policy and its defaults.
pub(crate) fn failsafe() -> StateMachine<impl FailurePolicy, ()> {
    let backoff = backoff::equal_jittered(Duration::from_secs(10), Duration::from_secs(300));
    StateMachine::new(failure_policy::success_rate_over_time_window(0.5, 10, Duration::from_secs(10), backoff), ())
}

pub(crate) async fn bb8(config: Config, size: usize) -> Bb8 {
    let manager = bb8_postgres::PostgresConnectionManager::new(config, NoTls);
    let builder = bb8::Pool::builder().max_size(size as u32).min_idle(size as u32).test_on_check_out(false);
    builder.connection_timeout(LIMIT).build(manager).await.expect("connections")
}

pub(crate) async fn sqlx(config: &Config, size: usize) -> sqlx::PgPool {
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let options = sqlx::postgres::PgConnectOptions::new()
        .host("127.0.0.1")
        .port(config.get_ports()[0])
        .username(config.get_user().unwrap_or("postgres"))
        .password(&password);
    let builder = sqlx::postgres::PgPoolOptions::new().max_connections(size as u32).min_connections(size as u32);
    let builder = builder.test_before_acquire(false).acquire_timeout(LIMIT);
    builder.connect_with(options).await.expect("connections")
}

/// Returns how long it takes until each task has had a connection ten times. Each task yields while it has one. Panics
/// if a pool refuses a task.
pub(crate) async fn crowd<P, C, F>(tasks: u32, pool: &P, get: impl Fn(P) -> F + Copy + Send + 'static) -> Duration
where
    P: Clone + Send + 'static,
    C: Send + 'static,
    F: Future<Output = Option<C>> + Send,
{
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let pool = pool.clone();
        running.spawn(async move {
            for _ in 0..10 {
                let client = get(pool.clone()).await.expect("no refusal");
                yield_now().await;
                drop(client);
            }
        });
    }
    running.join_all().await;
    begun.elapsed()
}
