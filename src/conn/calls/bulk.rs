//! The methods with which a [`Client`] moves many rows at once: COPY, and one statement for many rows.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Buf;
use tokio_postgres::types::{BorrowToSql, Type};
use tokio_postgres::{CopyOutStream, Error as DriverError};

use super::copy::CopyIn;
use super::copy::binary::{BinaryCopyIn, BinaryCopyOut};
use super::copy::out::CopyOut;
use super::in_flight::InFlightCall;
use super::statements::{AsStatement, Form, Source, preparing};
use crate::conn::Client;
use crate::conn::link::Link;
use crate::error::Error;

/// The call's [`deadline`](crate::Call::deadline) bounds each of these as a whole. Without one,
/// [`query_timeout`](crate::PoolBuilder::query_timeout) bounds each step: each piece of data, and each row's answer.
///
/// # Errors
///
/// As [`query`](Self::query).
impl Client {
    /// Begins a `COPY ... FROM STDIN`. Dropping the sink before [`finish`](CopyIn::finish) has returned aborts the
    /// copy.
    ///
    /// If the copy does not begin, the pool replaces the connection, because the driver loses count of the answers: the
    /// server refuses it (a table that does not exist, no privilege), the statement is not such a COPY, the time is up,
    /// or the future is dropped.
    pub async fn copy_in<T, U>(&self, statement: &T) -> Result<CopyIn<'_, U>, Error>
    where
        T: ?Sized + AsStatement,
        U: Buf + Send + 'static,
    {
        let (driver, link) = (self.driver(), &self.conn().link);
        let uncounted = Uncounted { link, is_uncounted: AtomicBool::new(false) };
        // Not from the cache: the answer to the close of the statement shows whether a failed copy has ended.
        let begin = async {
            let statement = match statement.source() {
                Source::Sql(sql) => preparing(link, driver.prepare(sql)).await?,
                Source::Prepared(statement) => statement.clone(),
            };
            // If this ends without a sink, the driver sends a CopyFail and a Sync all the same. A server that is not in
            // a COPY answers the Sync, and the driver takes that answer for the one to the next request.
            uncounted.is_uncounted.store(true, Relaxed);
            let sink = driver.copy_in(&statement).await;
            if sink.as_ref().err().is_none_or(DriverError::is_closed) {
                uncounted.is_uncounted.store(false, Relaxed);
            }
            let sink = sink?;
            // The server waits for data. It applies none of them before their end.
            link.calls.mark_preparing();
            Ok(sink)
        };
        let begun = self.begun(self.span("copy_in"), pin!(self.without_statement_timeout(begin))).await;
        let (sink, call) = begun?;
        Ok(CopyIn::new(sink, call, self))
    }

    /// Copies rows into a table, with a `COPY ... FROM STDIN (FORMAT binary)`, which is the fastest way. `types` are
    /// the types of the columns that the statement names. Returns how many rows were copied.
    ///
    /// All rows are copied or, after an error, a panic or a dropped future, none. The pool takes each row from `rows`
    /// when it sends it, so an iterator needs no memory for all of them.
    ///
    /// # Errors
    ///
    /// - [`Error::Postgres`] with its [`row`](Error::row) if a value does not fit its type, or the number of values is
    ///   not that of the types.
    /// - As [`query`](Self::query).
    pub async fn copy_in_rows<T, I, R, P>(&self, statement: &T, types: &[Type], rows: I) -> Result<u64, Error>
    where
        T: ?Sized + AsStatement,
        I: IntoIterator<Item = R>,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        let copy = self.copy_in(statement).await?;
        BinaryCopyIn::new(copy, types).write_all(rows).await
    }

    /// Runs a `COPY ... TO STDOUT` and streams its data, with the limits of [`query_raw`](Self::query_raw).
    pub async fn copy_out<T>(&self, statement: &T) -> Result<CopyOut<'_>, Error>
    where
        T: ?Sized + AsStatement,
    {
        let (data, call) = self.begin_copy_out("copy_out", statement).await?;
        Ok(CopyOut::new(data, call))
    }

    /// Runs a `COPY ... TO STDOUT (FORMAT binary)` and streams its rows, with the limits of
    /// [`query_raw`](Self::query_raw). `types` are the types of its columns.
    pub async fn copy_out_rows<T>(&self, statement: &T, types: &[Type]) -> Result<BinaryCopyOut<'_>, Error>
    where
        T: ?Sized + AsStatement,
    {
        let (data, call) = self.begin_copy_out("copy_out_rows", statement).await?;
        Ok(BinaryCopyOut::new(data, types, call))
    }

    /// Runs a statement once for each row of parameters, and returns how many rows were changed in all. All of it is
    /// applied, or nothing.
    ///
    /// The statements are sent without waiting for the answer of the one before, at most 256 rows or about 4 MiB ahead.
    /// So many rows take little more than one round trip. For plain inserts, [`copy_in_rows`](Self::copy_in_rows) is
    /// faster.
    ///
    /// Outside a transaction, the call begins one and commits it. No other call may be under way on the connection, and
    /// none begins meanwhile. In a transaction, the statements belong to it, and after an error it cannot be committed.
    /// In a transaction that was begun by hand, roll back after an error: the driver may have refused a row when the
    /// server had applied others.
    ///
    /// `rows` is cloned, because the statement may have to be prepared again: give a slice, or an iterator over one.
    /// Without rows, the result is 0, and nothing is sent.
    ///
    /// # Errors
    ///
    /// - [`Error::Postgres`] with the [`row`](Error::row) that the server or the driver refused.
    /// - [`Error::CommitUnknown`] if the answer to its own COMMIT was lost.
    /// - [`Error::Busy`] if other calls are under way on the connection.
    /// - As [`query`](Self::query).
    pub async fn execute_many<T, I, R, P>(&self, statement: &T, rows: I) -> Result<u64, Error>
    where
        T: ?Sized + AsStatement,
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        if rows.clone().into_iter().next().is_none() {
            return Ok(0);
        }
        self.many(statement, rows).await
    }

    async fn begin_copy_out<T>(&self, does: &'static str, statement: &T) -> Result<(CopyOutStream, InFlightCall), Error>
    where
        T: ?Sized + AsStatement,
    {
        let (driver, link) = (self.driver(), &self.conn().link);
        let uncounted = Uncounted { link, is_uncounted: AtomicBool::new(false) };
        let is_uncounted = &uncounted.is_uncounted;
        let run = |form| async move {
            let data = match form {
                Form::Prepared(statement) => driver.copy_out(&statement).await,
                Form::Typed(sql, _) => driver.copy_out(sql).await,
            };
            // After a COPY from the client, the server waits for data, and answers nothing else.
            let is_other = |error: &DriverError| error.as_db_error().is_none() && !error.is_closed();
            is_uncounted.store(data.as_ref().is_err_and(is_other), Relaxed);
            data
        };
        let work = self.without_statement_timeout(self.run(statement, run));
        self.begun(self.span(does), pin!(work)).await
    }
}

/// Seals the connection at the end of a method, if the driver may have lost count of the answers. Sealed earlier, the
/// connection would have no error of the server to report.
struct Uncounted<'a> {
    link: &'a Link,
    is_uncounted: AtomicBool,
}

impl Drop for Uncounted<'_> {
    fn drop(&mut self) {
        if self.is_uncounted.load(Relaxed) {
            self.link.calls.mark_uncounted();
            self.link.seal();
        }
    }
}
