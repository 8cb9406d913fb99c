//! The methods of a [`Pool`] for many rows: streams that own their connection, COPY, and one statement for many rows.

use std::future::Future;

use bytes::Buf;
use tokio_postgres::types::{BorrowToSql, ToSql, Type};

use super::Pool;
use crate::conn::{BinaryCopyOut, CopyIn, CopyOut, RowStream};
use crate::error::Error;

impl Pool {
    /// [`query`](Self::query) that streams the rows. The stream owns the connection until it ends or is dropped, so it
    /// can be handed to whoever reads it. The query timeout bounds each wait for a row.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// use futures_util::TryStreamExt;
    ///
    /// let rows = pool.query_stream("SELECT name FROM items WHERE stock > $1", &[&0_i32]).await?;
    /// // For example the body of an answer: `axum::body::Body::from_stream(lines)`.
    /// let lines = rows.map_ok(|row| row.get::<_, String>(0) + "\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query). The stream ends with the error that ends it.
    #[track_caller]
    pub fn query_stream(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<RowStream<'static>, Error>> {
        self.call().query_stream(sql, params)
    }

    /// Begins a `COPY ... FROM STDIN`. The sink owns the connection until the copy ends or is dropped. The query
    /// timeout bounds each step.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let mut copy = pool.copy_in("COPY items (id, name) FROM STDIN").await?;
    /// copy.send(&b"1\tapple\n2\tpear\n"[..]).await?;
    /// println!("{} rows", copy.finish().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn copy_in<U>(&self, sql: &str) -> impl Future<Output = Result<CopyIn<'static, U>, Error>>
    where
        U: Buf + Send + 'static,
    {
        self.call().copy_in(sql)
    }

    /// Copies rows into a table with a `COPY ... FROM STDIN (FORMAT binary)`, all or none. `types` are the types of the
    /// columns that the statement names. Returns how many rows were copied. This is the fastest way to insert many
    /// rows: see [`Client::copy_in_rows`](crate::Client::copy_in_rows).
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// use failfast::tokio_postgres::types::{ToSql, Type};
    ///
    /// let items = vec![(1_i64, "apple".to_owned()), (2, "pear".to_owned())];
    /// let rows = items.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
    /// let sql = "COPY items (id, name) FROM STDIN (FORMAT binary)";
    /// let call = pool.call().deadline(std::time::Duration::from_secs(60));
    /// assert_eq!(call.copy_in_rows(sql, &[Type::INT8, Type::TEXT], rows).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query). [`Error::row`] is the row that could not be sent.
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

    /// Runs a `COPY ... TO STDOUT` and streams its data. The stream owns the connection until it ends or is dropped.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query). The stream ends with the error that ends it.
    #[track_caller]
    pub fn copy_out(&self, sql: &str) -> impl Future<Output = Result<CopyOut<'static>, Error>> {
        self.call().copy_out(sql)
    }

    /// Runs a `COPY ... TO STDOUT (FORMAT binary)` and streams its rows. `types` are the types of its columns. The
    /// stream owns the connection until it ends or is dropped.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query). The stream ends with the error that ends it.
    #[track_caller]
    pub fn copy_out_rows(
        &self,
        sql: &str,
        types: &[Type],
    ) -> impl Future<Output = Result<BinaryCopyOut<'static>, Error>> {
        self.call().copy_out_rows(sql, types)
    }

    /// Runs a statement once for each row of parameters, in one transaction. Returns how many rows were changed in all.
    /// The statements do not wait for one another, so many rows take little more than one round trip: see
    /// [`Client::execute_many`](crate::Client::execute_many). After a conflict with another transaction, all of it runs
    /// again, as in [`transaction`](Self::transaction).
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// use failfast::tokio_postgres::types::ToSql;
    ///
    /// let prices = vec![(1_i64, 250_i32), (2, 300)];
    /// let rows = prices.iter().map(|(id, cents)| [id as &(dyn ToSql + Sync), cents]);
    /// let changed = pool.execute_many("UPDATE items SET cents = $2 WHERE id = $1", rows).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction). [`Error::row`] is the row that failed.
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
