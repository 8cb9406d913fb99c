//! deadpool-postgres: with its defaults, or tuned with timeouts for the wait, a new connection and a check.

use std::time::Duration;

use deadpool_postgres::{Manager, Runtime, Timeouts};
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, TryStreamExt};
use tokio::time::sleep;
use tokio_postgres::{Config, NoTls};

use super::{Answer, Pool, patience};
use crate::callers::Caller;
use crate::terms::Result;
use crate::work::{MANY_ROWS, PAUSE, Work};

pub(super) struct Deadpool {
    pool: deadpool_postgres::Pool,
    is_tuned: bool,
}

impl Deadpool {
    pub(super) fn create(config: &Config, size: usize, is_tuned: bool) -> Result<Self> {
        let manager = Manager::new(config.clone(), NoTls);
        let pool = deadpool_postgres::Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1).build()?;
        Ok(Self { pool, is_tuned })
    }

    fn timeouts(&self, deadline: Duration) -> Timeouts {
        let limit = self.is_tuned.then(|| patience(deadline));
        Timeouts { wait: limit, create: limit, recycle: limit }
    }
}

impl Pool for Deadpool {
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer> {
        async move {
            let Ok(client) = self.pool.timeout_get(&self.timeouts(caller.deadline)).await else {
                return Answer::Refused;
            };
            if caller.work == Work::Unread {
                return Answer::of(&read_slowly(&client).await);
            }
            Answer::of(&client.batch_execute(&caller.work.sql()).await)
        }
        .boxed()
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let all = try_join_all((0..self.pool.status().max_size).map(|_| self.pool.get())).await?;
            // Together, so that a pooler in front of the server makes all its connections, too.
            try_join_all(all.iter().map(|client| client.batch_execute("SELECT pg_sleep(0.01)"))).await?;
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.pool.close() }.boxed()
    }
}

/// Reads one row, pauses, and leaves the other rows.
pub(super) async fn read_slowly(client: &tokio_postgres::Client) -> std::result::Result<(), tokio_postgres::Error> {
    let parameters: [&str; 0] = [];
    let mut rows = std::pin::pin!(client.query_raw(MANY_ROWS, parameters).await?);
    rows.try_next().await?;
    sleep(PAUSE).await;
    rows.try_next().await.map(drop)
}
