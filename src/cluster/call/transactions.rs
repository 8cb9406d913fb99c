//! The methods of a [`ClusterCall`] that run the caller's closure. The closure's error may have any type. So the last
//! error on the closure's connection decides whether another host is tried.

use std::future::Future;

use parking_lot::Mutex;

use super::ClusterCall;
#[cfg(feature = "axum")]
use crate::call::transactions::MeasuredTransaction;
use crate::cluster::failure::Outer;
use crate::conn::{Client, CommittedAt, Transaction};
use crate::error::Error;
use crate::policy::Position;

impl ClusterCall<'_> {
    /// Runs `work` in a transaction. **It may run several times**: see [`Call::transaction`](crate::Call::transaction),
    /// and [`across_failover`](Self::across_failover).
    ///
    /// # Errors
    ///
    /// As [`Call::transaction`](crate::Call::transaction) and [`query`](Self::query).
    pub fn transaction<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let ended = self.transaction_and(work, |_| {});
        async move { ended.await.map_err(Outer::into_error) }
    }

    /// As [`transaction`](Self::transaction), and returns the [`Position`](crate::Position) of the commit, too, for
    /// [`after`](Self::after). The position comes in the round trip of the COMMIT. If the server does not say it,
    /// [`Position::is_known`] is `false`, and only the primary serves reads after it.
    ///
    /// Of a [`read`](Self::read) that a replica serves, it is a position that the replica had reached after the last
    /// statement. A later read `after` this position shows at least as much, in whichever process: reads are monotonic.
    ///
    /// ```no_run
    /// # async fn example(cluster: failfast::Cluster) -> Result<(), failfast::Error> {
    /// let (rows, position) = cluster
    ///     .call()
    ///     .transaction_at(async |tx| tx.execute("UPDATE items SET stock = 0 WHERE id = 1", &[]).await)
    ///     .await?;
    /// let header = position.to_string(); // for the next request of this user, to whichever process
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub async fn transaction_at<T, E, F, Fut>(self, work: F) -> Result<(T, Position), E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let committed_at = CommittedAt::default();
        let begun = |tx: &Transaction| tx.write_position_to(committed_at.clone());
        let value = self.transaction_and(work, begun).await.map_err(Outer::into_error)?;
        // All hosts of a cluster are of one system, so the position is known even if the primary is gone by now.
        let (system, history) = self.settings.core.board.state().log();
        let position = committed_at.get().and_then(|(timeline, place)| {
            // A replica does not say on which timeline it is. What it has proven, it has proven on the primary's.
            Some(Position::new(system, timeline.or(history)?, place))
        });
        Ok((value, position.unwrap_or(Position::UNKNOWN)))
    }

    /// [`transaction`](Self::transaction) that does something with each new transaction.
    pub(super) async fn transaction_and<T, E, F, Fut>(
        self,
        work: F,
        begun: impl Fn(&Transaction),
    ) -> Result<T, Outer<E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let (work, begun) = (&work, &begun);
        let attempt = async move |tx: Transaction| {
            begun(&tx);
            let trail = tx.trail();
            work(tx).await.map_err(|error| Outer::work(error, &trail, true))
        };
        let attempt = &attempt;
        self.route().run(|call| call.transaction(attempt)).await
    }

    /// Like [`transaction`](Self::transaction), but runs `work` only once. With
    /// [`across_failover`](Self::across_failover), it waits for a primary only until `work` has begun.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub async fn transaction_once<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.try_transaction_once(work).await.map_err(Outer::into_error)
    }

    /// [`transaction_once`](Self::transaction_once), with what its error says.
    pub(super) async fn try_transaction_once<T, E, F, Fut>(self, work: F) -> Result<T, Outer<E>>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let work = Mutex::new(Some(work));
        let work = &work;
        let attempt = async move |tx: Transaction| {
            let trail = tx.trail();
            let work = work.lock().take().expect("no attempt follows once the closure has run");
            work(tx).await.map_err(|error| Outer::work(error, &trail, true))
        };
        let attempt = &attempt;
        let once = async move |call: crate::call::Call<'_>| {
            let result = call.transaction_once(attempt).await;
            if work.lock().is_some() { result } else { result.map_err(Outer::into_last) }
        };
        let once = &once;
        self.route().run(move |call| once(call)).await
    }

    /// Runs `work` with a connection of its own, for several statements on one lease. **It may run several times**: see
    /// [`Call::run`](crate::Call::run), and [`across_failover`](Self::across_failover).
    ///
    /// # Errors
    ///
    /// As [`Call::run`](crate::Call::run) and [`query`](Self::query).
    pub async fn run<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.try_run(work).await.map_err(Outer::into_error)
    }

    /// [`run`](Self::run), with what its error says.
    pub(super) async fn try_run<T, E, F, Fut>(self, work: F) -> Result<T, Outer<E>>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let work = &work;
        let attempt = async move |client: Client| {
            let trail = client.trail();
            work(client).await.map_err(|error| Outer::work(error, &trail, false))
        };
        let attempt = &attempt;
        self.route().run(|call| call.run(attempt)).await
    }

    /// Begins a transaction that the owner ends.
    #[cfg(feature = "axum")]
    pub(crate) async fn begin_measured(self) -> Result<MeasuredTransaction, Error> {
        self.route().run(|call| call.begin_measured()).await
    }
}
