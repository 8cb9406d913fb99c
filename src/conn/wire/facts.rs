//! The facts about one connection: the listener publishes them, and all other code reads them without a lock.

use std::io;
use std::mem;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::error::SqlState;

use super::backend::{Heard, Tag, TransactionStatus};
use super::ledger::Ledger;
use super::traces::Traces;

/// The bit of [`Wire::writes`] that forbids further writes.
const SEALED: u64 = 1 << 63;
/// The bit of [`Wire::writes`] that says that the connection has ended.
const ENDED: u64 = 1 << 62;

/// The facts about one connection. Counters count since start-up.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// The number of attempted writes, whether more are allowed, and whether the connection has ended. One word holds
    /// all three, so that they cannot contradict each other.
    writes: AtomicU64,
    unanswered: AtomicUsize,
    in_flight: AtomicUsize,
    is_committing: AtomicBool,
    /// A write was attempted or postponed, and no flush has succeeded since.
    is_unflushed: AtomicBool,
    has_read_all: AtomicBool,
    status: AtomicU8,
    tag: AtomicU8,
    errors: AtomicU64,
    items: AtomicU64,
    commits: AtomicU64,
    schema_changes: AtomicU64,
    deallocations: AtomicU64,
    lost_statements: AtomicU64,
    has_lost_look_up: AtomicBool,
    /// The names of the statements that were prepared and not used since.
    unused: Mutex<Vec<String>>,
    has_unused: AtomicBool,
    /// How often the pool has dropped them.
    unused_dropped: AtomicU64,
    completed: AtomicU64,
    last_error: AtomicU64,
    parameters: AtomicU64,
    settings: AtomicU64,
    has_touched_session: AtomicBool,
    has_changed_parameter: AtomicBool,
    may_have_prepared: AtomicBool,
    /// The number of sessions that have begun.
    sessions: AtomicU64,
    process_id: AtomicI32,
    last_words: Mutex<Option<(SqlState, String)>>,
    changed_since_start: Mutex<Vec<(String, String)>>,
    /// The shortest round trip of start-up, in nanoseconds; 0 before the first.
    round_trip: AtomicU64,
    /// Whether the stream ends only after the server's end of it.
    is_followed: AtomicBool,
}

/// The facts that the pool reads, and its orders.
impl Wire {
    /// The shortest time between a write of start-up and the answer to it. Zero before the first answer.
    pub(in crate::conn) fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip.load(Relaxed))
    }

    pub(in crate::conn) fn measure(&self, trip: Duration) {
        let (trip, shortest) = (u64::try_from(trip.as_nanos()).unwrap_or(u64::MAX), self.round_trip.load(Relaxed));
        if shortest == 0 || trip < shortest {
            self.round_trip.store(trip, Relaxed);
        }
    }

    /// The number of writes that were attempted, successful or not.
    pub(crate) fn attempts(&self) -> u64 {
        self.writes.load(Acquire) & !(SEALED | ENDED)
    }

    /// Forbids every further write, and returns the number of writes attempted before.
    ///
    /// If that number is the same as before a request was given to the driver, the server has seen nothing of the
    /// request and never will.
    pub(crate) fn seal(&self) -> u64 {
        self.writes.fetch_or(SEALED, AcqRel) & !(SEALED | ENDED)
    }

    /// Makes the stream end only when the server has ended it, which is when no trace of the session is left there.
    pub(in crate::conn) fn follow_to_end(&self) {
        self.is_followed.store(true, Release);
    }

    pub(in crate::conn) fn is_followed(&self) -> bool {
        self.is_followed.load(Acquire)
    }

    /// Records that the connection has ended. Called before the driver's client knows it.
    pub(in crate::conn) fn on_end(&self) {
        self.writes.fetch_or(ENDED, AcqRel);
    }

    /// Returns whether the connection has not ended and may be written to.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.writes.load(Acquire) & (SEALED | ENDED) == 0
    }

    #[inline]
    pub(crate) fn is_sealed(&self) -> bool {
        self.writes.load(Acquire) & SEALED != 0
    }

    /// The number of requests written and not yet answered, without the driver's own housekeeping.
    ///
    /// Read this before any other fact: facts that are read later are at least as new.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Acquire)
    }

    /// Returns whether every request is answered, housekeeping included, and every attempted write is flushed.
    ///
    /// Requests may still wait in the driver's channel. Only the task that drives the connection knows that.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.load(Acquire) == 0 && !self.is_unflushed.load(Acquire)
    }

    /// Returns whether a COMMIT in a request's text was written and has not been answered.
    pub(crate) fn is_committing(&self) -> bool {
        self.is_committing.load(Acquire)
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        TransactionStatus::ALL[usize::from(self.status.load(Acquire))]
    }

    pub(crate) fn last_tag(&self) -> Tag {
        Tag::ALL[usize::from(self.tag.load(Acquire))]
    }

    /// The number of errors that the server has reported.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Acquire)
    }

    /// The number of rows and pieces of COPY data that the driver has read from the socket.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(Relaxed)
    }

    /// The number of commands that committed something. A COMMIT inside of a procedure is not seen.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Acquire)
    }

    /// The number of commands that changed types or tables, and of commits of such a command.
    pub(crate) fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Acquire)
    }

    /// The number of commands that dropped all prepared statements: `DEALLOCATE ALL` and `DISCARD ALL`.
    pub(crate) fn deallocations(&self) -> u64 {
        self.deallocations.load(Acquire)
    }

    /// The number of errors that report a lost or outdated prepared statement.
    pub(crate) fn lost_statements(&self) -> u64 {
        self.lost_statements.load(Acquire)
    }

    /// Returns whether the server has dropped the statements with which the driver looks up unknown types. The driver
    /// does not prepare them again, so no other caller may have the connection.
    pub(crate) fn has_lost_look_up(&self) -> bool {
        self.has_lost_look_up.load(Acquire)
    }

    pub(crate) fn mark_look_up_lost(&self) {
        self.has_lost_look_up.store(true, Release);
    }

    /// Returns whether statements were prepared and not used since.
    pub(crate) fn has_unused(&self) -> bool {
        self.has_unused.load(Acquire)
    }

    /// Returns the names of those statements, and forgets them. Call it only while the connection is at rest.
    pub(crate) fn take_unused(&self) -> Vec<String> {
        self.unused_dropped.fetch_add(1, Release);
        self.has_unused.store(false, Release);
        mem::take(&mut self.unused.lock())
    }

    /// Forgets the names, and leaves the statements. No call was abandoned while they were prepared, so somebody has
    /// their handles. Call it only while the connection is at rest.
    pub(crate) fn forget_unused(&self) {
        if self.has_unused() {
            self.take_unused();
        }
    }

    /// The number of commands that the server has completed.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Acquire)
    }

    /// The SQLSTATE of the last error since [`forget_error`](Self::forget_error).
    ///
    /// An error of a transaction that had already failed does not count, because it only repeats that.
    pub(crate) fn last_error(&self) -> Option<SqlState> {
        let [_, _, _, state @ ..] = self.last_error.load(Acquire).to_be_bytes();
        std::str::from_utf8(&state).ok().filter(|_| state[0] != 0).map(SqlState::from_code)
    }

    pub(crate) fn forget_error(&self) {
        self.last_error.store(0, Release);
    }

    /// The server's last error had this SQLSTATE.
    #[cfg(feature = "testing")]
    pub(in crate::conn) fn pretend_error(&self, state: &SqlState) {
        if let [a, b, c, d, e] = *state.code().as_bytes() {
            self.last_error.store(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]), Release);
        }
    }

    /// Returns whether, since [`begin_session`](Self::begin_session), a request may have left something in the session,
    /// or a reported parameter has another value than then.
    pub(crate) fn has_touched_session(&self) -> bool {
        self.has_touched_session.load(Acquire) || self.has_changed_parameter.load(Acquire)
    }

    /// Returns whether, since [`begin_session`](Self::begin_session), SQL may have prepared a statement.
    pub(crate) fn may_have_prepared(&self) -> bool {
        self.may_have_prepared.load(Acquire)
    }

    /// Declares the present state of the session to be its clean state. Call it only while the connection is at rest.
    pub(crate) fn begin_session(&self) {
        self.sessions.fetch_add(1, Release);
        self.has_touched_session.store(false, Release);
        self.has_changed_parameter.store(false, Release);
        self.may_have_prepared.store(false, Release);
        self.forget_unused();
    }

    /// The id of the server's process; 0 if the server has not sent it.
    pub(crate) fn process_id(&self) -> i32 {
        self.process_id.load(Relaxed)
    }

    /// The number of parameter values that the server has reported.
    pub(in crate::conn) fn parameters(&self) -> u64 {
        self.parameters.load(Acquire)
    }

    /// The number of commands that have set something for the session.
    pub(in crate::conn) fn settings(&self) -> u64 {
        self.settings.load(Acquire)
    }

    /// The parameters that have another value than at start-up, each with the value of start-up.
    pub(in crate::conn) fn changed_since_start(&self) -> Vec<(String, String)> {
        self.changed_since_start.lock().clone()
    }

    /// The reason that the server gave for ending the connection.
    pub(in crate::conn) fn last_words(&self) -> Option<(SqlState, String)> {
        self.last_words.lock().clone()
    }

    /// Resets [`has_read_all`](Self::has_read_all).
    pub(in crate::conn) fn begin_reading(&self) {
        self.has_read_all.store(false, Relaxed);
    }

    /// Returns whether the driver has found nothing more to read since [`begin_reading`](Self::begin_reading). If it
    /// has not, the driver waits for a caller to take what it has already read.
    pub(in crate::conn) fn has_read_all(&self) -> bool {
        self.has_read_all.load(Relaxed)
    }
}

/// The facts that the listener publishes.
impl Wire {
    /// Counts a write before it is attempted. Fails if the wire is sealed.
    pub(super) fn announce_write(&self) -> io::Result<()> {
        self.mark_unflushed();
        let unless_sealed = |writes| (writes & SEALED == 0).then(|| writes + 1);
        match self.writes.fetch_update(AcqRel, Acquire, unless_sealed) {
            Ok(_) => Ok(()),
            Err(_) => Err(sealed()),
        }
    }

    /// The attempt wrote nothing. A [`seal`](Self::seal) in between has counted it, to be on the safe side.
    pub(super) fn take_back_write(&self) {
        self.writes.fetch_sub(1, AcqRel);
    }

    pub(super) fn check_unsealed(&self) -> io::Result<()> {
        if self.is_sealed() { Err(sealed()) } else { Ok(()) }
    }

    pub(super) fn mark_unflushed(&self) {
        self.is_unflushed.store(true, Release);
    }

    pub(super) fn mark_flushed(&self) {
        self.is_unflushed.store(false, Release);
    }

    pub(super) fn mark_all_read(&self) {
        self.has_read_all.store(true, Relaxed);
    }

    /// How often the pool has dropped the unused statements.
    pub(super) fn unused_dropped(&self) -> u64 {
        self.unused_dropped.load(Acquire)
    }

    /// The number of sessions that have begun.
    pub(super) fn sessions(&self) -> u64 {
        self.sessions.load(Acquire)
    }

    pub(super) fn publish_traces(&self, traces: Traces) {
        if traces.leaves_something {
            self.has_touched_session.store(true, Release);
        }
        if traces.may_prepare {
            self.may_have_prepared.store(true, Release);
        }
    }

    pub(super) fn publish_heard(&self, heard: &mut Heard) {
        self.process_id.store(heard.process_id, Relaxed);
        self.status.store(heard.status as u8, Release);
        self.tag.store(heard.tag as u8, Release);
        self.errors.store(heard.errors, Release);
        self.items.store(heard.items, Relaxed);
        self.commits.store(heard.commits, Release);
        self.schema_changes.store(heard.schema_changes, Release);
        self.deallocations.store(heard.deallocations, Release);
        self.lost_statements.store(heard.lost_statements, Release);
        self.completed.store(heard.completed, Release);
        if let Some([a, b, c, d, e]) = heard.error.take() {
            self.last_error.store(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]), Release);
        }
        self.settings.store(heard.settings, Release);
        self.parameters.store(heard.parameters, Release);
        if mem::take(&mut heard.touched_session) {
            self.has_touched_session.store(true, Release);
        }
        let has_changed = heard.is_started && heard.reported.has_changed();
        if self.has_changed_parameter.load(Relaxed) != has_changed {
            self.has_changed_parameter.store(has_changed, Release);
        }
        if let Some(changes) = heard.reported.take_changes() {
            *self.changed_since_start.lock() = changes;
        }
        if mem::take(&mut heard.last_words_changed) {
            self.last_words.lock().clone_from(&heard.last_words);
        }
    }

    /// Call it after every other publication: see [`unanswered`](Self::unanswered).
    pub(super) fn publish_requests(&self, ledger: &mut Ledger) {
        if let Some(unused) = ledger.unused.take_change() {
            self.has_unused.store(!unused.is_empty(), Release);
            *self.unused.lock() = unused;
        }
        self.in_flight.store(ledger.in_flight(), Release);
        self.is_committing.store(ledger.is_committing(), Release);
        self.unanswered.store(ledger.unanswered(), Release);
    }
}

fn sealed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the pool has sealed the connection, so nothing more is written to it")
}
