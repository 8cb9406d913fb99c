//! One call on a cluster, and its settings. `route` chooses the host, and passes the settings on to a call of that
//! host's pool, which does the work.

mod bulk;
mod ddl;
mod fallback;
mod queries;
mod route;
mod settings;
mod transactions;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

pub use self::ddl::ClusterDdl;
pub use self::fallback::ClusterFallback;
use self::route::Route;
use self::settings::ClusterCallOptions;
use super::core::Core;
use super::freshness::{After, Freshness};
use crate::call::Until;
use crate::conn::TransactionOptions;
use crate::policy::{Lane, Shedding};

/// One call on a [`Cluster`](crate::Cluster), with settings of its own. [`Cluster::call`](crate::Cluster::call) returns
/// it.
///
/// Without [`read`](Self::read) and [`after`](Self::after) the call goes to the primary. The cluster does not parse
/// SQL: only the caller knows which statement writes.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(cluster: failfast::Cluster) -> Result<(), failfast::Error> {
/// use failfast::Freshness;
///
/// let call = cluster.call().read(Freshness::Within(Duration::from_secs(2)));
/// let stock = call.query("SELECT name, stock FROM items", &[]).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// As [`Call`](crate::Call): the future of each method may be dropped at any await.
#[derive(Debug, Clone, Copy)]
#[must_use = "a call does nothing until one of its methods is awaited"]
pub struct ClusterCall<'a> {
    settings: ClusterCallOptions<'a>,
}

impl<'a> ClusterCall<'a> {
    pub(super) fn new(core: &'a Arc<Core>, taken: &'static Location<'static>) -> Self {
        Self { settings: ClusterCallOptions::new(core, taken) }
    }

    /// Lets a replica serve the call if its data is fresh enough. The call must not write.
    ///
    /// - If no replica is fresh enough, the primary serves the call, within the
    ///   [spill budget](crate::ClusterBuilder::spill). Beyond it the call fails with
    ///   [`Error::NoFreshReplica`](crate::Error::NoFreshReplica).
    /// - If a replica cannot be reached, the call runs once more, on another replica or on the primary within the
    ///   budget.
    /// - If replay cancels the call, its circuit is open or its server has no free connection, the call runs once more,
    ///   on another replica.
    /// - If a replica is full or slow, the call fails with that error. Its load does not move to the primary.
    ///
    /// A single statement may run twice on replicas, because it applies nothing there.
    pub fn read(mut self, freshness: Freshness) -> Self {
        self.settings.need = Some(freshness.into());
        self
    }

    /// Lets a replica serve the call if it shows everything up to this [`Position`](crate::Position), or everything
    /// committed before this [`Instant`](std::time::Instant). The call must not write. In everything else it is as
    /// [`read`](Self::read).
    ///
    /// After a write of this process, pass `Instant::now()`, which costs no query. Replicas may serve the read once the
    /// cluster has asked the primary and then them. No replica can be known to have the write before the primary was
    /// asked twice since the instant. Until then the primary serves the read, outside the
    /// [spill budget](crate::ClusterBuilder::spill). If the replicas are behind for longer, the budget applies.
    ///
    /// After a write of another process, pass its position:
    /// [`Cluster::transaction_at`](crate::Cluster::transaction_at). If no replica is known to have reached it, the call
    /// waits up to 20 ms for the next answers. Then the primary serves it, within the budget.
    ///
    /// ```no_run
    /// # async fn example(cluster: failfast::Cluster, id: i64) -> Result<(), failfast::Error> {
    /// use std::time::Instant;
    ///
    /// cluster.execute("UPDATE items SET stock = 0 WHERE id = $1", &[&id]).await?;
    /// let written = Instant::now();
    /// let row = cluster.call().after(written).query_one("SELECT stock FROM items WHERE id = $1", &[&id]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// After a failover, any replica that follows the new primary serves a position of the old timeline. It has what
    /// has survived of that timeline. A position of an unknown timeline, or ahead of the primary, goes to the primary,
    /// within the budget.
    pub fn after(mut self, seen: impl Into<After>) -> Self {
        self.settings.need = Some(seen.into().0);
        self
    }

    /// Lets the call wait for a new primary, if the call was certainly not applied. Default: the call fails at once.
    ///
    /// **Set a [`deadline`](Self::deadline), too.** The call waits until then. Without a deadline, it waits until the
    /// pool's [`acquire_timeout`](crate::PoolBuilder::acquire_timeout) after it began, 1 s by default. Most failovers
    /// take longer.
    ///
    /// The call waits while there is no primary, or there are two. It also waits if the primary cannot be reached, is
    /// silent, has no free connection, takes no writes any more, or its circuit is open. A read waits as well if it
    /// needs the primary.
    ///
    /// - A closure of [`transaction`](Self::transaction) or [`run`](Self::run) runs again as a whole.
    /// - An [`idempotent`](Self::idempotent) call goes to the new primary although it may have been applied. A single
    ///   statement does so as soon as another host is the primary, even if it has no answer yet.
    /// - A COMMIT without an answer never runs again.
    ///
    /// With this setting or without, a call that waits for a connection goes to the new primary at once, because
    /// nothing of it was sent.
    pub fn across_failover(mut self) -> Self {
        self.settings.across_failover = true;
        self
    }

    /// As [`Call::deadline`](crate::Call::deadline): a bound for everything, also for the wait for a new primary. The
    /// pool's timeouts then do not apply.
    pub fn deadline(mut self, until: impl Into<Until>) -> Self {
        self.settings.until = Some(until.into());
        self
    }

    /// As [`Call::timeout`](crate::Call::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// As [`Call::name`](crate::Call::name).
    pub fn name(mut self, operation: &'static str) -> Self {
        self.settings.operation = Some(operation);
        self
    }

    /// As [`Call::lane`](crate::Call::lane), on the pool of whichever host serves the call.
    pub fn lane(mut self, lane: Lane) -> Self {
        self.settings.lane = Some(lane);
        self
    }

    /// As [`Call::uncached`](crate::Call::uncached).
    pub fn uncached(mut self) -> Self {
        self.settings.is_uncached = true;
        self
    }

    /// As [`Call::idempotent`](crate::Call::idempotent).
    pub fn idempotent(mut self) -> Self {
        self.settings.is_idempotent = true;
        self
    }

    /// As [`Call::options`](crate::Call::options).
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.settings.options = Some(options);
        self
    }

    /// As [`Call::shedding`](crate::Call::shedding).
    pub fn shedding(mut self, shedding: Shedding) -> Self {
        self.settings.shedding = Some(shedding);
        self
    }

    /// Sets how long the call may wait for a connection, without a deadline.
    pub(super) fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = Some(wait);
        self
    }

    /// Where the call goes.
    fn route(self) -> Route<'a> {
        Route::new(self.settings)
    }

    /// A single statement applies nothing on a replica, so it may run twice there.
    fn statement(mut self) -> Route<'a> {
        self.settings.is_idempotent |= self.settings.need.is_some();
        Route::of_statement(self.settings)
    }
}
