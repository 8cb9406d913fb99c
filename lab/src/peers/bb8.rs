//! bb8 with bb8-postgres: with its defaults, or tuned with a timeout for the wait.

use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

use super::deadpool::read_slowly;
use super::{Answer, Pool, patience};
use crate::callers::Caller;
use crate::terms::Result;
use crate::work::Work;

/// The default of `connection_timeout`.
const DEFAULT: Duration = Duration::from_secs(30);

pub(super) struct Bb8 {
    pool: bb8::Pool<PostgresConnectionManager<NoTls>>,
    is_tuned: bool,
    size: u32,
}

impl Bb8 {
    /// `longest`: the longest deadline of a caller, for a tuned pool.
    pub(super) fn create(config: &Config, size: usize, longest: Option<Duration>) -> Self {
        let size = size as u32;
        let builder = bb8::Pool::builder().max_size(size).min_idle(size);
        let builder = builder.connection_timeout(longest.map_or(DEFAULT, patience));
        let pool = builder.build_unchecked(PostgresConnectionManager::new(config.clone(), NoTls));
        Self { pool, is_tuned: longest.is_some(), size }
    }
}

impl Pool for Bb8 {
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer> {
        async move {
            let limit = if self.is_tuned { patience(caller.deadline) } else { 2 * DEFAULT };
            let Ok(Ok(client)) = timeout(limit, self.pool.get()).await else { return Answer::Refused };
            if caller.work == Work::Unread {
                return Answer::of(&read_slowly(&client).await);
            }
            Answer::of(&client.batch_execute(&caller.work.sql()).await)
        }
        .boxed()
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        async {
            try_join_all((0..self.size).map(|_| self.pool.get())).await?;
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed() // its connections end when it is dropped
    }
}
