//! The methods of a [`Call`] that move many rows at once: COPY, and one statement for many rows.

use bytes::{Buf, Bytes};
use tokio_postgres::types::{BorrowToSql, Type};

use super::Call;
use super::attempts::no_fallback;
use crate::conn::{BinaryCopyIn, BinaryCopyOut, Client, CopyIn, CopyOut, Transaction};
use crate::error::Error;

/// Each of these methods takes a connection as [`get`](Self::get) does, and gives it back at its end, or at the end of
/// the copy that it returns. The call's [`deadline`](Self::deadline) bounds all of it.
///
/// A COPY may run again before it has begun, and never after that.
///
/// # Errors
///
/// As [`Pool::get`](crate::Pool::get) and [`Client::query`](crate::Client::query).
impl Call<'_> {
    /// Begins a `COPY ... FROM STDIN`. The sink owns the connection until the copy ends or is dropped.
    pub async fn copy_in<U>(self, sql: &str) -> Result<CopyIn<'static, U>, Error>
    where
        U: Buf + Send + 'static,
    {
        let begun = self.shared.meter().start();
        let begin = |client: Client| async move {
            let copy = client.copy_in(sql).await?.unbound();
            Ok(copy.owning(client, begun))
        };
        self.streaming().attempts(self.span("copy_in"), begin).await
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
        let begun = self.shared.meter().start();
        let begin = |client: Client| async move {
            let data = client.copy_out(sql).await?.unbound();
            Ok(data.owning(client, begun))
        };
        self.streaming().attempts(self.span("copy_out"), begin).await
    }

    /// Runs a `COPY ... TO STDOUT (FORMAT binary)` and streams its rows. The stream owns the connection until it ends
    /// or is dropped.
    pub async fn copy_out_rows(self, sql: &str, types: &[Type]) -> Result<BinaryCopyOut<'static>, Error> {
        let begun = self.shared.meter().start();
        let begin = |client: Client| async move {
            let rows = client.copy_out_rows(sql, types).await?.unbound();
            Ok(rows.owning(client, begun))
        };
        self.streaming().attempts(self.span("copy_out_rows"), begin).await
    }

    /// Runs a statement once for each row of parameters in one transaction: see
    /// [`Client::execute_many`](crate::Client::execute_many). Like [`transaction`](Self::transaction), it may run
    /// several times, and has the call's [`options`](Self::options).
    pub async fn execute_many<I, R, P>(self, sql: &str, rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        self.execute_many_or(sql, rows, no_fallback).await
    }

    /// [`execute_many`](Self::execute_many) with a fallback.
    pub(super) async fn execute_many_or<I, R, P>(
        self,
        sql: &str,
        rows: I,
        instead: impl FnOnce(&Error) -> Option<u64>,
    ) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        if rows.clone().into_iter().next().is_none() {
            return Ok(0);
        }
        let work = |tx: Transaction| {
            let rows = rows.clone();
            async move { tx.execute_many(sql, rows).await.map_err(Error::before_commit) }
        };
        self.run_attempts(self.span("execute_many"), |call, span| call.attempt(span, &work), instead).await
    }
}
