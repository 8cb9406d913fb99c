//! What a generator writes once: its own trait for whatever runs statements, with implementations for deadpool's client
//! and transaction. Its users cannot implement it for other types.

use std::future::Future;

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::types::{BorrowToSql, ToSql};
use tokio_postgres::{Error, Row, RowStream, Statement};

type Param<'a> = &'a (dyn ToSql + Sync);

pub(super) trait GenericClient: Send + Sync {
    fn prepare(&self, sql: &str) -> impl Future<Output = Result<Statement, Error>> + Send;
    fn execute(&self, stmt: &Statement, params: &[Param<'_>]) -> impl Future<Output = Result<u64, Error>> + Send;
    fn query_one(&self, stmt: &Statement, params: &[Param<'_>]) -> impl Future<Output = Result<Row, Error>> + Send;
    fn query_opt(
        &self,
        stmt: &Statement,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send;
    fn query_raw<P, I>(&self, stmt: &Statement, params: I) -> impl Future<Output = Result<RowStream, Error>> + Send
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P> + Send + Sync,
        I::IntoIter: ExactSizeIterator;
}

impl GenericClient for Client {
    async fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        self.prepare_cached(sql).await
    }

    async fn execute(&self, stmt: &Statement, params: &[Param<'_>]) -> Result<u64, Error> {
        tokio_postgres::Client::execute(self, stmt, params).await
    }

    async fn query_one(&self, stmt: &Statement, params: &[Param<'_>]) -> Result<Row, Error> {
        tokio_postgres::Client::query_one(self, stmt, params).await
    }

    async fn query_opt(&self, stmt: &Statement, params: &[Param<'_>]) -> Result<Option<Row>, Error> {
        tokio_postgres::Client::query_opt(self, stmt, params).await
    }

    async fn query_raw<P, I>(&self, stmt: &Statement, params: I) -> Result<RowStream, Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P> + Send + Sync,
        I::IntoIter: ExactSizeIterator,
    {
        tokio_postgres::Client::query_raw(self, stmt, params).await
    }
}

impl GenericClient for Transaction<'_> {
    async fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        self.prepare_cached(sql).await
    }

    async fn execute(&self, stmt: &Statement, params: &[Param<'_>]) -> Result<u64, Error> {
        tokio_postgres::Transaction::execute(self, stmt, params).await
    }

    async fn query_one(&self, stmt: &Statement, params: &[Param<'_>]) -> Result<Row, Error> {
        tokio_postgres::Transaction::query_one(self, stmt, params).await
    }

    async fn query_opt(&self, stmt: &Statement, params: &[Param<'_>]) -> Result<Option<Row>, Error> {
        tokio_postgres::Transaction::query_opt(self, stmt, params).await
    }

    async fn query_raw<P, I>(&self, stmt: &Statement, params: I) -> Result<RowStream, Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P> + Send + Sync,
        I::IntoIter: ExactSizeIterator,
    {
        tokio_postgres::Transaction::query_raw(self, stmt, params).await
    }
}

/// Binds all parameters of a statement by one struct.
pub(super) trait Params<'c, 'a, 's, P, O, C> {
    fn params(&'s mut self, client: &'c C, params: &'a P) -> O;
}

/// A statement that is prepared at its first use.
pub(super) struct Stmt {
    sql: &'static str,
    prepared: Option<Statement>,
}

impl Stmt {
    pub(super) fn new(sql: &'static str) -> Self {
        Self { sql, prepared: None }
    }

    pub(super) async fn prepare<C: GenericClient>(&mut self, client: &C) -> Result<&Statement, Error> {
        if self.prepared.is_none() {
            self.prepared = Some(client.prepare(self.sql).await?);
        }
        Ok(self.prepared.as_ref().expect("the statement was just prepared"))
    }
}
