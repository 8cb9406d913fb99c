//! What a connection's owner, its calls and its clean-up share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tokio::time;
use tokio_postgres::error::SqlState;

use super::calls::Calls;
use super::calls::watcher::Watcher;
use super::cancel::Canceller;
use super::connection_event::ConnectionEvent;
use super::handling::Handling;
use super::lease_registry::{LeaseInfo, Leased};
use super::outcome_recorder::OutcomeRecorder;
use super::round_trips::RoundTrips;
use super::statement_timeout::StatementTimeout;
use super::task::Monitor;
use super::wire::Wire;
use crate::clock::now;
use crate::policy::{Failure, Ticket};
use crate::telemetry::Meter;

pub(super) struct Link {
    pub(super) wire: Arc<Wire>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) calls: Calls,
    pub(super) watcher: Arc<Watcher>,
    canceller: Canceller,
    pub(super) trips: RoundTrips,
    pub(super) statement_timeout: StatementTimeout,
    /// Whether anything was done on the connection since it was last known to be clean.
    used: AtomicBool,
    /// The driver's client was used directly: what was done with it is not known.
    untracked: AtomicBool,
    /// Writes attempted before that.
    untracked_from: AtomicU64,
    recorder: Arc<OutcomeRecorder>,
    pub(super) meter: Meter,
    pub(super) lease_info: LeaseInfo,
    /// The lease's [`Ticket`], as a word, and above it the lease's number. A probe's is taken out when it is recorded.
    ticket: AtomicU64,
    leases: AtomicU64,
}

/// The number of a lease has so many bits: its predecessor has long ended when it comes round.
const LEASE_BITS: u32 = 16;

impl Link {
    pub(super) fn new(
        wire: Arc<Wire>,
        monitor: Arc<Monitor>,
        canceller: Canceller,
        trips: RoundTrips,
        statement_timeout: StatementTimeout,
        handling: &Handling,
    ) -> Self {
        Self {
            wire,
            monitor,
            calls: Calls::default(),
            watcher: Watcher::new(handling.reading, handling.registry.number(), Arc::clone(&handling.recorder)),
            canceller,
            trips,
            statement_timeout,
            used: AtomicBool::new(false),
            untracked: AtomicBool::new(false),
            untracked_from: AtomicU64::new(0),
            recorder: Arc::clone(&handling.recorder),
            meter: handling.meter.clone(),
            lease_info: LeaseInfo::new(Arc::clone(&handling.registry)),
            ticket: AtomicU64::new(0),
            leases: AtomicU64::new(0),
        }
    }

    /// A lease begins. Returns what ends it, if it is a probe. Stored only when it differs: usually it is as before, and a store would take the cache
    /// line along from processor to processor.
    pub(super) fn admitted(&self, ticket: Ticket) -> u64 {
        let lease = if ticket.is_probe() { self.leases.fetch_add(1, Relaxed) % (1 << LEASE_BITS) } else { 0 };
        let word = ticket.to_bits() << LEASE_BITS | lease;
        if self.ticket.load(Relaxed) != word {
            self.ticket.store(word, Relaxed);
        }
        word
    }

    /// A lease that was a probe ends. If nothing was recorded, another may be let out. The connection may have gone to the next lease by now, whose
    /// ticket stays.
    pub(super) fn end_probe(&self, word: u64) {
        if self.take(word) {
            self.recorder.breaker().release(now(), Ticket::from_bits(word >> LEASE_BITS));
        }
    }

    /// Tells the breaker how something went, on behalf of the lease. The first thing that a probe tells is all that counts of it.
    pub(super) fn tell(&self, tell: impl FnOnce(&OutcomeRecorder, Ticket)) {
        let word = self.ticket.load(Relaxed);
        let ticket = Ticket::from_bits(word >> LEASE_BITS);
        let is_told = ticket.is_probe() && !self.take(word);
        if !is_told {
            tell(&self.recorder, ticket);
        }
    }

    pub(super) fn notify_maintenance(&self, event: ConnectionEvent) {
        self.recorder.tell(event);
    }

    fn take(&self, word: u64) -> bool {
        self.ticket.compare_exchange(word, 0, Relaxed, Relaxed).is_ok()
    }

    /// A lease ends that may have been used directly: what came of it is known as far as the connection shows it.
    pub(super) fn tell_untracked(&self, is_closed: bool) {
        let was_used = self.is_untracked() && self.wire.attempts() > self.untracked_from.load(Relaxed);
        let was_answered = !is_closed && self.wire.unanswered() == 0;
        if was_used && (is_closed || was_answered) && !self.wire.is_sealed() {
            self.tell(|recorder, ticket| recorder.untracked(now(), ticket, is_closed));
        }
    }

    pub(super) fn is_untracked(&self) -> bool {
        self.untracked.load(Relaxed)
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    pub(super) fn set_used(&self, is_used: bool) {
        self.used.store(is_used, Relaxed);
    }

    pub(super) fn set_untracked(&self, is_untracked: bool) {
        self.used.store(true, Relaxed);
        if is_untracked && !self.is_untracked() {
            self.untracked_from.store(self.wire.attempts(), Relaxed);
        }
        self.untracked.store(is_untracked, Relaxed);
    }

    pub(super) fn process_id(&self) -> Option<i32> {
        Some(self.wire.process_id()).filter(|id| *id != 0)
    }

    /// A transaction begins: what failed before does not matter to it.
    pub(super) fn forget_failures(&self) {
        self.wire.forget_error();
        self.calls.set_outdated(false);
    }

    /// Whether another transaction was in the way, or a statement was outdated or lost: the whole may succeed if it runs again. Unless a part of it was
    /// committed by hand: `commits` had been heard before.
    pub(super) fn may_run_again(&self, commits: u64) -> bool {
        let is_transient = |state: SqlState| {
            let failure = Failure::answered(state.code());
            failure.is_conflict() || failure.reprepare().is_some()
        };
        let is_whole = self.wire.commits() == commits;
        is_whole && (self.calls.is_outdated() || self.wire.last_error().is_some_and(is_transient))
    }

    /// Errors of the server, and statements that timed out, since start-up.
    pub(super) fn failures(&self) -> u64 {
        self.wire.errors() + self.calls.timeouts()
    }

    /// Forbids every further write, which ends the connection: the server rolls back what is open.
    pub(super) fn end(&self) {
        self.wire.seal();
        self.monitor.wake();
    }

    /// Ends whatever the server is still doing for us. Tells whether the connection is quiet; `false` is for ever.
    ///
    /// A COMMIT is never cancelled: it may have been applied already, and then the cancel would only hide that.
    pub(super) async fn stop(&self) -> bool {
        let mut wait_policy = self.trips.grace();
        loop {
            if let Ok(is_quiet) = time::timeout(wait_policy, self.monitor.quiet()).await {
                return is_quiet;
            }
            if !self.wire.is_committing() {
                self.calls.mark_cancel_sent();
                self.canceller.cancel(&self.wire, self.trips.cancel()).await;
            }
            if self.wire.is_sealed() {
                return false;
            }
            wait_policy = self.trips.effect();
        }
    }
}

impl Leased for Link {
    fn lease_info(&self) -> &LeaseInfo {
        &self.lease_info
    }

    fn running_since(&self) -> Option<Instant> {
        self.calls.running_since()
    }

    fn is_at_work(&self) -> bool {
        self.calls.is_running() || self.wire.unanswered() > 0
    }
}
