//! The methods of a [`ClusterCall`] that move many rows at once.

use bytes::{Buf, Bytes};
use tokio_postgres::types::{BorrowToSql, Type};

use super::ClusterCall;
use crate::conn::{BinaryCopyIn, BinaryCopyOut, CopyIn, CopyOut};
use crate::error::Error;

/// Each method does the same as the method of [`Call`](crate::Call) with this name, on the pool of the host that serves
/// the call.
///
/// # Errors
///
/// As [`query`](Self::query).
impl ClusterCall<'_> {
    /// Begins a `COPY ... FROM STDIN`. The sink owns the connection until the copy ends or is dropped.
    pub async fn copy_in<U>(self, sql: &str) -> Result<CopyIn<'static, U>, Error>
    where
        U: Buf + Send + 'static,
    {
        self.route().run(|call| call.copy_in(sql)).await
    }

    /// Copies rows into a table, all or none: see [`Client::copy_in_rows`](crate::Client::copy_in_rows).
    pub async fn copy_in_rows<I, R, P>(self, sql: &str, types: &[Type], rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R>,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        let copy = self.copy_in::<Bytes>(sql).await?;
        Box::pin(BinaryCopyIn::new(copy, types).write_all(rows)).await
    }

    /// Runs a `COPY ... TO STDOUT` and streams its data. The stream owns the connection until it ends or is dropped.
    pub async fn copy_out(self, sql: &str) -> Result<CopyOut<'static>, Error> {
        self.statement().run(|call| call.copy_out(sql)).await
    }

    /// Runs a `COPY ... TO STDOUT (FORMAT binary)` and streams its rows. The stream owns the connection until it ends
    /// or is dropped.
    pub async fn copy_out_rows(self, sql: &str, types: &[Type]) -> Result<BinaryCopyOut<'static>, Error> {
        self.statement().run(|call| call.copy_out_rows(sql, types)).await
    }

    /// Runs a statement once for each row of parameters in one transaction: see
    /// [`Client::execute_many`](crate::Client::execute_many).
    pub async fn execute_many<I, R, P>(self, sql: &str, rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        self.route().run(|call| call.execute_many(sql, rows.clone())).await
    }
}
