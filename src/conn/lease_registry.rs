//! Who has which connection, what for, and since when: for upkeep, which looks at them all a few times a second.
//!
//! Each connection has a [`LeaseInfo`]. Whoever takes the connection writes there what for, if that is not there already: most callers want what the one before them wanted,
//! and leave the cache line alone. Time is upkeep's own, in rounds; a lease looks at no clock for this.

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

/// So many holds are kept between two rounds: a fair sample.
const MOST_HOLDS: usize = 256;

/// What a connection was taken for, where, and in which round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) operation: Operation,
    pub(crate) taken: &'static Location<'static>,
    round: u32,
}

impl Purpose {
    /// Compares addresses, not texts: two that read alike may differ, which costs a store.
    fn is_identical(&self, other: &Self) -> bool {
        let is_same_operation = match (self.operation, other.operation) {
            (Operation::Named(one), Operation::Named(other)) => ptr::eq(one, other),
            (Operation::At(one), Operation::At(other)) => ptr::eq(one, other),
            (Operation::Named(_), Operation::At(_)) | (Operation::At(_), Operation::Named(_)) => false,
        };
        is_same_operation && ptr::eq(self.taken, other.taken) && self.round == other.round
    }
}

/// A connection, as the registry sees it.
pub(super) trait Leased: Send + Sync {
    fn lease_info(&self) -> &LeaseInfo;

    /// Since when statements have been running on it.
    fn running_since(&self) -> Option<Instant>;

    /// Whether a statement is running, or the server owes an answer.
    fn is_at_work(&self) -> bool;
}

/// On each connection.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct LeaseInfo {
    registry: Arc<LeaseRegistry>,
    purpose: AtomicCell<Option<Purpose>>,
    /// In this round it was seen idle.
    rested: AtomicU32,
    backtrace: Mutex<Option<Arc<Backtrace>>>,
}

/// Of a pool.
#[derive(Debug, Default)]
pub(crate) struct LeaseRegistry {
    round: AtomicU32,
    connections: Mutex<Vec<Weak<dyn Leased>>>,
    /// So many connections there have been at once.
    most: AtomicUsize,
    /// Of the last connection.
    number: AtomicU64,
    captures: bool,
    is_full: AtomicBool,
    holds: Mutex<Vec<(Operation, Duration)>>,
}

/// A connection in use.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) purpose: Purpose,
    /// For so many rounds, at least, it has been held.
    pub(crate) rounds: u32,
    /// How long a statement has been running on it.
    pub(crate) running: Option<Duration>,
    /// The server owes it an answer.
    pub(crate) is_at_work: bool,
    pub(crate) backtrace: Option<Arc<Backtrace>>,
}

impl LeaseInfo {
    pub(super) fn new(registry: Arc<LeaseRegistry>) -> Self {
        Self { registry, purpose: AtomicCell::new(None), rested: AtomicU32::new(0), backtrace: Mutex::new(None) }
    }

    /// It is idle.
    pub(super) fn rests(&self) {
        self.rested.store(self.registry.round.load(Relaxed), Relaxed);
    }
}

/// The owner's copy of the purpose in a [`LeaseInfo`], which nobody else writes. Comparing with it reads nothing shared.
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

    /// Records that no caller holds the connection: maintenance has it, or it is being closed.
    pub(super) fn erase(&mut self, lease_info: &LeaseInfo) {
        lease_info.purpose.store(None);
        self.0 = None;
    }

    /// Records how long a lease lasted that has ended.
    pub(super) fn lasted(&self, lease_info: &LeaseInfo, duration: Duration) {
        let registry = &lease_info.registry;
        if registry.is_full.load(Relaxed) {
            return;
        }
        if let Some(purpose) = self.0 {
            let mut holds = registry.holds.lock();
            if holds.len() < MOST_HOLDS {
                holds.push((purpose.operation, duration));
            }
            registry.is_full.store(holds.len() >= MOST_HOLDS, Relaxed);
        }
    }
}

impl LeaseRegistry {
    /// Whether it is remembered how each connection was taken, which costs tens of microseconds.
    pub(crate) fn new(captures: bool) -> Self {
        Self { captures, ..Self::default() }
    }

    /// A number for a new connection, which no other of the pool has or had.
    pub(super) fn number(&self) -> u64 {
        self.number.fetch_add(1, Relaxed)
    }

    pub(super) fn enter(&self, connection: Weak<dyn Leased>) {
        self.connections.lock().push(connection);
    }

    /// Whether there is any connection.
    pub(super) fn has_any(&self) -> bool {
        self.connections.lock().iter().any(|connection| connection.strong_count() > 0)
    }

    /// Whether there are more connections than ever before. If not, the latest of them stands in the place of another.
    pub(super) fn has_grown(&self) -> bool {
        let live = self.connections.lock().iter().filter(|connection| connection.strong_count() > 0).count();
        live > self.most.fetch_max(live, Relaxed)
    }

    /// A round begins. Next, the idle connections are to be told to [`rest`](LeaseInfo::rests).
    pub(crate) fn begin_round(&self) {
        self.round.fetch_add(1, Relaxed);
    }

    /// How long connections were held that have come back since this was asked last.
    pub(crate) fn take_holds(&self) -> Vec<(Operation, Duration)> {
        let holds = mem::take(&mut *self.holds.lock());
        self.is_full.store(false, Relaxed);
        holds
    }

    /// The connections in use: those that did not rest in this round.
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
            // It may have been taken at the end of that round; or long ago, and rest no more because it is checked or closed.
            let rounds = round.saturating_sub(purpose.round.max(rested)).saturating_sub(1);
            let running = connection.running_since().map(|since| now.saturating_duration_since(since));
            let is_at_work = connection.is_at_work();
            Some(Holder { purpose, rounds, running, is_at_work, backtrace: lease_info.backtrace.lock().clone() })
        };
        connections.iter().filter_map(holder).collect()
    }
}
