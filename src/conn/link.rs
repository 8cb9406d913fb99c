//! The data that a connection's owner, its calls and its clean-up share.

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
use super::wire::{TransactionStatus, Wire};
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
    /// Whether the connection was used since it was last known to be clean.
    used: AtomicBool,
    /// A caller used the driver's client directly, by the deref. The pool does not know what ran.
    untracked: AtomicBool,
    /// How many writes had been attempted before that.
    untracked_from: AtomicU64,
    recorder: Arc<OutcomeRecorder>,
    pub(super) meter: Meter,
    pub(super) lease_info: LeaseInfo,
    /// The lease's [`Ticket`] as a word and, in its low bits, the lease's number. 0 once a probe's result is recorded.
    ticket: AtomicU64,
    /// Leases that were probes.
    probes: AtomicU64,
}

/// How many bits the number of a lease has. When a number is used again, the lease that had it has long ended.
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
            watcher: Watcher::new(handling.reading, handling.registry.next_number(), Arc::clone(&handling.recorder)),
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
            probes: AtomicU64::new(0),
        }
    }

    /// Begins a lease. Returns the argument for [`end_probe`](Self::end_probe), if the lease is a probe.
    ///
    /// Most leases have the ticket of the one before. It is not stored again, because a store moves the cache line from
    /// processor to processor.
    #[inline]
    pub(super) fn begin_lease(&self, ticket: Ticket) -> u64 {
        let lease = if ticket.is_probe() { self.probes.fetch_add(1, Relaxed) % (1 << LEASE_BITS) } else { 0 };
        let word = ticket.to_bits() << LEASE_BITS | lease;
        if self.ticket.load(Relaxed) != word {
            self.ticket.store(word, Relaxed);
        }
        word
    }

    /// Ends a lease that was a probe. If no result was recorded for it, the breaker may admit another probe. By now the
    /// connection may belong to the next lease, whose ticket stays.
    pub(super) fn end_probe(&self, word: u64) {
        if self.take(word) {
            self.recorder.breaker().release(now(), Ticket::from_bits(word >> LEASE_BITS));
        }
    }

    /// Records a result under the ticket of the lease. Of a probe, only the first result counts.
    pub(super) fn record(&self, record: impl FnOnce(&OutcomeRecorder, Ticket)) {
        let word = self.ticket.load(Relaxed);
        let ticket = Ticket::from_bits(word >> LEASE_BITS);
        let is_recorded = ticket.is_probe() && !self.take(word);
        if !is_recorded {
            record(&self.recorder, ticket);
        }
    }

    pub(super) fn notify_maintenance(&self, event: ConnectionEvent) {
        self.recorder.pass_on(event);
    }

    /// Takes the ticket out. Returns `false` if it is another or was taken out.
    fn take(&self, word: u64) -> bool {
        self.ticket.compare_exchange(word, 0, Relaxed, Relaxed).is_ok()
    }

    /// Records the result of a lease that used the driver's client directly. The state of the connection is all that is
    /// known of it.
    pub(super) fn record_untracked(&self, is_closed: bool) {
        let was_used = self.is_untracked() && self.wire.attempts() > self.untracked_from.load(Relaxed);
        let was_answered = !is_closed && self.wire.unanswered() == 0;
        if was_used && (is_closed || was_answered) && !self.wire.is_sealed() {
            self.record(|recorder, ticket| recorder.untracked(now(), ticket, is_closed));
        }
    }

    pub(super) fn is_untracked(&self) -> bool {
        self.untracked.load(Relaxed)
    }

    #[inline]
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

    /// Returns whether the server has statements that nobody uses and perhaps nobody knows, or has dropped the driver's
    /// own.
    pub(super) fn has_odd_statements(&self) -> bool {
        self.calls.suspects_statements() && (self.wire.has_unused() || self.wire.has_lost_look_up())
    }

    pub(super) fn process_id(&self) -> Option<i32> {
        Some(self.wire.process_id()).filter(|id| *id != 0)
    }

    /// Forgets earlier failures. They do not matter to the transaction that begins.
    pub(super) fn forget_failures(&self) {
        self.wire.forget_error();
        self.calls.set_outdated(false);
    }

    /// Returns whether a transaction may succeed if it runs again as a whole, because another transaction was in the
    /// way, or a statement was outdated or lost. `commits` is how many commits the wire had seen before the
    /// transaction. If it has seen more, a part was committed by hand.
    pub(super) fn may_run_again(&self, commits: u64) -> bool {
        let is_transient = |state: SqlState| {
            let failure = Failure::answered(state.code());
            failure.is_conflict() || failure.reprepare().is_some()
        };
        let is_whole = self.wire.commits() == commits;
        is_whole && (self.calls.is_outdated() || self.wire.last_error().is_some_and(is_transient))
    }

    /// Errors of the server, and calls that timed out or were done in part, since the connection was dialed.
    pub(super) fn failures(&self) -> u64 {
        self.wire.errors() + self.calls.timeouts() + self.calls.done_in_part()
    }

    /// Forbids every further write, which ends the connection. The server rolls back an open transaction.
    pub(super) fn seal(&self) {
        self.wire.seal();
        self.monitor.wake();
    }

    /// Stops what the server still does on this connection. Returns whether the connection is quiet. `false` is final.
    ///
    /// The pool never cancels a COMMIT: if it was applied already, the cancel would only hide that.
    pub(super) async fn stop(&self) -> bool {
        self.stop_if(|| true).await
    }

    /// As [`stop`](Self::stop), for calls that were abandoned while the lease goes on. Sends no cancel any more once
    /// the caller has used the driver's client directly: a cancel could hit a statement that the pool does not know of.
    pub(super) async fn stop_during_lease(&self) -> bool {
        self.stop_if(|| !self.is_untracked()).await
    }

    /// `may_cancel` is asked right before each cancel is sent.
    async fn stop_if(&self, may_cancel: impl Fn() -> bool) -> bool {
        let mut wait = self.trips.grace();
        loop {
            if let Ok(is_quiet) = time::timeout(wait, self.monitor.quiet()).await {
                if !is_quiet && self.calls.is_uncounted() {
                    // The connection has ended, and a COPY may still wait for a lock, which the server does not notice.
                    self.canceller.cancel(&self.wire, self.trips.cancel(), || true).await;
                }
                return is_quiet;
            }
            if !self.wire.is_committing() && may_cancel() {
                self.calls.mark_cancel_sent();
                self.canceller.cancel(&self.wire, self.trips.cancel(), &may_cancel).await;
            }
            if self.wire.is_sealed() || !may_cancel() {
                return false;
            }
            wait = self.trips.effect();
        }
    }
}

impl Leased for Link {
    fn lease_info(&self) -> &LeaseInfo {
        &self.lease_info
    }

    fn process_id(&self) -> Option<i32> {
        self.process_id()
    }

    fn running_since(&self) -> Option<Instant> {
        self.calls.running_since()
    }

    fn is_waiting_for_server(&self) -> bool {
        let is_at_work = self.wire.unanswered() > 0 || self.calls.is_running();
        is_at_work && !self.calls.awaits_copy_data() && !self.watcher.has_unread()
    }

    fn is_in_transaction(&self) -> bool {
        self.wire.status() != TransactionStatus::Idle
    }
}
