//! A change of the schema, at the primary of a cluster.

use std::future::Future;
use std::time::Duration;

use super::ClusterCall;
use crate::call::ddl::Ddl;
use crate::cluster::failure::Outer;
use crate::conn::Transaction;
use crate::error::Error;

/// A change of the schema that does not block others for long, at the primary. [`Cluster::ddl`](crate::Cluster::ddl)
/// and [`ClusterCall::ddl`] make it. As [`Ddl`].
///
/// If another host becomes the primary before an attempt has begun, the change is made there. Replicas get it by
/// replication; long reads on a replica may be ended when the change is replayed (40001).
#[derive(Debug, Clone, Copy)]
#[must_use = "a change of the schema does nothing until one of its methods is awaited"]
pub struct ClusterDdl<'a> {
    call: ClusterCall<'a>,
    lock_timeout: Option<Duration>,
    give_way_after: Option<Duration>,
    attempts: Option<u32>,
    backoff: Option<(Duration, Duration)>,
}

impl<'a> ClusterCall<'a> {
    /// Makes a change of the schema of this call, at the primary. As [`Call::ddl`](crate::Call::ddl).
    pub fn ddl(mut self) -> ClusterDdl<'a> {
        self.settings.need = None;
        ClusterDdl { call: self, lock_timeout: None, give_way_after: None, attempts: None, backoff: None }
    }
}

impl ClusterDdl<'_> {
    /// As [`Ddl::lock_timeout`].
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// As [`Ddl::give_way_after`].
    pub fn give_way_after(mut self, limit: Duration) -> Self {
        self.give_way_after = Some(limit);
        self
    }

    /// As [`Ddl::attempts`].
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// As [`Ddl::backoff`].
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Some((first, longest));
        self
    }

    /// As [`Ddl::batch_execute`].
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub async fn batch_execute(self, sql: &str) -> Result<(), Error> {
        self.transaction(|tx| async move { tx.batch_execute(sql).await }).await
    }

    /// As [`Ddl::transaction`]. **It may run several times.**
    ///
    /// # Errors
    ///
    /// As [`Ddl::transaction`] and [`Cluster::primary`](crate::Cluster::primary).
    pub async fn transaction<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let work = &work;
        let attempt = async move |tx: Transaction| {
            let trail = tx.trail();
            work(tx).await.map_err(|error| Outer::work(error, &trail, true))
        };
        let attempt = &attempt;
        self.call.route().run(|call| self.of(call.ddl()).transaction(attempt)).await.map_err(Outer::into_error)
    }

    /// The change of a host's pool with these settings.
    fn of(self, ddl: Ddl<'_>) -> Ddl<'_> {
        let ddl = self.lock_timeout.map_or(ddl, |timeout| ddl.lock_timeout(timeout));
        let ddl = self.give_way_after.map_or(ddl, |limit| ddl.give_way_after(limit));
        let ddl = self.attempts.map_or(ddl, |attempts| ddl.attempts(attempts));
        self.backoff.map_or(ddl, |(first, longest)| ddl.backoff(first, longest))
    }
}
