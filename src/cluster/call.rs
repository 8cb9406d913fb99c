//! One call on a cluster: where it goes, and whether it may go elsewhere after a failure.
//!
//! The settings are passed on to a call of the host's pool, which does the work. This file only chooses the host.

mod bulk;
mod queries;
mod transactions;

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::changed_before;
use super::core::{Core, ReadPlace};
use super::failure::{Elsewhere, Failure, Seen};
use super::freshness::{After, Freshness};
use crate::call::{Call, Gate, Until};
use crate::clock::now;
use crate::conn::TransactionOptions;
use crate::error::Error;
use crate::policy::{Lane, Need, PrimaryVerdict as Verdict, Shedding};

/// How long a call waits for news of another primary before it asks the same one again.
const AGAIN: Duration = Duration::from_millis(100);

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
    core: &'a Arc<Core>,
    taken: &'static Location<'static>,
    /// `None`: the primary.
    need: Option<Need>,
    across_failover: bool,
    until: Option<Until>,
    timeout: Option<Duration>,
    operation: Option<&'static str>,
    lane: Option<Lane>,
    is_uncached: bool,
    is_idempotent: bool,
    options: Option<TransactionOptions>,
    shedding: Option<Shedding>,
}

impl<'a> ClusterCall<'a> {
    pub(super) fn new(core: &'a Arc<Core>, taken: &'static Location<'static>) -> Self {
        Self {
            core,
            taken,
            need: None,
            across_failover: false,
            until: None,
            timeout: None,
            operation: None,
            lane: None,
            is_uncached: false,
            is_idempotent: false,
            options: None,
            shedding: None,
        }
    }

    /// Lets a replica serve the call if its data is fresh enough. The call must not write.
    ///
    /// If no replica is fresh enough, the primary serves it as far as the
    /// [spill budget](crate::ClusterBuilder::spill) allows; beyond that the call fails with
    /// [`Error::NoFreshReplica`]. A replica that is full or slow is not stale: its error is returned, and the primary is
    /// spared. After a conflict with the replay, or if a replica cannot be reached, another one is tried.
    ///
    /// A single statement on a replica may run twice, because it applies nothing there.
    pub fn read(mut self, freshness: Freshness) -> Self {
        self.need = Some(freshness.into());
        self
    }

    /// Lets a replica serve the call if it shows everything up to this [`Position`](crate::Position), or everything that
    /// was committed before this [`Instant`]. The call must not write. Otherwise as [`read`](Self::read).
    ///
    /// After a write of this process, `Instant::now()` costs nothing: from the next look of the cluster on, replicas that
    /// have caught up serve the read, and until then the primary does. For a write of another process, pass on a
    /// position: [`Cluster::transaction_at`](crate::Cluster::transaction_at).
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
    /// A position of a timeline that is not the primary's, or ahead of the primary, goes to the primary.
    pub fn after(mut self, seen: impl Into<After>) -> Self {
        self.need = Some(seen.into().0);
        self
    }

    /// Lets the call wait for a new primary, within its [`deadline`](Self::deadline), if it was certainly not applied:
    /// there is no primary, the primary cannot be reached, or it takes no writes any more. An
    /// [`idempotent`](Self::idempotent) call also goes to the new primary if it may have been applied. Without a
    /// deadline, the call waits at most the pool's [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    ///
    /// A closure of [`transaction`](Self::transaction) or [`run`](Self::run) then runs again as a whole.
    ///
    /// Default: the call fails at once.
    pub fn across_failover(mut self) -> Self {
        self.across_failover = true;
        self
    }

    /// As [`Call::deadline`](crate::Call::deadline).
    pub fn deadline(mut self, until: impl Into<Until>) -> Self {
        self.until = Some(until.into());
        self
    }

    /// As [`Call::timeout`](crate::Call::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// As [`Call::name`](crate::Call::name).
    pub fn name(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// As [`Call::lane`](crate::Call::lane), on the pool of whichever host serves the call.
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = Some(lane);
        self
    }

    /// As [`Call::uncached`](crate::Call::uncached).
    pub fn uncached(mut self) -> Self {
        self.is_uncached = true;
        self
    }

    /// As [`Call::idempotent`](crate::Call::idempotent).
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// As [`Call::options`](crate::Call::options).
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// As [`Call::shedding`](crate::Call::shedding).
    pub fn shedding(mut self, shedding: Shedding) -> Self {
        self.shedding = Some(shedding);
        self
    }

    /// The call of a host's pool with these settings.
    fn on(self, host: usize, gate: Option<Gate<'a>>) -> Call<'a> {
        let core: &'a Core = self.core;
        let mut call = Call::new(&core.hosts[host].pool.shared, self.taken).through(gate);
        if let Some(until) = self.until {
            call = call.deadline(until);
        }
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        if let Some(operation) = self.operation {
            call = call.name(operation);
        }
        if let Some(lane) = self.lane {
            call = call.lane(lane);
        }
        if self.is_uncached {
            call = call.uncached();
        }
        if self.is_idempotent {
            call = call.idempotent();
        }
        if let Some(options) = self.options {
            call = call.options(options);
        }
        if let Some(shedding) = self.shedding {
            call = call.shedding(shedding);
        }
        call
    }

    /// When the call stops looking for a host. All hosts have the same settings.
    fn limit(&self) -> Instant {
        let acquire_timeout = self.core.hosts[0].pool.shared.acquire_timeout;
        self.until.map_or_else(|| now() + acquire_timeout, |until| until.deadline().instant())
    }

    /// Runs a single statement, which applies nothing on a replica, so that it may run twice there.
    async fn statement<T, Fut>(mut self, work: impl Fn(Call<'a>) -> Fut) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        self.is_idempotent |= self.need.is_some();
        self.run_on(work).await
    }

    /// Runs `work` on a host, and after some failures on another one.
    async fn run_on<T, E, Fut>(self, work: impl Fn(Call<'a>) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + Failure,
    {
        self.core.start();
        let limit = self.limit();
        self.core.first_answers(limit).await;
        match self.need {
            None => self.run_on_primary(limit, &work).await,
            Some(need) => self.run_on_replica(need, &work).await,
        }
    }

    async fn run_on_primary<T, E, Fut>(self, limit: Instant, work: &impl Fn(Call<'a>) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + Failure,
    {
        let mut doubt = None;
        loop {
            let mut changes = self.core.board.changes();
            let before = self.core.board.state().verdict();
            let (error, seen) = match self.core.primary() {
                Ok(host) => {
                    let core: &'a Core = self.core;
                    let _under_way = core.hosts[host].begin();
                    match work(self.on(host, None)).await {
                        Ok(value) => return Ok(value),
                        Err(error) => {
                            let seen = error.seen();
                            (error, seen)
                        }
                    }
                }
                Err(error) => {
                    let may_end = matches!(error, Error::NoPrimary { .. });
                    let elsewhere = if may_end { Elsewhere::Unreachable } else { Elsewhere::No };
                    (E::from(error), Seen { elsewhere, is_doubtful: false })
                }
            };
            let is_about_the_primary =
                matches!(seen.elsewhere, Elsewhere::ReadOnly | Elsewhere::Unreachable | Elsewhere::CircuitOpen);
            if is_about_the_primary {
                self.core.board.ask_now();
            }
            let is_safe = !seen.is_doubtful || self.is_idempotent;
            if !is_about_the_primary || !is_safe || !self.across_failover || now() >= limit {
                return Err(doubt.unwrap_or(error));
            }
            if seen.is_doubtful {
                doubt = Some(error);
            }
            let has_changed = || {
                let verdict = self.core.board.state().verdict();
                verdict != before && matches!(verdict, Verdict::Primary { .. })
            };
            let until = limit.min(now() + AGAIN);
            while !has_changed() && changed_before(&mut changes, until).await {}
        }
    }

    async fn run_on_replica<T, E, Fut>(self, need: Need, work: &impl Fn(Call<'a>) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + Failure,
    {
        let core: &'a Core = self.core;
        let (mut excluded, mut failed) = (Vec::new(), None);
        // A host that is full or slow is not stale. Its load must not move to the primary.
        let mut may_spill = true;
        loop {
            let place = match core.place(need, &excluded, may_spill).await {
                Ok(place) => place,
                Err(error) => return Err(failed.unwrap_or_else(|| E::from(error))),
            };
            let ReadPlace { host, is_replica, .. } = place;
            let gate = is_replica.then_some(Gate { prover: core, host, need });
            let under_way = core.hosts[host].begin();
            let error = match work(self.on(host, gate)).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            drop((under_way, place._spilled));
            let seen = error.seen();
            if matches!(seen.elsewhere, Elsewhere::ReadOnly | Elsewhere::Unreachable) {
                core.board.ask_now();
            }
            let is_safe = !seen.is_doubtful || self.is_idempotent;
            // After a failure of the host itself, one other host is tried.
            let is_first = failed.is_none();
            match seen.elsewhere {
                _ if !is_replica || !is_safe => return Err(error),
                Elsewhere::NotFresh => {}
                Elsewhere::Unreachable | Elsewhere::Conflict | Elsewhere::CircuitOpen if is_first => {
                    may_spill = seen.elsewhere == Elsewhere::Unreachable;
                    failed = Some(error);
                }
                _ => return Err(error),
            }
            excluded.push(host);
        }
    }
}
