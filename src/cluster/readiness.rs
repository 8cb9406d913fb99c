//! The start of a service with a cluster, and whether it should get traffic.

use std::time::Duration;

use futures_util::future::join_all;

use super::Cluster;
use super::board::changed_before;
use crate::clock::now;
use crate::error::Error;
use crate::maintenance::NotReady;
use crate::pool::Pool;

/// A longer wait is a mistake, and an instant may overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

impl Cluster {
    /// For the start of a service: waits until there is a primary and each host has answered or failed once, and then
    /// dials connections until each host that has answered has so many. Reads then know their replicas. With 0, it only
    /// waits for the answers. Calls need not wait for it.
    ///
    /// A host that cannot be reached fails within the pool's `connect_timeout`. If the time is up before, a primary is
    /// enough.
    ///
    /// # Errors
    ///
    /// After that time, as [`primary`](Self::primary), and those of [`Pool::warm_up`] at the
    /// primary. A replica that has no connection is no error.
    pub async fn warm_up(&self, connections: usize, within: Duration) -> Result<(), Error> {
        let core = &self.core;
        core.start();
        let (mut decisions, until) = (core.board.decisions(), now() + within.min(LONGEST));
        let is_open = || core.primary().is_err() || !core.board.state().has_asked_all();
        while is_open() && changed_before(&mut decisions, until).await {}
        let primary = core.primary()?;
        if connections == 0 {
            return Ok(());
        }
        let left = until.saturating_duration_since(now());
        let is_wanted = |host: &usize| *host == primary || core.board.state().is_replica(*host);
        let hosts: Vec<_> = (0..core.hosts.len()).filter(is_wanted).collect();
        let warmed = join_all(hosts.iter().map(|host| core.hosts[*host].pool.warm_up(connections, left))).await;
        hosts.into_iter().zip(warmed).find(|(host, _)| *host == primary).map_or(Ok(()), |(_, warmed)| warmed)
    }

    /// Returns whether this service should get traffic, for a readiness probe. Never waits: see
    /// [`Pool::ready`].
    ///
    /// It becomes ready once a host has been the primary. From then on it is ready while the pool of any host is:
    /// during a failover reads go on, and another instance of the service would have no primary either.
    ///
    /// # Errors
    ///
    /// [`NotReady`], of the pool of the primary, or of the host that was given first.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.core.start();
        // Each pool is asked, so that each goes on looking at its server.
        let mut answers: Vec<_> = self.pools().map(Pool::ready).collect();
        let first = answers.swap_remove(self.core.primary().unwrap_or(0));
        if first == Err(NotReady::Closed) {
            return first;
        }
        if !self.core.board.state().has_had_primary() {
            return Err(NotReady::NoPrimary);
        }
        if answers.iter().any(Result::is_ok) { Ok(()) } else { first }
    }
}
