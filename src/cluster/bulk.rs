//! The methods of a [`Cluster`] for many rows. They run on the primary.

use std::future::Future;

use bytes::Buf;
use tokio_postgres::types::{BorrowToSql, ToSql, Type};

use super::Cluster;
use crate::conn::{BinaryCopyOut, CopyIn, CopyOut, RowStream};
use crate::error::Error;

impl Cluster {
    /// Runs on the primary: see [`Pool::query_stream`](crate::Pool::query_stream).
    ///
    /// # Errors
    ///
    /// As [`Pool::query_stream`](crate::Pool::query_stream) and [`primary`](Self::primary).
    #[track_caller]
    pub fn query_stream(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<RowStream<'static>, Error>> {
        self.call().query_stream(sql, params)
    }

    /// Runs on the primary: see [`Pool::copy_in`](crate::Pool::copy_in).
    ///
    /// # Errors
    ///
    /// As [`Pool::copy_in`](crate::Pool::copy_in) and [`primary`](Self::primary).
    #[track_caller]
    pub fn copy_in<U>(&self, sql: &str) -> impl Future<Output = Result<CopyIn<'static, U>, Error>>
    where
        U: Buf + Send + 'static,
    {
        self.call().copy_in(sql)
    }

    /// Runs on the primary: see [`Pool::copy_in_rows`](crate::Pool::copy_in_rows).
    ///
    /// # Errors
    ///
    /// As [`Pool::copy_in_rows`](crate::Pool::copy_in_rows) and [`primary`](Self::primary).
    #[track_caller]
    pub fn copy_in_rows<I, R, P>(&self, sql: &str, types: &[Type], rows: I) -> impl Future<Output = Result<u64, Error>>
    where
        I: IntoIterator<Item = R>,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        self.call().copy_in_rows(sql, types, rows)
    }

    /// Runs on the primary: see [`Pool::copy_out`](crate::Pool::copy_out).
    ///
    /// # Errors
    ///
    /// As [`Pool::copy_out`](crate::Pool::copy_out) and [`primary`](Self::primary).
    #[track_caller]
    pub fn copy_out(&self, sql: &str) -> impl Future<Output = Result<CopyOut<'static>, Error>> {
        self.call().copy_out(sql)
    }

    /// Runs on the primary: see [`Pool::copy_out_rows`](crate::Pool::copy_out_rows).
    ///
    /// # Errors
    ///
    /// As [`Pool::copy_out_rows`](crate::Pool::copy_out_rows) and [`primary`](Self::primary).
    #[track_caller]
    pub fn copy_out_rows(
        &self,
        sql: &str,
        types: &[Type],
    ) -> impl Future<Output = Result<BinaryCopyOut<'static>, Error>> {
        self.call().copy_out_rows(sql, types)
    }

    /// Runs on the primary: see [`Pool::execute_many`](crate::Pool::execute_many).
    ///
    /// # Errors
    ///
    /// As [`Pool::execute_many`](crate::Pool::execute_many) and [`primary`](Self::primary).
    #[track_caller]
    pub fn execute_many<I, R, P>(&self, sql: &str, rows: I) -> impl Future<Output = Result<u64, Error>>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        self.call().execute_many(sql, rows)
    }
}
