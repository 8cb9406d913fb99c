//! The methods with which a [`Client`] runs statements. `tracked.rs` has what they have in common.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage, Statement};

use super::rows::RowStream;
use super::statements::{AsStatement, Form, preparing};
use crate::conn::Client;
use crate::error::Error;

/// A statement is given as SQL, which the connection prepares once and keeps (see
/// [`statement_cache`](crate::PoolBuilder::statement_cache)), or as a [`Statement`] that was prepared on this
/// connection.
///
/// Each of these methods ends at the lease's [`deadline`](crate::Call::deadline) or, without a deadline, after
/// [`query_timeout`](crate::PoolBuilder::query_timeout). The pool then stops the statement on the server, in the
/// background. The pool does the same when the future is dropped. Two methods may run at once (`tokio::join!`). If one
/// times out, the other continues.
///
/// # Errors
///
/// - [`Error::QueryTimeout`] if the statement was not done in time.
/// - [`Error::Busy`] if an earlier statement, which had timed out or was dropped, could not be stopped in time.
/// - [`Error::Postgres`] if the server answers with an error, or the connection is lost.
impl Client {
    /// Runs a statement and collects its rows.
    pub async fn query<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error>
    where
        T: ?Sized + AsStatement,
    {
        let driver = self.driver();
        let run = |form| async move {
            match form {
                Form::Prepared(statement) => driver.query(&statement, params).await,
                Form::Typed(sql, types) => driver.query_typed(sql, &typed(params, &types)).await,
            }
        };
        self.tracked(self.span("query"), pin!(self.run(statement, run)))
            .await
            .inspect(|rows| self.look_at(rows.first()))
    }

    /// Runs a statement and returns its only row. No row, or more than one, is an error.
    pub async fn query_one<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error>
    where
        T: ?Sized + AsStatement,
    {
        let driver = self.driver();
        let run = |form| async move {
            match form {
                Form::Prepared(statement) => driver.query_one(&statement, params).await,
                Form::Typed(sql, types) => driver.query_typed_one(sql, &typed(params, &types)).await,
            }
        };
        self.tracked(self.span("query_one"), pin!(self.run(statement, run)))
            .await
            .inspect(|row| self.look_at(Some(row)))
    }

    /// Runs a statement and returns its row, or `None` without one. More than one row is an error.
    pub async fn query_opt<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error>
    where
        T: ?Sized + AsStatement,
    {
        let driver = self.driver();
        let run = |form| async move {
            match form {
                Form::Prepared(statement) => driver.query_opt(&statement, params).await,
                Form::Typed(sql, types) => driver.query_typed_opt(sql, &typed(params, &types)).await,
            }
        };
        self.tracked(self.span("query_opt"), pin!(self.run(statement, run)))
            .await
            .inspect(|row| self.look_at(row.as_ref()))
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub async fn execute<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error>
    where
        T: ?Sized + AsStatement,
    {
        let driver = self.driver();
        let run = |form| async move {
            match form {
                Form::Prepared(statement) => driver.execute(&statement, params).await,
                Form::Typed(sql, types) => driver.execute_typed(sql, &typed(params, &types)).await,
            }
        };
        self.tracked(self.span("execute"), pin!(self.run(statement, run))).await
    }

    /// Runs a statement and streams its rows. The query timeout bounds each wait for a row, and the deadline, if there
    /// is one, bounds the whole stream.
    ///
    /// Dropping the stream before its end stops the statement. While a stream has unread rows, all other statements on
    /// this connection wait.
    pub async fn query_raw<T, P, I>(&self, statement: &T, params: I) -> Result<RowStream<'_>, Error>
    where
        T: ?Sized + AsStatement,
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        let params: Vec<P> = params.into_iter().collect();
        self.query_rows(statement, &params).await
    }

    /// [`query_raw`](Self::query_raw) with the parameters of [`query`](Self::query), which may be `&[]`.
    pub async fn query_stream<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<RowStream<'_>, Error>
    where
        T: ?Sized + AsStatement,
    {
        self.query_rows(statement, params).await
    }

    /// [`query_raw`](Self::query_raw) with borrowed parameters, so that a retry can use them again.
    pub(crate) async fn query_rows<T, P>(&self, statement: &T, params: &[P]) -> Result<RowStream<'_>, Error>
    where
        T: ?Sized + AsStatement,
        P: BorrowToSql,
    {
        #[cfg(feature = "testing")]
        if self.pretends_idle_reader() {
            return Box::pin(self.idle_stream()).await;
        }
        let driver = self.driver();
        let run = |form| async move {
            let params = params.iter().map(BorrowToSql::borrow_to_sql);
            match form {
                Form::Prepared(statement) => driver.query_raw(&statement, params).await,
                Form::Typed(sql, types) => {
                    let types = types.iter().cloned().chain(std::iter::repeat(Type::UNKNOWN));
                    driver.query_typed_raw(sql, params.zip(types)).await
                }
            }
        };
        let work = self.without_statement_timeout(self.run(statement, run));
        let (rows, call) = self.begun(self.span("query_raw"), pin!(work)).await?;
        Ok(RowStream::new(rows, call, Arc::clone(&self.conn().statements)))
    }

    /// Runs a statement in one message group, with the given types of its parameters. No prepared statement stays on
    /// the connection.
    ///
    /// The driver learns a type of the database (an enum, a composite, a domain, of an extension) when a connection
    /// meets it first. Here it does so while the rows arrive. If there are more than about 16 KiB of them, the two wait
    /// for each other, and the call ends at its timeout. For such statements, use [`query`](Self::query): it learns the
    /// types before it asks for rows.
    pub async fn query_typed(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.tracked(self.span("query_typed"), pin!(self.driver().query_typed(sql, params)))
            .await
            .inspect(|rows| self.look_at(rows.first()))
    }

    /// Runs statements without parameters in one round trip. They are one transaction unless they contain transaction
    /// commands.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        self.tracked(self.span("batch_execute"), pin!(self.driver().batch_execute(sql))).await
    }

    /// [`batch_execute`](Self::batch_execute) that returns the rows, with their values as text.
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.tracked(self.span("simple_query"), pin!(self.driver().simple_query(sql))).await
    }

    /// Prepares a statement for this connection. When the statement is dropped, the server forgets it.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        self.tracked(self.span("prepare"), pin!(preparing(&self.conn().link, self.driver().prepare(sql)))).await
    }

    /// Prepares a statement with the given types of its first parameters. The server infers the other types.
    pub async fn prepare_typed(&self, sql: &str, types: &[Type]) -> Result<Statement, Error> {
        let work = preparing(&self.conn().link, self.driver().prepare_typed(sql, types));
        self.tracked(self.span("prepare_typed"), pin!(work)).await
    }

    /// Prepares a statement and keeps it in the connection's cache, or returns the one that is there. The other methods
    /// do the same with SQL.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Statement, Error> {
        let work = preparing(&self.conn().link, self.conn().statements.prepare(self.driver(), sql));
        self.tracked(self.span("prepare"), pin!(work)).await
    }
}

impl Client {
    /// Runs a statement in the form that suits, prepared or with the types of its parameters.
    pub(super) async fn run<'a, T, Q, F>(
        &'a self,
        statement: &'a Q,
        run: impl Fn(Form<'a>) -> F,
    ) -> Result<T, tokio_postgres::Error>
    where
        Q: ?Sized + AsStatement,
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let conn = self.conn();
        let source = statement.source();
        conn.statements.run(self.driver(), &conn.link, source, self.options().is_cached, run).await
    }

    /// The first row of an answer may show that a type has changed.
    fn look_at(&self, first: Option<&Row>) {
        if let Some(row) = first {
            self.conn().statements.on_row(row);
        }
    }
}

/// Pairs parameters with their types. A parameter too many gets a type that no value fits, so that the driver refuses
/// it.
fn typed<'a>(params: &[&'a (dyn ToSql + Sync)], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let types = types.iter().cloned().chain(std::iter::repeat(Type::UNKNOWN));
    params.iter().copied().zip(types).collect()
}
