//! Which caller has which connection, what for, and since when. Maintenance reads this a few times a second, and so
//! does whoever asks for the holders.
//!
//! Each connection has a [`LeaseInfo`]. A caller that takes the connection writes its purpose there. Most callers have
//! the purpose of the caller before them, and then write nothing, so they leave the cache line alone. The purpose has
//! the moment in which the lease began, a tenth of a second, which the slots know anyway. So a lease reads no clock for
//! this.

use std::backtrace::Backtrace;
use std::mem;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_utils::atomic::AtomicCell;
use parking_lot::Mutex;

use crate::holder::{self, Holder, HolderState};
use crate::operation::Operation;
use crate::policy::{EndedLease, Lane};
use crate::slots::Life;

/// The registry keeps so many lease durations between two rounds: a fair sample.
const MOST_DURATIONS: usize = 256;

/// The operation for which a connection was taken, the place in the code, the moment, and the caller's lane.
#[derive(Debug, Clone, Copy)]
struct Purpose {
    operation: Operation,
    taken: &'static Location<'static>,
    moment: u32,
    lane: Lane,
}

impl Purpose {
    /// Compares addresses instead of texts. Equal texts at two addresses count as different, which only costs a store.
    fn is_identical(&self, other: &Self) -> bool {
        let is_same_operation = match (self.operation, other.operation) {
            (Operation::Named(name), Operation::Named(name_of_other)) => {
                ptr::eq(name, name_of_other) && ptr::eq(self.taken, other.taken)
            }
            // An operation without a name is the place that took the connection.
            (Operation::At(place), Operation::At(place_of_other)) => ptr::eq(place, place_of_other),
            (Operation::Named(_), Operation::At(_)) | (Operation::At(_), Operation::Named(_)) => false,
        };
        is_same_operation && self.moment == other.moment && self.lane == other.lane
    }
}

/// The facts about a connection that the registry needs.
pub(super) trait Leased: Send + Sync {
    fn lease_info(&self) -> &LeaseInfo;

    fn process_id(&self) -> Option<i32>;

    /// Returns since when statements have been running on the connection.
    fn running_since(&self) -> Option<Instant>;

    /// Returns whether the next step is the server's: it owes an answer, and does not wait for data or for a reader.
    fn is_waiting_for_server(&self) -> bool;

    fn is_in_transaction(&self) -> bool;
}

/// The record of one connection.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct LeaseInfo {
    registry: Arc<LeaseRegistry>,
    purpose: AtomicCell<Option<Purpose>>,
    /// The last look that found the connection idle.
    rested: AtomicU32,
    /// Whether the pool is settling the connection after its lease.
    is_settling: AtomicBool,
    backtrace: Mutex<Option<Arc<Backtrace>>>,
}

/// The records of all connections of a pool.
#[derive(Debug, Default)]
pub(crate) struct LeaseRegistry {
    /// The number of the latest look at all connections.
    look: AtomicU32,
    /// Held during a look, because a second one would take the marks of the first for its own.
    looking: Mutex<()>,
    connections: Mutex<Vec<Weak<dyn Leased>>>,
    /// The most connections that there were at once.
    most: AtomicUsize,
    /// The number of the next connection.
    number: AtomicU64,
    captures: bool,
    is_full: AtomicBool,
    durations: Mutex<Vec<EndedLease>>,
}

impl LeaseInfo {
    pub(super) fn new(registry: Arc<LeaseRegistry>) -> Self {
        Self {
            registry,
            purpose: AtomicCell::new(None),
            rested: AtomicU32::new(0),
            is_settling: AtomicBool::new(false),
            backtrace: Mutex::new(None),
        }
    }

    /// A look has found the connection idle.
    pub(super) fn on_seen_idle(&self) {
        self.rested.store(self.registry.look.load(Relaxed), Relaxed);
    }

    /// The pool begins to settle the connection after its lease. [`WrittenPurpose::erase`] ends this.
    pub(super) fn on_settle(&self) {
        self.is_settling.store(true, Relaxed);
    }
}

/// The owner's copy of the purpose in a [`LeaseInfo`], which only the owner writes. Comparing with it reads nothing
/// shared.
#[derive(Debug, Default)]
pub(super) struct WrittenPurpose(Option<Purpose>);

impl WrittenPurpose {
    /// Records that a lease begins.
    #[inline]
    pub(super) fn write(
        &mut self,
        lease_info: &LeaseInfo,
        operation: Operation,
        taken: &'static Location<'static>,
        moment: u32,
        lane: Lane,
    ) {
        let purpose = Purpose { operation, taken, moment, lane };
        if !self.0.as_ref().is_some_and(|written| written.is_identical(&purpose)) {
            lease_info.purpose.store(Some(purpose));
            self.0 = Some(purpose);
        }
        if lease_info.registry.captures {
            *lease_info.backtrace.lock() = Some(Arc::new(Backtrace::force_capture()));
        }
    }

    /// Records that no caller has the connection: maintenance has it, or it is being closed.
    pub(super) fn erase(&mut self, lease_info: &LeaseInfo) {
        lease_info.purpose.store(None);
        lease_info.is_settling.store(false, Relaxed);
        self.0 = None;
    }

    /// Records the duration of a lease that has ended. `is_cut`: a call on it was abandoned.
    pub(super) fn record_duration(&self, lease_info: &LeaseInfo, seconds: f64, is_cut: bool) {
        let registry = &lease_info.registry;
        if registry.is_full.load(Relaxed) {
            return;
        }
        if let Some(purpose) = self.0 {
            let mut durations = registry.durations.lock();
            if durations.len() < MOST_DURATIONS {
                let Purpose { operation, lane, .. } = purpose;
                durations.push(EndedLease { operation, lane, lasted: Duration::from_secs_f64(seconds), is_cut });
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

    /// Returns whether there is any connection that serves callers.
    pub(super) fn has_any(&self) -> bool {
        self.connections.lock().iter().any(|connection| connection.strong_count() > 0)
    }

    /// Returns whether there are more connections than ever before. If not, the latest one replaces another.
    pub(super) fn has_grown(&self) -> bool {
        let live = self.connections.lock().iter().filter(|connection| connection.strong_count() > 0).count();
        live > self.most.fetch_max(live, Relaxed)
    }

    /// Takes the durations of the leases that have ended since the last call.
    pub(crate) fn take_lease_durations(&self) -> Vec<EndedLease> {
        let durations = mem::take(&mut *self.durations.lock());
        self.is_full.store(false, Relaxed);
        durations
    }

    /// Returns the callers that have a connection, the longest first. `look_at_idle` has to call
    /// [`LeaseInfo::on_seen_idle`] for each idle connection: the others are leased or being settled.
    ///
    /// A connection that was handed to a waiter whose task has not run yet still shows the lease before.
    pub(crate) fn holders(&self, now: Instant, look_at_idle: impl FnOnce() -> Life) -> Vec<Holder> {
        // Dropped after the lock.
        let connections: Vec<_> = {
            let mut connections = self.connections.lock();
            connections.retain(|connection| connection.strong_count() > 0);
            connections.iter().filter_map(Weak::upgrade).collect()
        };
        let looking = self.looking.lock();
        let look = self.look.fetch_add(1, Relaxed).wrapping_add(1);
        let life = look_at_idle();
        let is_leased = |connection: &&Arc<dyn Leased>| connection.lease_info().rested.load(Relaxed) != look;
        let leased = connections.iter().filter(is_leased);
        let mut holders: Vec<_> = leased.filter_map(|connection| holder_of(&**connection, now, life)).collect();
        drop(looking);
        holder::sort(&mut holders);
        holders
    }
}

fn holder_of(connection: &dyn Leased, now: Instant, life: Life) -> Option<Holder> {
    let lease_info = connection.lease_info();
    let Purpose { operation, taken, moment, lane } = lease_info.purpose.load()?;
    let is_settling = lease_info.is_settling.load(Relaxed);
    let running = connection.running_since().filter(|_| !is_settling);
    let running = running.map(|since| now.saturating_duration_since(since));
    let state = match is_settling {
        true => HolderState::Settling,
        false if connection.is_waiting_for_server() => HolderState::WaitingForServer,
        false => HolderState::WaitingForCaller,
    };
    Some(Holder {
        operation,
        lane,
        taken,
        age: life.since(moment).max(running.unwrap_or_default()),
        state,
        in_transaction: connection.is_in_transaction(),
        running,
        process_id: connection.process_id(),
        backtrace: lease_info.backtrace.lock().clone(),
    })
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
            written.write(&lease_info, operation, place, 0, Lane::Normal);
            assert_eq!(shown(), Some(operation));
        }
        written.erase(&lease_info);
        assert_eq!(shown(), None);
        written.write(&lease_info, Operation::Named("login"), place, 0, Lane::Normal);
        assert_eq!(shown(), Some(Operation::Named("login")), "what was erased is written again");
    }

    #[test]
    fn the_lane_of_a_lease_is_shown_while_it_lasts_and_recorded_at_its_end() {
        let registry = Arc::new(LeaseRegistry::default());
        let (now, place, operation) = (Instant::now(), Location::caller(), Operation::Named("report"));
        let fake = fake(&registry, None, true);
        let mut written = WrittenPurpose::default();
        for lane in [Lane::Normal, Lane::Background, Lane::Critical, Lane::Critical] {
            written.write(&fake.lease_info, operation, place, 0, lane);
            let shown: Vec<_> = registry.holders(now, || Life::of_millis(0)).iter().map(|holder| holder.lane).collect();
            assert_eq!(shown, [lane]);
            written.record_duration(&fake.lease_info, 1.0, false);
            let expected = EndedLease { operation, lane, lasted: Duration::from_secs(1), is_cut: false };
            assert_eq!(registry.take_lease_durations(), [expected]);
        }
    }

    struct Fake {
        lease_info: LeaseInfo,
        running_since: Option<Instant>,
        is_waiting_for_server: bool,
    }

    impl Leased for Fake {
        fn lease_info(&self) -> &LeaseInfo {
            &self.lease_info
        }

        fn process_id(&self) -> Option<i32> {
            None
        }

        fn running_since(&self) -> Option<Instant> {
            self.running_since
        }

        fn is_waiting_for_server(&self) -> bool {
            self.is_waiting_for_server
        }

        fn is_in_transaction(&self) -> bool {
            false
        }
    }

    fn fake(registry: &Arc<LeaseRegistry>, running_since: Option<Instant>, is_waiting_for_server: bool) -> Arc<Fake> {
        let lease_info = LeaseInfo::new(Arc::clone(registry));
        let fake = Arc::new(Fake { lease_info, running_since, is_waiting_for_server });
        registry.add(Arc::downgrade(&fake) as Weak<dyn Leased>);
        fake
    }

    #[test]
    fn a_lease_is_listed_until_a_look_finds_its_connection_idle_or_the_pool_has_it() {
        let registry = Arc::new(LeaseRegistry::default());
        let (now, place) = (Instant::now(), Location::caller());
        let (idle, settled) = (fake(&registry, None, true), fake(&registry, Some(now), true));
        let (mut first, mut second) = (WrittenPurpose::default(), WrittenPurpose::default());
        first.write(&idle.lease_info, Operation::Named("idle"), place, 0, Lane::Normal);
        second.write(&settled.lease_info, Operation::Named("settled"), place, 0, Lane::Normal);
        let listed = |is_seen_idle: bool| {
            let holders = registry.holders(now, || {
                if is_seen_idle {
                    idle.lease_info.on_seen_idle();
                }
                Life::of_millis(0)
            });
            let mut shown: Vec<_> =
                holders.iter().map(|holder| (holder.operation.to_string(), holder.state.as_str())).collect();
            shown.sort();
            shown
        };
        let of = |operation: &str, state| (operation.to_owned(), state);
        assert_eq!(listed(false), [of("idle", "server"), of("settled", "server")]);
        assert_eq!(listed(true), [of("settled", "server")]);
        assert_eq!(listed(false).len(), 2, "taken again, for the same operation");
        settled.lease_info.on_settle();
        assert_eq!(listed(true), [of("settled", "settling")]);
        second.erase(&settled.lease_info);
        assert_eq!(listed(true), []);
        second.write(&settled.lease_info, Operation::Named("next"), place, 0, Lane::Normal);
        assert_eq!(listed(true), [of("next", "server")]);
        drop(settled);
        assert_eq!(listed(true), [], "a connection that has ended has no holder");
    }

    #[test]
    fn a_lease_is_as_old_as_its_moment_and_at_least_as_old_as_its_statement() {
        let registry = Arc::new(LeaseRegistry::default());
        let (now, place, millis) = (Instant::now(), Location::caller(), Duration::from_millis);
        let leases = [("waits", None, 3), ("runs", Some(now - millis(90)), 9), ("ran before", Some(now), 3)];
        let _connections = leases.map(|(operation, running_since, moment)| {
            let fake = fake(&registry, running_since, false);
            WrittenPurpose::default().write(&fake.lease_info, Operation::Named(operation), place, moment, Lane::Normal);
            fake
        });
        let holders = registry.holders(now, || Life::of_millis(1_000));
        let ages: Vec<_> = holders.iter().map(|holder| (holder.operation.to_string(), holder.age)).collect();
        let expected = [("ran before", 600), ("waits", 600), ("runs", 90)];
        assert_eq!(ages, expected.map(|(operation, age)| (operation.to_owned(), millis(age))));
    }
}
