//! sqlx: with its defaults, or tuned with a timeout for the wait.

use std::time::Duration;

use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::{sleep, timeout};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::{Answer, Pool, patience};
use crate::callers::Caller;
use crate::terms::{DEADLINE, Result};
use crate::work::{MANY_ROWS, PAUSE, Work};

/// The default of `acquire_timeout`.
const DEFAULT: Duration = Duration::from_secs(30);

pub(super) struct Sqlx {
    pool: PgPool,
    is_tuned: bool,
    size: usize,
}

impl Sqlx {
    /// `longest`: the longest deadline of a caller, for a tuned pool.
    pub(super) fn create(config: &Config, size: usize, longest: Option<Duration>) -> Self {
        let options = PgPoolOptions::new().max_connections(size as u32).min_connections(size as u32);
        let options = options.acquire_timeout(longest.map_or(DEFAULT, patience));
        let pool = options.connect_lazy_with(options_of(config));
        Self { pool, is_tuned: longest.is_some(), size }
    }
}

impl Pool for Sqlx {
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer> {
        async move {
            let limit = if self.is_tuned { patience(caller.deadline) } else { 2 * DEFAULT };
            let Ok(Ok(mut client)) = timeout(limit, self.pool.acquire()).await else { return Answer::Refused };
            if caller.work == Work::Unread {
                return Answer::of(&read_slowly(&mut client).await);
            }
            Answer::of(&sqlx::raw_sql(AssertSqlSafe(caller.work.sql())).execute(&mut *client).await)
        }
        .boxed()
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        async {
            try_join_all((0..self.size).map(|_| self.pool.acquire())).await?;
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            let _ = timeout(DEADLINE, self.pool.close()).await;
        }
        .boxed()
    }
}

/// Reads one row, pauses, and leaves the other rows.
async fn read_slowly(client: &mut sqlx::PgConnection) -> sqlx::Result<()> {
    let mut rows = client.fetch(MANY_ROWS);
    rows.try_next().await?;
    sleep(PAUSE).await;
    rows.try_next().await.map(drop)
}

fn options_of(config: &Config) -> PgConnectOptions {
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
