//! The query methods of a [`Call`]. Each runs one statement on a connection that it takes and gives back.

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::Call;
use crate::conn::{Client, RowStream};
use crate::error::Error;

/// Each of these methods takes a connection as [`get`](Self::get) does, runs one statement as the method of the same
/// name of [`Client`](crate::Client) does, and gives the connection back. If the statement is late, or the future is
/// dropped, the pool stops the statement on the server and cleans the connection up, in the background.
///
/// A call that failed may run again: see [`RetryConfig`](crate::RetryConfig) and [`idempotent`](Self::idempotent).
///
/// # Errors
///
/// As [`Pool::get`](crate::Pool::get) and [`Client::query`](crate::Client::query).
impl Call<'_> {
    /// Runs a statement and collects its rows.
    pub async fn query(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.attempts(self.span("query"), |client| async move { client.query(sql, params).await }).await
    }

    /// Runs a statement and returns its only row. No row, or more than one, is an error.
    pub async fn query_one(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.attempts(self.span("query_one"), |client| async move { client.query_one(sql, params).await }).await
    }

    /// Runs a statement and returns its row, or `None` without one. More than one row is an error.
    pub async fn query_opt(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        self.attempts(self.span("query_opt"), |client| async move { client.query_opt(sql, params).await }).await
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub async fn execute(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.attempts(self.span("execute"), |client| async move { client.execute(sql, params).await }).await
    }

    /// Runs a statement and streams its rows. The stream owns the connection until it ends or is dropped.
    pub async fn query_raw<P, I>(self, sql: &str, params: I) -> Result<RowStream<'static>, Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        let params: Vec<P> = params.into_iter().collect();
        self.query_rows("query_raw", sql, &params).await
    }

    /// [`query_raw`](Self::query_raw) with the parameters of [`query`](Self::query), which may be `&[]`.
    pub async fn query_stream(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<RowStream<'static>, Error> {
        self.query_rows("query_stream", sql, params).await
    }

    pub(crate) async fn query_rows<P>(
        self,
        does: &'static str,
        sql: &str,
        params: &[P],
    ) -> Result<RowStream<'static>, Error>
    where
        P: BorrowToSql,
    {
        let begun = self.shared.meter().start();
        let begin = |client: Client| async move {
            let rows = client.query_rows(sql, params).await?.unbound();
            Ok(rows.owning(client, begun))
        };
        self.streaming().attempts(self.span(does), begin).await
    }

    /// Runs a statement in one message group, with the given types of its parameters. No prepared statement stays on
    /// the connection.
    ///
    /// The driver learns a type of the database (an enum, a composite, a domain, of an extension) when a connection
    /// meets it first. Here it does so while the rows arrive. If there are more than about 16 KiB of them, the two wait
    /// for each other, and the call ends at its timeout. For such statements, use [`query`](Self::query): it learns the
    /// types before it asks for rows.
    pub async fn query_typed(self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.attempts(self.span("query_typed"), |client| async move { client.query_typed(sql, params).await }).await
    }

    /// Runs statements without parameters in one round trip. They are one transaction unless they contain transaction
    /// commands.
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error> {
        self.attempts(self.span("batch_execute"), |client| async move { client.batch_execute(sql).await }).await
    }

    /// [`batch_execute`](Self::batch_execute) that returns the rows, with their values as text.
    pub async fn simple_query(self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.attempts(self.span("simple_query"), |client| async move { client.simple_query(sql).await }).await
    }
}
