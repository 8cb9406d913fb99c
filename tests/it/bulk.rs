//! Many rows at once: copies that own their connection, rows in the binary format, and one statement for many rows.

mod copies;
mod interrupted;
mod many;
mod rows;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use failfast::{Error, Pool};
use tokio_postgres::types::{BorrowToSql, Type};

use crate::pool::{LONG, shared};

/// Who runs a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pool,
    Call,
    Guard,
    Transaction,
}

const WAYS: [Way; 4] = [Way::Pool, Way::Call, Way::Guard, Way::Transaction];

/// A pool with one connection, and a table `NAME (id int PRIMARY KEY, name text)`.
async fn with_table(name: &str) -> Pool {
    let pool = shared(name).await.max_size(1).acquire_timeout(LONG).build().unwrap();
    pool.batch_execute(&format!("CREATE TABLE {name} (id int PRIMARY KEY, name text)")).await.unwrap();
    pool
}

async fn count(pool: &Pool, table: &str) -> i64 {
    pool.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

impl Way {
    async fn copy_in_rows<I, R, P>(self, pool: &Pool, sql: &str, types: &[Type], rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R>,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        match self {
            Self::Pool => pool.copy_in_rows(sql, types, rows).await,
            Self::Call => pool.call().name("rows").copy_in_rows(sql, types, rows).await,
            Self::Guard => pool.get().await?.copy_in_rows(sql, types, rows).await,
            Self::Transaction => {
                let work = async |tx: failfast::Transaction| tx.copy_in_rows(sql, types, rows).await;
                pool.transaction_once(work).await
            }
        }
    }

    async fn execute_many<I, R, P>(self, pool: &Pool, sql: &str, rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        match self {
            Self::Pool => pool.execute_many(sql, rows).await,
            Self::Call => pool.call().name("rows").execute_many(sql, rows).await,
            Self::Guard => pool.get().await?.execute_many(sql, rows).await,
            Self::Transaction => {
                pool.transaction_once(async |tx: failfast::Transaction| tx.execute_many(sql, rows).await).await
            }
        }
    }
}

/// Polls the future at most so many times. Returns `None` if it has not ended by then.
async fn polled<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
