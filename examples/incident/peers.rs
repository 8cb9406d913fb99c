//! The pools: their settings, and how a caller asks each for an answer.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use failfast::{Error, Event, Severity, ShedReason};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

use super::{CONNECTIONS, DEADLINE, HOLD, Result};

/// The limit for making the first connections.
const LIMIT: Duration = Duration::from_secs(20);

/// A pool to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Failfast,
    Deadpool,
    DeadpoolTuned,
    Bb8,
    Sqlx,
}

/// How long a tuned pool lets a caller wait: the deadline without the usual time of the work.
const TUNED: Duration = DEADLINE.saturating_sub(HOLD).saturating_sub(HOLD);

impl Peer {
    pub(crate) const ALL: [Self; 5] = [Self::Failfast, Self::Deadpool, Self::DeadpoolTuned, Self::Bb8, Self::Sqlx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failfast => "failfast",
            Self::Deadpool => "deadpool",
            Self::DeadpoolTuned => "deadpool-tuned",
            Self::Bb8 => "bb8",
            Self::Sqlx => "sqlx",
        }
    }

    /// What differs from the pool's defaults, besides the number of connections, and what matters of them.
    pub(crate) fn settings(self) -> String {
        match self {
            Self::Failfast => format!(
                "acquire_timeout {DEADLINE:?}, each call with a deadline of {DEADLINE:?}; the rest as it comes: a circuit breaker that may stay open for 30 s"
            ),
            Self::Deadpool => "as it comes: waits without end".to_owned(),
            Self::DeadpoolTuned => {
                format!(
                    "wait, create and recycle timeouts of {TUNED:?}, so that there is time left for the work; the server's statement_timeout is {DEADLINE:?}"
                )
            }
            Self::Bb8 => "as it comes: waits up to 30 s, tests each connection that it hands out".to_owned(),
            Self::Sqlx => "as it comes: waits up to 30 s, tests each connection that it hands out".to_owned(),
        }
    }

    /// Creates a pool and makes all its connections.
    pub(crate) async fn connect(self, config: &Config) -> Result<Pool> {
        Ok(match self {
            Self::Failfast => {
                let warnings = Warnings::default();
                let told = warnings.clone();
                let builder = failfast::Pool::builder(config.clone()).name("failfast").max_size(CONNECTIONS);
                let builder = builder.acquire_timeout(DEADLINE).observer(move |event: &Event| told.hear(event));
                let pool = builder.build()?;
                pool.warm_up(CONNECTIONS, LIMIT).await?;
                Pool::Failfast(pool, warnings)
            }
            Self::Deadpool => Pool::Deadpool(deadpool(config.clone(), None).await?),
            Self::DeadpoolTuned => {
                let mut config = config.clone();
                config.options(format!("-c statement_timeout={}", DEADLINE.as_millis()));
                Pool::Deadpool(deadpool(config, Some(TUNED)).await?)
            }
            Self::Bb8 => {
                let manager = bb8_postgres::PostgresConnectionManager::new(config.clone(), NoTls);
                let builder = bb8::Pool::builder().max_size(CONNECTIONS as u32).min_idle(CONNECTIONS as u32);
                Pool::Bb8(builder.build(manager).await?)
            }
            Self::Sqlx => {
                let size = CONNECTIONS as u32;
                let options = PgPoolOptions::new().max_connections(size).min_connections(size);
                let pool = options.connect_with(for_sqlx(config)).await?;
                let mut all = Vec::new();
                for _ in 0..CONNECTIONS {
                    all.push(pool.acquire().await?);
                }
                drop(all);
                Pool::Sqlx(pool)
            }
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

async fn deadpool(config: Config, timeout: Option<Duration>) -> Result<deadpool_postgres::Pool> {
    let manager = deadpool_postgres::Manager::new(config, NoTls);
    let mut builder = deadpool_postgres::Pool::builder(manager).max_size(CONNECTIONS);
    if timeout.is_some() {
        let timeouts = deadpool_postgres::Timeouts { wait: timeout, create: timeout, recycle: timeout };
        builder = builder.timeouts(timeouts).runtime(deadpool_postgres::Runtime::Tokio1);
    }
    let pool = builder.build()?;
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        all.push(pool.get().await?);
    }
    drop(all);
    Ok(pool)
}

fn for_sqlx(config: &Config) -> PgConnectOptions {
    let mut options = PgConnectOptions::new();
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => options = options.host(host),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => options = options.socket(folder),
        None => {}
    }
    if let Some(port) = config.get_ports().first() {
        options = options.port(*port);
    }
    if let Some(user) = config.get_user() {
        options = options.username(user);
    }
    if let Some(password) = config.get_password() {
        options = options.password(&String::from_utf8_lossy(password));
    }
    options.database(config.get_dbname().unwrap_or("postgres"))
}

/// A pool in use. Clones are the same pool.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Failfast(failfast::Pool, Warnings),
    Deadpool(deadpool_postgres::Pool),
    Bb8(bb8::Pool<bb8_postgres::PostgresConnectionManager<NoTls>>),
    Sqlx(PgPool),
}

/// What a caller got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Served,
    /// A refusal without a wait.
    RefusedAtEntry,
    /// A refusal after a wait.
    Refused,
    /// An error on a connection.
    Failed,
}

impl Pool {
    /// Takes a connection and runs a query on it, as a service does.
    pub(crate) async fn ask(&self, sql: &str) -> Answer {
        match self {
            Self::Failfast(pool, _) => match pool.call().deadline(DEADLINE).batch_execute(sql).await {
                Ok(()) => Answer::Served,
                Err(Error::Shed { reason: ShedReason::TooLate, .. } | Error::AcquireTimeout { .. }) => Answer::Refused,
                Err(Error::Connect { .. }) => Answer::Refused,
                Err(Error::Shed { .. } | Error::CircuitOpen { .. }) => Answer::RefusedAtEntry,
                Err(_) => Answer::Failed,
            },
            Self::Deadpool(pool) => match pool.get().await {
                Ok(client) => served(client.batch_execute(sql).await.is_ok()),
                Err(_) => Answer::Refused,
            },
            Self::Bb8(pool) => match pool.get().await {
                Ok(client) => served(client.batch_execute(sql).await.is_ok()),
                Err(_) => Answer::Refused,
            },
            Self::Sqlx(pool) => match pool.acquire().await {
                Ok(mut client) => {
                    let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
                    served(statement.execute(&mut *client).await.is_ok())
                }
                Err(_) => Answer::Refused,
            },
        }
    }

    /// The first warning of the pool since `from`, with its time, if the pool reports warnings.
    pub(crate) fn first_warning(&self, from: Instant) -> Option<(Instant, String)> {
        match self {
            Self::Failfast(_, warnings) => warnings.first(from),
            _ => None,
        }
    }

    /// Closes the connections that no caller holds.
    pub(crate) async fn close(self) {
        match self {
            Self::Failfast(pool, _) => pool.close(),
            Self::Deadpool(pool) => pool.close(),
            Self::Bb8(_) => {}
            Self::Sqlx(pool) => {
                let _ = tokio::time::timeout(DEADLINE, pool.close()).await;
            }
        }
    }
}

fn served(is_ok: bool) -> Answer {
    if is_ok { Answer::Served } else { Answer::Failed }
}

/// The events of severity warning or higher, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<(Instant, String)>>>);

impl Warnings {
    fn hear(&self, event: &Event) {
        if event.severity() >= Severity::Warning {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), event.to_string()));
        }
    }

    fn first(&self, from: Instant) -> Option<(Instant, String)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(at, _)| *at >= from).cloned()
    }
}
