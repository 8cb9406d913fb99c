//! The orders of the owner to a cluster. Those to pools go to the pools of all hosts.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Cluster;
use super::core::Core;
use crate::error::ConfigError;
use crate::policy::Lane;
use crate::pool::{Pool, PoolOrder};

/// The orders, each for the pools of all hosts, also of those that are replicas now.
impl Cluster {
    /// Gives the reason for the next order: [`forget_timeline`](ClusterOrder::forget_timeline),
    /// [`resize`](ClusterOrder::resize), [`set_lane`](ClusterOrder::set_lane), [`flush`](ClusterOrder::flush) or
    /// [`drain`](ClusterOrder::drain). The order's events show the reason.
    ///
    /// ```no_run
    /// # fn example(cluster: failfast::Cluster) {
    /// cluster.because("db2 was promoted by mistake, and is a replica of db1 again").forget_timeline();
    /// # }
    /// ```
    pub fn because(&self, reason: impl Into<Arc<str>>) -> ClusterOrder<'_> {
        ClusterOrder { core: &self.core, reason: Some(reason.into()) }
    }

    fn order(&self) -> ClusterOrder<'_> {
        ClusterOrder { core: &self.core, reason: None }
    }

    /// Forgets the highest timeline that this process has seen. Then a primary on a lower timeline gets calls again.
    ///
    /// Use it if the server on the highest timeline no longer exists, or was made a replica of the old primary again.
    /// Without this order, every host stays fenced. **You give up everything that was committed on the forgotten
    /// timeline.** If a host still answers on it, that timeline stays the highest. Give the order to each process.
    #[track_caller]
    pub fn forget_timeline(&self) {
        self.order().forget_timeline();
    }

    /// Changes the maximum number of connections to each host: see [`Pool::resize`].
    ///
    /// # Errors
    ///
    /// As [`Pool::resize`]. All pools stay as they are.
    #[track_caller]
    pub fn resize(&self, max_size: usize) -> Result<(), ConfigError> {
        self.order().resize(max_size)
    }

    /// Moves all calls of an operation to a lane, on each host: see [`Pool::set_lane`].
    ///
    /// # Errors
    ///
    /// As [`Pool::set_lane`].
    #[track_caller]
    pub fn set_lane(&self, operation: &str, lane: Lane) -> Result<(), ConfigError> {
        self.order().set_lane(operation, lane)
    }

    /// Undoes [`set_lane`](Self::set_lane): see [`Pool::reset_lane`].
    #[track_caller]
    pub fn reset_lane(&self, operation: &str) {
        self.order().reset_lane(operation);
    }

    /// Retires every existing connection to each host: see [`Pool::flush`].
    #[track_caller]
    pub fn flush(&self) {
        self.order().flush();
    }

    /// Shuts the pools of all hosts down gracefully, at the same time: see [`Pool::drain`]. Then the
    /// cluster asks its hosts no more. Returns how many connections had not been given back.
    ///
    /// A call that waits for a new primary (`across_failover`) is in no pool's queue, so this does not wait for it.
    #[track_caller]
    pub fn drain(&self, within: Duration) -> impl Future<Output = usize> {
        self.order().drain(within)
    }

    /// Closes the pools of all hosts: see [`Pool::close`]. No host is asked any more.
    pub fn close(&self) {
        self.pools().for_each(Pool::close);
        self.core.stop();
    }

    /// Returns whether [`close`](Self::close) or [`drain`](Self::drain) was called.
    pub fn is_closed(&self) -> bool {
        self.pools().all(Pool::is_closed)
    }
}

/// An order to a [`Cluster`](crate::Cluster), with a reason. [`Cluster::because`](crate::Cluster::because) returns it.
#[derive(Debug)]
#[must_use = "a reason alone does nothing"]
pub struct ClusterOrder<'a> {
    core: &'a Core,
    reason: Option<Arc<str>>,
}

impl<'a> ClusterOrder<'a> {
    /// The same order to the pool of each host.
    fn to_pools(&self) -> impl Iterator<Item = PoolOrder<'a>> + use<'a, '_> {
        self.core.hosts.iter().map(|host| PoolOrder::new(&host.pool, self.reason.clone()))
    }

    /// As [`Cluster::forget_timeline`](crate::Cluster::forget_timeline).
    #[track_caller]
    pub fn forget_timeline(self) {
        self.core.forget_timeline(Location::caller(), self.reason);
    }

    /// As [`Cluster::resize`](crate::Cluster::resize).
    ///
    /// # Errors
    ///
    /// As [`Cluster::resize`](crate::Cluster::resize).
    #[track_caller]
    pub fn resize(self, max_size: usize) -> Result<(), ConfigError> {
        for order in self.to_pools() {
            order.resize(max_size)?;
        }
        Ok(())
    }

    /// As [`Cluster::set_lane`](crate::Cluster::set_lane).
    ///
    /// # Errors
    ///
    /// As [`Cluster::set_lane`](crate::Cluster::set_lane).
    #[track_caller]
    pub fn set_lane(self, operation: &str, lane: Lane) -> Result<(), ConfigError> {
        for order in self.to_pools() {
            order.set_lane(operation, lane)?;
        }
        Ok(())
    }

    /// As [`Cluster::reset_lane`](crate::Cluster::reset_lane).
    #[track_caller]
    pub fn reset_lane(self, operation: &str) {
        for order in self.to_pools() {
            order.reset_lane(operation);
        }
    }

    /// As [`Cluster::flush`](crate::Cluster::flush).
    #[track_caller]
    pub fn flush(self) {
        for order in self.to_pools() {
            order.flush();
        }
    }

    /// As [`Cluster::drain`](crate::Cluster::drain).
    #[track_caller]
    pub fn drain(self, within: Duration) -> impl Future<Output = usize> + use<'a> {
        let mut drains = Vec::new();
        for order in self.to_pools() {
            drains.push(order.drain(within));
        }
        async move {
            let left = join_all(drains).await.into_iter().sum();
            // Those of pools that drained have ended. This also ends the gauges.
            self.core.stop();
            left
        }
    }
}
