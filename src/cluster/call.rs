//! One call on a cluster, and its settings. `route` chooses the host, and passes the settings on to a call of the host's
//! pool, which does the work.

mod bulk;
mod queries;
mod route;
mod settings;
mod transactions;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use self::route::Route;
use self::settings::CallSettings;
use super::core::Core;
use super::freshness::{After, Freshness};
use crate::call::Until;
use crate::conn::TransactionOptions;
use crate::policy::{Lane, Shedding};

/// One call on a [`Cluster`](crate::Cluster), with settings of its own. [`Cluster::call`](crate::Cluster::call) makes it.
///
/// Without [`read`](Self::read) and [`after`](Self::after) it goes to the primary. No SQL is parsed: only the caller
/// knows which statement writes.
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
    settings: CallSettings<'a>,
}

impl<'a> ClusterCall<'a> {
    pub(super) fn new(core: &'a Arc<Core>, taken: &'static Location<'static>) -> Self {
        Self { settings: CallSettings::new(core, taken) }
    }

    /// Lets a replica serve the call if its data is fresh enough. The call must not write.
    ///
    /// If no replica is fresh enough, the primary serves it as far as the [spill budget](crate::ClusterBuilder::spill)
    /// allows; beyond that the call fails with [`Error::NoFreshReplica`](crate::Error::NoFreshReplica). A replica that
    /// is full or slow is not stale: its error is returned, and the primary is spared. After a conflict with the
    /// replay, or if a replica cannot be reached, another one is tried.
    ///
    /// A single statement on a replica may run twice, because it applies nothing there.
    pub fn read(mut self, freshness: Freshness) -> Self {
        self.settings.need = Some(freshness.into());
        self
    }

    /// Lets a replica serve the call if it shows everything up to this [`Position`](crate::Position), or everything
    /// that was committed before this [`Instant`](std::time::Instant). The call must not write. Otherwise as
    /// [`read`](Self::read).
    ///
    /// After a write of this process, `Instant::now()` costs nothing. From the next look of the cluster on, replicas that
    /// have caught up serve the read. Until the primary was asked twice since the instant, no replica can be known to
    /// have the write, however well it is: the primary serves the read, outside the
    /// [spill budget](crate::ClusterBuilder::spill). If the replicas are behind for longer, the budget applies.
    ///
    /// For a write of another process, pass on a position:
    /// [`Cluster::transaction_at`](crate::Cluster::transaction_at). If no replica is known to have reached it, the call
    /// waits up to 20 ms for the next look. Then the primary serves it, as far as the budget allows.
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
    /// After a failover, a position of the old timeline is served by any replica that follows the new primary: what has
    /// survived of the old timeline, it has. A position of an unknown timeline, or ahead of the primary, goes to the
    /// primary, as far as the budget allows.
    pub fn after(mut self, seen: impl Into<After>) -> Self {
        self.settings.need = Some(seen.into().0);
        self
    }

    /// Lets the call wait for a new primary, within its [`deadline`](Self::deadline), if it was certainly not applied:
    /// there is no primary or there are two, the primary cannot be reached or is silent, or it takes no writes any more.
    /// An [`idempotent`](Self::idempotent) call also goes to the new primary if it may have been applied; a single
    /// statement does so as soon as another host is the primary, even without an answer. Without a deadline, the call
    /// waits at most the pool's [`acquire_timeout`](crate::PoolBuilder::acquire_timeout). A read waits as well if it needs
    /// the primary.
    ///
    /// A call that waits for a connection when another host becomes the primary goes there in any case: nothing of it was
    /// sent.
    ///
    /// A closure of [`transaction`](Self::transaction) or [`run`](Self::run) then runs again as a whole.
    ///
    /// Default: the call fails at once.
    pub fn across_failover(mut self) -> Self {
        self.settings.across_failover = true;
        self
    }

    /// As [`Call::deadline`](crate::Call::deadline).
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

    /// Where the call goes.
    fn route(self) -> Route<'a> {
        Route::new(self.settings)
    }

    /// A single statement applies nothing on a replica, so that it may run twice there.
    fn statement(mut self) -> Route<'a> {
        self.settings.is_idempotent |= self.settings.need.is_some();
        Route::of_statement(self.settings)
    }
}
