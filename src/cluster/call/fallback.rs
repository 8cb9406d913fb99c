//! The fallback of a call on a cluster: another answer when no host gives one.

use std::fmt;
use std::future::Future;

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::ClusterCall;
use crate::cluster::failure::{Failure, Outer};
use crate::conn::{Client, Transaction};
use crate::error::Error;

/// A call on a cluster with a fallback, from [`ClusterCall::fallback`].
#[must_use = "a call does nothing until one of its methods is awaited"]
pub struct ClusterFallback<'a, G> {
    call: ClusterCall<'a>,
    instead: G,
}

impl<'a> ClusterCall<'a> {
    /// As [`Call::fallback`](crate::Call::fallback), after the last attempt on whichever host. The fallback may also
    /// answer if there is no primary, or no replica is fresh enough.
    ///
    /// `failfast.fallbacks` counts the answer under the cluster's name. The pools of the hosts count each attempt as a
    /// failed operation.
    pub fn fallback<T, E, G>(self, instead: G) -> ClusterFallback<'a, G>
    where
        G: FnOnce(&E) -> Option<T>,
    {
        ClusterFallback { call: self, instead }
    }
}

/// The query methods, with the fallback. There is none for a stream and for a COPY.
///
/// # Errors
///
/// As the method of the same name of [`ClusterCall`], unless the fallback returns a value.
impl<'a, G> ClusterFallback<'a, G> {
    /// [`ClusterCall::query`] with the fallback.
    pub async fn query(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error>
    where
        G: FnOnce(&Error) -> Option<Vec<Row>>,
    {
        let result = self.call.query(sql, params).await;
        self.or(result)
    }

    /// [`ClusterCall::query_one`] with the fallback.
    pub async fn query_one(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error>
    where
        G: FnOnce(&Error) -> Option<Row>,
    {
        let result = self.call.query_one(sql, params).await;
        self.or(result)
    }

    /// [`ClusterCall::query_opt`] with the fallback. The fallback's `Some(None)` stands for no row.
    pub async fn query_opt(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error>
    where
        G: FnOnce(&Error) -> Option<Option<Row>>,
    {
        let result = self.call.query_opt(sql, params).await;
        self.or(result)
    }

    /// [`ClusterCall::execute`] with the fallback.
    pub async fn execute(self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error>
    where
        G: FnOnce(&Error) -> Option<u64>,
    {
        let result = self.call.execute(sql, params).await;
        self.or(result)
    }

    /// [`ClusterCall::query_typed`] with the fallback.
    pub async fn query_typed(self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error>
    where
        G: FnOnce(&Error) -> Option<Vec<Row>>,
    {
        let result = self.call.query_typed(sql, params).await;
        self.or(result)
    }

    /// [`ClusterCall::batch_execute`] with the fallback.
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error>
    where
        G: FnOnce(&Error) -> Option<()>,
    {
        let result = self.call.batch_execute(sql).await;
        self.or(result)
    }

    /// [`ClusterCall::simple_query`] with the fallback.
    pub async fn simple_query(self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error>
    where
        G: FnOnce(&Error) -> Option<Vec<SimpleQueryMessage>>,
    {
        let result = self.call.simple_query(sql).await;
        self.or(result)
    }

    /// [`ClusterCall::execute_many`] with the fallback.
    pub async fn execute_many<I, R, P>(self, sql: &str, rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
        G: FnOnce(&Error) -> Option<u64>,
    {
        let result = self.call.execute_many(sql, rows).await;
        self.or(result)
    }

    /// [`ClusterCall::run`] with the fallback.
    pub async fn run<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        let result = self.call.try_run(work).await;
        self.or_outer(result)
    }

    /// [`ClusterCall::transaction`] with the fallback.
    pub async fn transaction<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        let result = self.call.transaction_and(work, |_| {}).await;
        self.or_outer(result)
    }

    /// [`ClusterCall::transaction_once`] with the fallback.
    pub async fn transaction_once<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        let result = self.call.try_transaction_once(work).await;
        self.or_outer(result)
    }

    fn or<T>(self, result: Result<T, Error>) -> Result<T, Error>
    where
        G: FnOnce(&Error) -> Option<T>,
    {
        self.or_outer(result.map_err(Outer::Pool))
    }

    /// Asks the fallback if no host gave an answer.
    fn or_outer<T, E>(self, result: Result<T, Outer<E>>) -> Result<T, E>
    where
        E: From<Error>,
        G: FnOnce(&E) -> Option<T>,
    {
        result.or_else(|outer| {
            let seen = outer.seen();
            let error = outer.into_error();
            let answer = if seen.is_unavailable { (self.instead)(&error) } else { None };
            let settings = &self.call.settings;
            answer.inspect(|_| settings.core.meter.fell_back(settings.operation, seen.fault)).ok_or(error)
        })
    }
}

impl<G> fmt::Debug for ClusterFallback<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterFallback").field("call", &self.call).finish_non_exhaustive()
    }
}
