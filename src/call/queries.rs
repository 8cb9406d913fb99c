//! One statement on a connection of its own: taken, used, given back.

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::Call;
use crate::conn::{Client, RowStream};
use crate::error::Error;

/// Each of these takes a connection as [`get`](Self::get) does, runs one statement as the method of the same name of
/// [`Client`](crate::Client) does, and gives the connection back. Dropped, or late, the statement is stopped on the server, and the
/// connection cleaned up in the background.
///
/// # Errors
///
/// As [`Pool::get`](crate::Pool::get) and every statement of a [`Client`](crate::Client).
impl Call<'_> {
    /// Runs a statement and collects its rows.
    pub async fn query(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.attempts(self.span("query"), |client| async move { client.query(sql, params).await }).await
    }

    /// Runs a statement that returns exactly one row. None, or more than one, is an error.
    pub async fn query_one(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.attempts(self.span("query_one"), |client| async move { client.query_one(sql, params).await }).await
    }

    /// Runs a statement that returns one row or none. More than one is an error.
    pub async fn query_opt(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        self.attempts(self.span("query_opt"), |client| async move { client.query_opt(sql, params).await }).await
    }

    /// Runs a statement and tells how many rows it changed.
    pub async fn execute(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.attempts(self.span("execute"), |client| async move { client.execute(sql, params).await }).await
    }

    /// Runs a statement and streams its rows. The stream keeps the connection until it ends or is dropped.
    pub async fn query_raw<P, I>(self, sql: &str, params: I) -> Result<RowStream<'static>, Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        let params: Vec<P> = params.into_iter().collect();
        let (params, begun) = (&params, self.shared.meter().start());
        let begin = |client: Client| async move {
            let rows = client.query_rows(sql, params).await?.unbound();
            Ok(rows.owning(client, begun))
        };
        let call = Call { is_stream: true, ..self };
        call.attempts(self.span("query_raw"), begin).await
    }

    /// Runs a statement with the types of its parameters, in one message group: nothing is prepared and kept.
    pub async fn query_typed(self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.attempts(self.span("query_typed"), |client| async move { client.query_typed(sql, params).await }).await
    }

    /// Runs statements without parameters, as text, in one go. Unless they say otherwise they are one transaction.
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error> {
        self.attempts(self.span("batch_execute"), |client| async move { client.batch_execute(sql).await }).await
    }

    /// As [`batch_execute`](Self::batch_execute), with the rows, as text.
    pub async fn simple_query(self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.attempts(self.span("simple_query"), |client| async move { client.simple_query(sql).await }).await
    }
}
