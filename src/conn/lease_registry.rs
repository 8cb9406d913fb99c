//! Which caller has which connection, what for, and since when. Maintenance reads this a few times a second.
//!
//! Each connection has a [`LeaseInfo`]. A caller that takes the connection writes its purpose there. Most callers have
//! the purpose of the caller before them, and then write nothing, so they leave the cache line alone. Time is counted
//! in rounds of maintenance, so a lease reads no clock for this.

use std::backtrace::Backtrace;
use std::mem;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_utils::atomic::AtomicCell;
use parking_lot::Mutex;

use crate::operation::Operation;

/// The registry keeps so many lease durations between two rounds: a fair sample.
const MOST_DURATIONS: usize = 256;

/// The operation for which a connection was taken, the place in the code, and the round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) operation: Operation,
    pub(crate) taken: &'static Location<'static>,
    round: u32,
}

impl Purpose {
    /// Compares addresses instead of texts. Equal texts at two addresses count as different, which only costs a store.
    fn is_identical(&self, other: &Self) -> bool {
        let is_same_operation = match (self.operation, other.operation) {
            (Operation::Named(one), Operation::Named(other)) => ptr::eq(one, other),
            (Operation::At(one), Operation::At(other)) => ptr::eq(one, other),
            (Operation::Named(_), Operation::At(_)) | (Operation::At(_), Operation::Named(_)) => false,
        };
        is_same_operation && ptr::eq(self.taken, other.taken) && self.round == other.round
    }
}

/// The facts about a connection that the registry needs.
pub(super) trait Leased: Send + Sync {
    fn lease_info(&self) -> &LeaseInfo;

    /// Returns since when statements have been running on the connection.
    fn running_since(&self) -> Option<Instant>;

    /// Returns whether a statement is running, or the server owes an answer.
    fn is_at_work(&self) -> bool;
}

/// The record of one connection.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct LeaseInfo {
    registry: Arc<LeaseRegistry>,
    purpose: AtomicCell<Option<Purpose>>,
    /// The last round in which maintenance saw the connection idle.
    rested: AtomicU32,
    backtrace: Mutex<Option<Arc<Backtrace>>>,
}

/// The records of all connections of a pool.
#[derive(Debug, Default)]
pub(crate) struct LeaseRegistry {
    round: AtomicU32,
    connections: Mutex<Vec<Weak<dyn Leased>>>,
    /// The most connections that there were at once.
    most: AtomicUsize,
    /// The number of the next connection.
    number: AtomicU64,
    captures: bool,
    is_full: AtomicBool,
    durations: Mutex<Vec<(Operation, Duration)>>,
}

/// A caller that has a connection.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) purpose: Purpose,
    /// The caller has had the connection for at least so many rounds.
    pub(crate) rounds: u32,
    /// How long a statement has been running on the connection.
    pub(crate) running: Option<Duration>,
    /// Whether a statement is running, or the server owes an answer.
    pub(crate) is_at_work: bool,
    pub(crate) backtrace: Option<Arc<Backtrace>>,
}

impl LeaseInfo {
    pub(super) fn new(registry: Arc<LeaseRegistry>) -> Self {
        Self { registry, purpose: AtomicCell::new(None), rested: AtomicU32::new(0), backtrace: Mutex::new(None) }
    }

    /// Maintenance saw the connection idle.
    pub(super) fn on_seen_idle(&self) {
        self.rested.store(self.registry.round.load(Relaxed), Relaxed);
    }
}

/// The owner's copy of the purpose in a [`LeaseInfo`], which only the owner writes. Comparing with it reads nothing
/// shared.
#[derive(Debug, Default)]
pub(super) struct WrittenPurpose(Option<Purpose>);

impl WrittenPurpose {
    /// Records that a lease begins.
    #[inline]
    pub(super) fn write(&mut self, lease_info: &LeaseInfo, operation: Operation, taken: &'static Location<'static>) {
        let registry = &lease_info.registry;
        let purpose = Purpose { operation, taken, round: registry.round.load(Relaxed) };
        if !self.0.as_ref().is_some_and(|written| written.is_identical(&purpose)) {
            lease_info.purpose.store(Some(purpose));
            self.0 = Some(purpose);
        }
        if registry.captures {
            *lease_info.backtrace.lock() = Some(Arc::new(Backtrace::force_capture()));
        }
    }

    /// Records that no caller has the connection: maintenance has it, or it is being closed.
    pub(super) fn erase(&mut self, lease_info: &LeaseInfo) {
        lease_info.purpose.store(None);
        self.0 = None;
    }

    /// Records the duration of a lease that has ended.
    pub(super) fn record_duration(&self, lease_info: &LeaseInfo, duration: Duration) {
        let registry = &lease_info.registry;
        if registry.is_full.load(Relaxed) {
            return;
        }
        if let Some(purpose) = self.0 {
            let mut durations = registry.durations.lock();
            if durations.len() < MOST_DURATIONS {
                durations.push((purpose.operation, duration));
            }
            registry.is_full.store(durations.len() >= MOST_DURATIONS, Relaxed);
        }
    }
}

impl LeaseRegistry {
    /// If `captures` is set, the registry captures a backtrace at each lease, which costs tens of microseconds.
    pub(crate) fn new(captures: bool) -> Self {
        Self { captures, ..Self::default() }
    }

    /// A number for a new connection. No two connections of a pool have the same number.
    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Relaxed)
    }

    pub(super) fn add(&self, connection: Weak<dyn Leased>) {
        self.connections.lock().push(connection);
    }

    /// Returns whether there is any connection.
    pub(super) fn has_any(&self) -> bool {
        self.connections.lock().iter().any(|connection| connection.strong_count() > 0)
    }

    /// Returns whether there are more connections than ever before. If not, the latest one replaces another.
    pub(super) fn has_grown(&self) -> bool {
        let live = self.connections.lock().iter().filter(|connection| connection.strong_count() > 0).count();
        live > self.most.fetch_max(live, Relaxed)
    }

    /// Begins a round. Next, maintenance has to call [`LeaseInfo::on_seen_idle`] for each idle connection.
    pub(crate) fn begin_round(&self) {
        self.round.fetch_add(1, Relaxed);
    }

    /// Takes the durations of the leases that have ended since the last call.
    pub(crate) fn take_lease_durations(&self) -> Vec<(Operation, Duration)> {
        let durations = mem::take(&mut *self.durations.lock());
        self.is_full.store(false, Relaxed);
        durations
    }

    /// The callers that have a connection: those whose connection was not idle in this round.
    pub(crate) fn holders(&self, now: Instant) -> Vec<Holder> {
        let round = self.round.load(Relaxed);
        let connections: Vec<_> = {
            let mut connections = self.connections.lock();
            connections.retain(|connection| connection.strong_count() > 0);
            connections.iter().filter_map(Weak::upgrade).collect()
        };
        let holder = |connection: &Arc<dyn Leased>| {
            let lease_info = connection.lease_info();
            let rested = lease_info.rested.load(Relaxed);
            let purpose = lease_info.purpose.load().filter(|_| rested != round)?;
            // The lease may have begun at the end of that round, so the count is a lower bound.
            let rounds = round.saturating_sub(purpose.round.max(rested)).saturating_sub(1);
            let running = connection.running_since().map(|since| now.saturating_duration_since(since));
            let is_at_work = connection.is_at_work();
            Some(Holder { purpose, rounds, running, is_at_work, backtrace: lease_info.backtrace.lock().clone() })
        };
        connections.iter().filter_map(holder).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lease_replaces_the_purpose_of_the_one_before() {
        let lease_info = LeaseInfo::new(Arc::default());
        let mut written = WrittenPurpose::default();
        let shown = || lease_info.purpose.load().map(|purpose| purpose.operation);
        let place = Location::caller();
        for operation in
            [Operation::Named("report"), Operation::At(place), Operation::At(place), Operation::Named("login")]
        {
            written.write(&lease_info, operation, place);
            assert_eq!(shown(), Some(operation));
        }
        written.erase(&lease_info);
        assert_eq!(shown(), None);
        written.write(&lease_info, Operation::Named("login"), place);
        assert_eq!(shown(), Some(Operation::Named("login")), "what was erased is written again");
    }
}
