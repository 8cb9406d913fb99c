//! What all clones of a cluster and its scouts share: the hosts, their answers, and the choice of the host for a call.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::board::{Board, changed_before};
use super::host::{Host, UnderWay};
use super::state::Candidates;
use crate::clock::now;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::policy::{Looks, Need, Primacy, places};
#[cfg(feature = "testing")]
use crate::pretend::Pretences;
use crate::telemetry::{ClusterMeter, REFUSED, ReadRoute, Telemetry};

/// A read waits at most this long for a replica that is about to catch up.
const CATCH_UP: Duration = Duration::from_millis(20);
/// For each group of this many connections of the pools, one such read may wait at a time.
const WAITING: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    #[cfg(feature = "admin")]
    pub(super) name: Arc<str>,
    pub(super) looks: Looks,
    pub(super) spill: f64,
    pub(super) max_lag: Duration,
    /// The hosts do not exist, and their answers are pretended.
    #[cfg(feature = "testing")]
    pub(super) has_no_servers: bool,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) hosts: Vec<Host>,
    pub(super) board: Arc<Board>,
    pub(super) settings: Settings,
    /// The owner's observers, which also get the events of the pools.
    pub(super) telemetry: Arc<Telemetry>,
    /// Logs and counts the cluster's own events. The pools do so for theirs.
    pub(super) own: Telemetry,
    pub(super) meter: ClusterMeter,
    pub(super) runtime: Option<Handle>,
    /// Reads at work on the primary because no replica could serve them.
    spilled: AtomicUsize,
    /// Calls that were refused before a pool was asked, for each kind of [`REFUSED`].
    refused: [AtomicU64; REFUSED.len()],
    /// Reads that wait for a replica to catch up.
    waiting: AtomicUsize,
    /// The scout of each host.
    pub(super) scouts: Mutex<Vec<Option<JoinHandle<()>>>>,
    /// What calls come to in a test before a host is chosen.
    #[cfg(feature = "testing")]
    pub(super) pretences: Arc<Pretences>,
}

/// Where a read goes.
#[derive(Debug)]
pub(super) struct ReadPlace<'a> {
    pub(super) host: usize,
    pub(super) is_replica: bool,
    /// For a read that spills to the primary.
    pub(super) spill_permit: Option<UnderWay<'a>>,
}

impl Core {
    pub(super) fn new(
        hosts: Vec<Host>,
        board: Arc<Board>,
        settings: Settings,
        telemetry: Arc<Telemetry>,
        own: Telemetry,
        meter: ClusterMeter,
        runtime: Option<Handle>,
    ) -> Self {
        let scouts = hosts.iter().map(|_| None).collect();
        Self {
            hosts,
            board,
            settings,
            telemetry,
            own,
            meter,
            runtime,
            spilled: AtomicUsize::new(0),
            refused: Default::default(),
            waiting: AtomicUsize::new(0),
            scouts: Mutex::new(scouts),
            #[cfg(feature = "testing")]
            pretences: Arc::default(),
        }
    }

    /// A call was refused before a pool was asked.
    pub(super) fn on_refused(&self, kind: ErrorKind) {
        self.meter.refused(kind);
        if let Some(index) = REFUSED.iter().position(|refused| *refused == kind) {
            self.refused[index].fetch_add(1, Relaxed);
        }
    }

    /// How many reads are at work on the primary because no replica could serve them.
    #[cfg(feature = "admin")]
    pub(super) fn spilled(&self) -> usize {
        self.spilled.load(Relaxed)
    }

    /// How many calls were refused before a pool was asked, by the kind of their error.
    #[cfg(feature = "admin")]
    pub(super) fn refused(&self) -> [(ErrorKind, u64); REFUSED.len()] {
        std::array::from_fn(|index| (REFUSED[index], self.refused[index].load(Relaxed)))
    }

    /// Reports what a look has found.
    pub(super) fn report(&self, events: Vec<EventKind>) {
        let (reports, primaries, fit) = {
            let (now, state) = (now(), self.board.state());
            // The answer of one host may make another one the primary.
            let reports: Vec<_> = (0..self.hosts.len()).map(|host| state.report(now, host)).collect();
            let primaries = match state.primacy() {
                Primacy::NoPrimary | Primacy::TwoSystems(..) => 0,
                Primacy::Primary { .. } => 1,
                Primacy::TwoPrimaries(..) => 2,
            };
            (reports, primaries, state.candidates(now, Need::Within(self.settings.max_lag), &[]).replicas.len())
        };
        for (host, report) in self.hosts.iter().zip(reports) {
            let is_replica = report.sighting.is_some_and(|sighting| sighting.is_in_recovery);
            self.meter.look_at(&host.label, report.is_primary, report.is_silent, is_replica, report.lag);
        }
        self.meter.look(primaries, fit);
        self.emit(events);
    }

    fn emit(&self, events: impl IntoIterator<Item = EventKind>) {
        for event in events {
            self.own.emit(event.clone());
            self.telemetry.emit(event);
        }
    }

    /// The number of the primary.
    pub(super) fn primary(&self) -> Result<usize, Error> {
        let mut state = self.board.state();
        match state.primacy() {
            Primacy::Primary { host, .. } => Ok(host),
            Primacy::NoPrimary => {
                Err(Error::NoPrimary { hosts: state.why_no_primary(now()), retry_after: self.next_look() })
            }
            Primacy::TwoPrimaries(one, other) => {
                let hosts = [one, other].map(|host| Arc::clone(state.label(host)));
                Err(Error::TwoPrimaries { hosts: Box::new(hosts), retry_after: self.settings.looks.silent_after() })
            }
            Primacy::TwoSystems(..) => {
                let systems = state.systems().expect("there are two");
                Err(Error::TwoSystems { systems: Box::new(systems), retry_after: self.next_look() })
            }
        }
    }

    /// Waits for a primary until each host has answered or failed, at most until this instant.
    pub(super) async fn first_answers(&self, until: Instant) {
        let mut changes = self.board.decisions();
        let is_open = || {
            let state = self.board.state();
            state.primacy() == Primacy::NoPrimary && !state.has_asked_all()
        };
        while is_open() && changed_before(&mut changes, until).await {}
    }

    /// Forgets the highest timeline, and reports it.
    pub(super) fn forget_timeline(&self, by: &'static Location<'static>, reason: Option<Arc<str>>) {
        let (timeline, events) = self.board.state().forget_timeline(now());
        let order = EventKind::TimelineForgotten { timeline, by, reason };
        self.board.on_look();
        self.emit(std::iter::once(order).chain(events));
    }

    /// How long it takes until the cluster has asked its hosts again.
    fn next_look(&self) -> Duration {
        self.settings.looks.every
    }

    /// Finds a host that has what a read needs. Waits a moment for a replica that is about to catch up.
    pub(super) async fn place(&self, need: Need, excluded: &[usize], may_spill: bool) -> Result<ReadPlace<'_>, Error> {
        let mut decisions = self.board.decisions();
        // At the start of a process: the primary may be the first to answer.
        let first = now() + self.settings.looks.timeout;
        while !self.board.state().has_asked_all() && changed_before(&mut decisions, first).await {}
        let mut looks = self.board.looks();
        let mut candidates = self.candidates(need, excluded);
        if let Some(host) = self.choose(&candidates) {
            return Ok(self.at_replica(host));
        }
        if self.hosts.len() == 1 {
            // There is no other server, so a refusal would spare none.
            return self.primary().map(|host| ReadPlace { host, is_replica: false, spill_permit: None });
        }
        if may_spill && self.board.state().is_unproven(need) {
            // Even a replica that keeps up cannot have proved yet that it has the data. So this is no spill.
            if let Ok(host) = self.primary() {
                self.meter.read(ReadRoute::Primary);
                return Ok(ReadPlace { host, is_replica: false, spill_permit: None });
            }
        }
        if let Some(_waiting) = self.may_wait(need, &candidates, excluded) {
            let until = now() + CATCH_UP;
            self.board.ask_now();
            while changed_before(&mut looks, until).await {
                candidates = self.candidates(need, excluded);
                if let Some(host) = self.choose(&candidates) {
                    return Ok(self.at_replica(host));
                }
                self.board.ask_now();
            }
        }
        match self.primary() {
            Ok(host) if may_spill => {
                let most = places(self.settings.spill, self.hosts[host].pool.shared.slots.counts().limit);
                if let Some(spilled) = UnderWay::below(&self.spilled, most) {
                    self.meter.read(ReadRoute::Primary);
                    return Ok(ReadPlace { host, is_replica: false, spill_permit: Some(spilled) });
                }
            }
            _ => {}
        }
        self.meter.read(ReadRoute::Refused);
        Err(self.not_fresh(candidates.nearest))
    }

    fn at_replica(&self, host: usize) -> ReadPlace<'_> {
        self.meter.read(ReadRoute::Replica);
        ReadPlace { host, is_replica: true, spill_permit: None }
    }

    pub(super) fn not_fresh(&self, nearest: Option<Duration>) -> Error {
        Error::NoFreshReplica { nearest, retry_after: self.next_look() }
    }

    fn candidates(&self, need: Need, excluded: &[usize]) -> Candidates {
        self.board.state().candidates(now(), need, excluded)
    }

    /// Returns a place among the waiting reads, if a replica may be about to catch up and few reads wait already.
    fn may_wait(&self, need: Need, candidates: &Candidates, excluded: &[usize]) -> Option<UnderWay<'_>> {
        let near = match need {
            Need::Any => return None,
            Need::Within(bound) => bound.saturating_add(self.settings.looks.every),
            Need::Since(_) | Need::Position(_) => self.settings.looks.every * 2,
        };
        if self.board.state().is_out_of_reach(now(), need) {
            return None;
        }
        let is_near = candidates.soonest.is_some_and(|nearest| nearest <= near);
        let limits = self.hosts.iter().map(|host| host.pool.shared.slots.counts().limit);
        let most = limits.sum::<usize>().div_ceil(WAITING);
        if is_near && excluded.is_empty() { UnderWay::below(&self.waiting, most) } else { None }
    }

    /// Draws two replicas at random, and returns the one with fewer running calls. A newcomer is drawn less often.
    fn choose(&self, candidates: &Candidates) -> Option<usize> {
        let mut left: Vec<_> = candidates.replicas.clone();
        let first = draw(&mut left)?;
        let Some(second) = draw(&mut left) else { return Some(first) };
        let load = |host: usize| self.hosts[host].under_way();
        Some(if load(second) < load(first) { second } else { first })
    }
}

/// Removes one host at random, weighted by its share, and returns it.
fn draw(hosts: &mut Vec<(usize, f64)>) -> Option<usize> {
    let sum: f64 = hosts.iter().map(|(_, share)| share).sum();
    let mut at = fastrand::f64() * sum;
    let index = hosts.iter().position(|(_, share)| {
        at -= share;
        at < 0.0
    });
    if hosts.is_empty() { None } else { Some(hosts.swap_remove(index.unwrap_or(hosts.len() - 1)).0) }
}
