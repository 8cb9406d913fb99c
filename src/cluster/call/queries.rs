//! The query methods of a [`ClusterCall`]. Each runs one statement on the host that the call chooses.

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::ClusterCall;
use crate::conn::{Client, RowStream};
use crate::error::Error;

/// Each method does the same as the method of [`Call`](crate::Call) with this name, on the pool of the host that serves
/// the call.
///
/// # Errors
///
/// - As the method of [`Call`](crate::Call).
/// - [`Error::NoPrimary`], [`Error::TwoPrimaries`] or [`Error::TwoSystems`] if the call needs the primary, and there is
///   none.
/// - [`Error::NoFreshReplica`] if no host may serve a read.
impl ClusterCall<'_> {
    /// Runs a statement and collects its rows.
    pub async fn query(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.statement().run(|call| call.query(sql, params)).await
    }

    /// Runs a statement and returns its only row. No row, or more than one, is an error.
    pub async fn query_one(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.statement().run(|call| call.query_one(sql, params)).await
    }

    /// Runs a statement and returns its row, or `None` without one. More than one row is an error.
    pub async fn query_opt(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        self.statement().run(|call| call.query_opt(sql, params)).await
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub async fn execute(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.statement().run(|call| call.execute(sql, params)).await
    }

    /// Runs a statement and streams its rows. The stream owns the connection until it ends or is dropped.
    pub async fn query_raw<P, I>(self, sql: &str, params: I) -> Result<RowStream<'static>, Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        let params: Vec<P> = params.into_iter().collect();
        self.statement().run(|call| call.query_rows("query_raw", sql, &params)).await
    }

    /// [`query_raw`](Self::query_raw) with the parameters of [`query`](Self::query), which may be `&[]`.
    pub async fn query_stream(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<RowStream<'static>, Error> {
        self.statement().run(|call| call.query_stream(sql, params)).await
    }

    /// Runs a statement in one message group, with the given types of its parameters. No prepared statement stays on
    /// the connection.
    pub async fn query_typed(self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.statement().run(|call| call.query_typed(sql, params)).await
    }

    /// Runs statements without parameters in one round trip. They are one transaction unless they contain transaction
    /// commands.
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error> {
        self.statement().run(|call| call.batch_execute(sql)).await
    }

    /// [`batch_execute`](Self::batch_execute) that returns the rows, with their values as text.
    pub async fn simple_query(self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.statement().run(|call| call.simple_query(sql)).await
    }

    /// Takes a connection for several statements. What a replica has proven is checked when the connection is taken,
    /// and not again. As [`Call::get`](crate::Call::get).
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), without those of a statement.
    pub async fn get(self) -> Result<Client, Error> {
        self.route().run(|call| call.get()).await
    }
}
