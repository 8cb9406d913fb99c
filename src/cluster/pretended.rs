//! Pretended outcomes of a cluster, and the answers of hosts that do not exist. Feature `testing`.

use std::sync::Arc;
use std::time::Instant;

use super::Cluster;
use super::core::Core;
use super::state::Answer;
use crate::error::Error;
use crate::policy::{Lsn, Sighting};
use crate::pretend::{Moment, Outcome, Pretence, Pretences, Pretending};
use crate::telemetry::ReadRoute;

/// The hosts that pretended errors name.
const HOSTS: [&str; 2] = ["pretended-host-1:5432", "pretended-host-2:5432"];

impl Cluster {
    /// Brings calls to a chosen outcome until the returned guard is dropped, whichever host serves them. Feature
    /// `testing`. As [`Pool::pretend`](crate::Pool::pretend).
    ///
    /// [`Outcome::NoPrimary`], [`Outcome::TwoPrimaries`], [`Outcome::TwoSystems`] and [`Outcome::NoFreshReplica`] take
    /// hold before a host is chosen. All others do so at the pool of the host that serves the call.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use failfast::Freshness;
    /// use failfast::testing::{self, Outcome};
    ///
    /// let cluster = testing::cluster_without_servers().build()?;
    /// let _stale = cluster.pretend(Outcome::NoFreshReplica);
    /// let error = cluster.call().read(Freshness::Any).query("SELECT 1", &[]).await.unwrap_err();
    /// assert_eq!((error.kind().as_str(), error.http_status()), ("no_fresh_replica", 503));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pretend(&self, pretence: impl Into<Pretence>) -> Pretending {
        let pools = self.core.hosts.iter().map(|host| Arc::clone(&host.pool.shared.pretences));
        let places = pools.chain([Arc::clone(&self.core.pretences)]).collect();
        Pretences::begin_in(places, pretence.into())
    }
}

impl Core {
    /// Returns the pretended error that a call meets at this moment.
    pub(super) fn pretended(&self, moment: Moment, operation: Option<&str>) -> Result<(), Error> {
        let Some(outcome) = self.pretences.meet(moment, operation) else { return Ok(()) };
        let retry_after = self.settings.looks.every;
        Err(match outcome {
            Outcome::TwoPrimaries => Error::TwoPrimaries { hosts: Box::new(HOSTS.map(Arc::from)), retry_after },
            Outcome::TwoSystems => {
                let systems = [(Arc::from(HOSTS[0]), 1), (Arc::from(HOSTS[1]), 2)];
                Error::TwoSystems { systems: Box::new(systems), retry_after }
            }
            Outcome::NoFreshReplica => {
                self.meter.read(ReadRoute::Refused);
                self.not_fresh(Some(self.settings.max_lag))
            }
            _ => Error::NoPrimary { hosts: "a test pretends this".into(), retry_after },
        })
    }
}

/// What a host that does not exist answers. The first one is the primary.
pub(super) fn answer(now: Instant, host: usize) -> Answer {
    let sighting = Sighting {
        at: now,
        is_in_recovery: host != 0,
        timeline: Some(1),
        system: Some(1),
        started: i64::try_from(host).unwrap_or_default(),
    };
    Answer { sighting, place: Some(Lsn(1 << 24)) }
}
