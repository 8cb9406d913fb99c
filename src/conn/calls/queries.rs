//! The tracked methods of a [`Client`]: each under the query timeout or the caller's deadline, each stopped on the server if it is given up.

use std::future::Future;
use std::sync::Arc;

use bytes::Buf;
use tokio::time;
use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage, Statement};

use super::copy::{CopyIn, CopyOut};
use super::in_flight::InFlightCall;
use super::rows::RowStream;
use super::statements::{AsStatement, Form, Source, preparing};
use crate::clock::now;
use crate::conn::{Client, settle};
use crate::error::Error;
use crate::policy::Deadline;
use crate::telemetry::{Fault, Server, Span, Stamp};

/// Statements are given as SQL, which is prepared once for each connection and kept (see
/// [`statement_cache`](crate::PoolBuilder::statement_cache)), or as a [`Statement`] prepared on this connection.
///
/// Each of these methods ends at the lease's [`deadline`](crate::Call::deadline) or, without one, after
/// [`query_timeout`](crate::PoolBuilder::query_timeout), with [`Error::QueryTimeout`]; then, or when its future is dropped, the statement is
/// stopped on the server, in the background. Two of them may run at once (`tokio::join!`): one that times out never stops the other.
///
/// # Errors
///
/// [`Error::QueryTimeout`]; [`Error::Busy`] if a statement given up before was not gone in time; [`Error::Postgres`] for what the server
/// answers, or a lost connection.
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
        self.tracked(self.span("query"), self.run(statement, run)).await.inspect(|rows| self.look_at(rows.first()))
    }

    /// Runs a statement that returns exactly one row. None, or more than one, is an error.
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
        self.tracked(self.span("query_one"), self.run(statement, run)).await.inspect(|row| self.look_at(Some(row)))
    }

    /// Runs a statement that returns one row or none. More than one is an error.
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
        self.tracked(self.span("query_opt"), self.run(statement, run)).await.inspect(|row| self.look_at(row.as_ref()))
    }

    /// Runs a statement and tells how many rows it changed.
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
        self.tracked(self.span("execute"), self.run(statement, run)).await
    }

    /// Runs a statement and streams its rows. The query timeout then bounds the wait for each row, and the deadline, if there is one, the
    /// whole.
    ///
    /// A stream dropped before its end stops the statement. While one is held and not read, everything else on this connection waits.
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

    /// [`query_raw`](Self::query_raw) with parameters that are still needed afterwards.
    pub(crate) async fn query_rows<T, P>(&self, statement: &T, params: &[P]) -> Result<RowStream<'_>, Error>
    where
        T: ?Sized + AsStatement,
        P: BorrowToSql,
    {
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
        let work = self.unhurried(self.run(statement, run));
        let (rows, flight) = self.begun(self.span("query_raw"), work).await?;
        Ok(RowStream::new(rows, flight, Arc::clone(&self.conn().statements)))
    }

    /// Runs a statement with the types of its parameters, in one message group: nothing is prepared and kept.
    pub async fn query_typed(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.tracked(self.span("query_typed"), self.driver().query_typed(sql, params))
            .await
            .inspect(|rows| self.look_at(rows.first()))
    }

    /// Runs statements without parameters, as text, in one go. Unless they say otherwise they are one transaction.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        self.batch("batch_execute", sql).await
    }

    /// As [`batch_execute`](Self::batch_execute), with the rows, as text.
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.tracked(self.span("simple_query"), self.driver().simple_query(sql)).await
    }

    /// Prepares a statement. It belongs to this connection and is forgotten by it when it is dropped.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        self.tracked(self.span("prepare"), preparing(&self.conn().link, self.driver().prepare(sql))).await
    }

    /// Prepares a statement with the types of its parameters, those that are given.
    pub async fn prepare_typed(&self, sql: &str, types: &[Type]) -> Result<Statement, Error> {
        let work = preparing(&self.conn().link, self.driver().prepare_typed(sql, types));
        self.tracked(self.span("prepare_typed"), work).await
    }

    /// Prepares a statement, or finds it in the connection's cache, as the other methods do with SQL that they are given.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Statement, Error> {
        let work = preparing(&self.conn().link, self.conn().statements.prepare(self.driver(), sql));
        self.tracked(self.span("prepare"), work).await
    }

    /// Begins a `COPY ... FROM STDIN`. A sink dropped before it is finished aborts the copy.
    ///
    /// A copy that the server refuses (a table that does not exist, no privilege) costs the connection: the driver loses count of the
    /// answers then. It is replaced.
    pub async fn copy_in<T, U>(&self, statement: &T) -> Result<CopyIn<'_, U>, Error>
    where
        T: ?Sized + AsStatement,
        U: Buf + Send + 'static,
    {
        let driver = self.driver();
        // Not from the cache: what the server answers when the statement is closed tells whether a failed copy is over.
        let link = &self.conn().link;
        let begin = async {
            let sink = match statement.source() {
                Source::Sql(sql) => driver.copy_in(&preparing(link, driver.prepare(sql)).await?).await,
                Source::Prepared(statement) => driver.copy_in(statement).await,
            }?;
            // The server waits for data. Without their end it applies none of them.
            link.calls.mark_preparing();
            Ok(sink)
        };
        let (sink, flight) = self.begun(self.span("copy_in"), self.unhurried(begin)).await?;
        Ok(CopyIn::new(sink, flight, self.options()))
    }

    /// Runs a `COPY ... TO STDOUT` and streams its data. Bounds as for [`query_raw`](Self::query_raw).
    pub async fn copy_out<T>(&self, statement: &T) -> Result<CopyOut<'_>, Error>
    where
        T: ?Sized + AsStatement,
    {
        let driver = self.driver();
        let run = |form| async move {
            match form {
                Form::Prepared(statement) => driver.copy_out(&statement).await,
                Form::Typed(sql, _) => driver.copy_out(sql).await,
            }
        };
        let work = self.unhurried(self.run(statement, run));
        let (data, flight) = self.begun(self.span("copy_out"), work).await?;
        Ok(CopyOut::new(data, flight))
    }
}

impl Client {
    /// [`batch_execute`](Self::batch_execute) by another name.
    pub(crate) async fn batch(&self, does: &'static str, sql: &str) -> Result<(), Error> {
        self.tracked(self.span(does), self.driver().batch_execute(sql)).await
    }

    /// Of a statement that begins.
    pub(crate) fn span(&self, does: &'static str) -> Span {
        let conn = self.conn();
        conn.handling.tracer.statement(self.options().operation, does, &conn.server)
    }

    /// The operation that the lease was taken for is over; it began at `begun`.
    pub(super) fn measure_whole(&self, begun: Stamp, fault: Option<Fault>) {
        self.conn().link.meter.operated_since(begun, self.options().operation, fault);
    }

    /// Where it leads.
    pub(crate) fn server(&self) -> &Server {
        &self.conn().server
    }

    /// A call from its begin to its answer.
    pub(crate) async fn tracked<T>(
        &self,
        span: Span,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let (value, flight) = self.begun(span, work).await?;
        flight.answered();
        Ok(value)
    }

    /// A call from its begin to its first answer: more may come. Whatever `work` sends is stopped if it is not over in time.
    async fn begun<T>(
        &self,
        span: Span,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<(T, InFlightCall), Error> {
        let limit = self.options().limit(now());
        let flight = self.begin(limit, span).await?;
        flight.bounded(limit, work).await
    }

    /// Nothing is sent for a call whose time is up.
    pub(crate) async fn begin(&self, limit: Deadline, span: Span) -> Result<InFlightCall, Error> {
        let link = &self.conn().link;
        self.conn().statements.look_for_changes(link);
        self.conn().statements.renew(self.driver());
        if let Some(flight) = InFlightCall::begin_at_once(link, self.options()) {
            let flight = flight.with_span(span);
            return if limit.has_passed(flight.begun) { Err(flight.not_begun()) } else { Ok(flight) };
        }
        let clean = async {
            let flight = InFlightCall::begin(link, self.options()).await;
            // If it is not clear, the connection has ended: its driver says so to the call.
            settle::clear_up(link, self.driver()).await;
            flight.restarted()
        };
        let begun = now();
        match time::timeout_at(limit.instant().into(), clean).await {
            Ok(flight) => Ok(flight.with_span(span)),
            Err(_) => {
                let (waited, process_id) = (now().saturating_duration_since(begun), link.process_id());
                let error = Error::Busy { waited, process_id };
                if !self.options().is_part {
                    link.meter.operated(self.options().operation, waited, Some(Fault::from(&error)));
                }
                Err(span.with(error))
            }
        }
    }

    /// The first row of an answer may show that a type has changed.
    fn look_at(&self, first: Option<&Row>) {
        if let Some(row) = first {
            self.conn().statements.on_row(row);
        }
    }

    async fn run<'a, T, Q, F>(
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
}

/// Parameters with their types. One too many gets a type that nothing fits, so that it is not lost silently.
fn typed<'a>(params: &[&'a (dyn ToSql + Sync)], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let types = types.iter().cloned().chain(std::iter::repeat(Type::UNKNOWN));
    params.iter().copied().zip(types).collect()
}
