//! What passes between driver and server, overheard.
//!
//! The [`Stream`](super::stream::Stream) shows each byte it moves to a [`Listener`], which belongs to it alone and takes no lock.
//! What others want to know is published in the [`Wire`] before the driver sees the bytes: whoever is told something by the driver
//! finds here at least what told the driver.

mod backend;
mod frames;
mod frontend;
mod ledger;
mod limits;
mod reported;
mod status;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
mod torn;
mod traces;

use std::io;
use std::mem;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::error::SqlState;

use self::backend::Backend;
use self::frontend::Frontend;
use self::ledger::Ledger;
pub(crate) use self::status::{Tag, TransactionStatus};
#[cfg(fuzzing)]
pub use self::torn::fuzz;
use crate::error::ProtocolViolation;

/// In the word that counts writes.
const SEALED: u64 = 1 << 63;

/// What is known of one connection.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// How many writes were attempted, and whether more may be: one word, so that the two cannot contradict each other.
    writes: AtomicU64,
    unanswered: AtomicUsize,
    in_flight: AtomicUsize,
    is_committing: AtomicBool,
    /// A write was attempted after which nothing has been flushed.
    is_unflushed: AtomicBool,
    has_read_all: AtomicBool,
    status: AtomicU8,
    tag: AtomicU8,
    errors: AtomicU64,
    items: AtomicU64,
    commits: AtomicU64,
    schema_changes: AtomicU64,
    completed: AtomicU64,
    last_error: AtomicU64,
    parameters: AtomicU64,
    settings: AtomicU64,
    has_touched_session: AtomicBool,
    has_changed_parameter: AtomicBool,
    may_have_prepared: AtomicBool,
    /// How many times a session was begun.
    sessions: AtomicU64,
    process_id: AtomicI32,
    last_words: Mutex<Option<(SqlState, String)>>,
    /// The shortest of start-up, in nanoseconds; 0 before the first.
    round_trip: AtomicU64,
}

impl Wire {
    /// The shortest time in start-up between something written and the answer to it.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip.load(Relaxed))
    }

    pub(super) fn measure(&self, trip: Duration) {
        let (trip, shortest) = (u64::try_from(trip.as_nanos()).unwrap_or(u64::MAX), self.round_trip.load(Relaxed));
        if shortest == 0 || trip < shortest {
            self.round_trip.store(trip, Relaxed);
        }
    }

    /// How many writes were attempted so far, successful or not.
    pub(crate) fn attempts(&self) -> u64 {
        self.writes.load(Acquire) & !SEALED
    }

    /// Forbids every further write. Returns the writes attempted up to then: if they are as many as before a request was given to the
    /// driver, the server has seen nothing of it and never will.
    pub(crate) fn seal(&self) -> u64 {
        self.writes.fetch_or(SEALED, AcqRel) & !SEALED
    }

    #[inline]
    pub(crate) fn is_sealed(&self) -> bool {
        self.writes.load(Acquire) & SEALED != 0
    }

    /// Requests written and not yet answered, without the driver's own housekeeping. Ask this first: what else is asked after it is at
    /// least as new.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Acquire)
    }

    /// Whether nothing is unanswered, housekeeping included, and nothing that was begun to be written is still on this side. Requests may
    /// wait in the driver all the same: ask the task.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.load(Acquire) == 0 && !self.is_unflushed.load(Acquire)
    }

    /// Whether a COMMIT was written, as text, and has not been answered.
    pub(crate) fn is_committing(&self) -> bool {
        self.is_committing.load(Acquire)
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        TransactionStatus::ALL[usize::from(self.status.load(Acquire))]
    }

    pub(crate) fn last_tag(&self) -> Tag {
        Tag::ALL[usize::from(self.tag.load(Acquire))]
    }

    /// How many errors the server has reported since start-up.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Acquire)
    }

    /// How many rows and pieces of COPY data the driver has read from the socket since start-up.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(Relaxed)
    }

    /// How many times the server has committed something by a command of its own, since start-up. What procedures commit is not seen.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Acquire)
    }

    /// How many times a command has changed types or tables, or was committed that had, since start-up.
    pub(crate) fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Acquire)
    }

    /// How many commands the server has completed since start-up.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Acquire)
    }

    /// The SQLSTATE of the last error, since [`forget_error`](Self::forget_error). Errors of a transaction that had failed already do not count:
    /// they only say so.
    pub(crate) fn last_error(&self) -> Option<SqlState> {
        let [_, _, _, state @ ..] = self.last_error.load(Acquire).to_be_bytes();
        std::str::from_utf8(&state).ok().filter(|_| state[0] != 0).map(SqlState::from_code)
    }

    pub(crate) fn forget_error(&self) {
        self.last_error.store(0, Release);
    }

    /// Whether a request was seen since [`begin_session`](Self::begin_session) that may have left something in the session, or a parameter is not what it
    /// was then.
    pub(crate) fn has_touched_session(&self) -> bool {
        self.has_touched_session.load(Acquire) || self.has_changed_parameter.load(Acquire)
    }

    /// Whether that may be a statement prepared by SQL.
    pub(crate) fn may_have_prepared(&self) -> bool {
        self.may_have_prepared.load(Acquire)
    }

    /// Whatever the session is now, it began so. To be called while the connection is at rest.
    pub(crate) fn begin_session(&self) {
        self.sessions.fetch_add(1, Release);
        self.has_touched_session.store(false, Release);
        self.has_changed_parameter.store(false, Release);
        self.may_have_prepared.store(false, Release);
    }

    /// Of the server's process; 0 if the server has not told.
    pub(crate) fn process_id(&self) -> i32 {
        self.process_id.load(Relaxed)
    }

    /// How many times the server has told the value of a parameter.
    pub(super) fn parameters(&self) -> u64 {
        self.parameters.load(Acquire)
    }

    /// How many times a command has set something for the session.
    pub(super) fn settings(&self) -> u64 {
        self.settings.load(Acquire)
    }

    /// What the server gave as the reason for ending the connection.
    pub(super) fn last_words(&self) -> Option<(SqlState, String)> {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks anew whether all was read.
    pub(super) fn begin_reading(&self) {
        self.has_read_all.store(false, Relaxed);
    }

    /// Whether the driver has since looked for more to read and found none. Else it waits for somebody to take what it has read.
    pub(super) fn has_read_all(&self) -> bool {
        self.has_read_all.load(Relaxed)
    }

    /// Counts an attempt to write, before it is made; fails once sealed.
    fn announce(&self) -> io::Result<()> {
        self.is_unflushed.store(true, Release);
        let unless_sealed = |writes| (writes & SEALED == 0).then(|| writes + 1);
        match self.writes.fetch_update(AcqRel, Acquire, unless_sealed) {
            Ok(_) => Ok(()),
            Err(_) => Err(sealed()),
        }
    }

    /// The attempt came to nothing. Whoever has sealed meanwhile has counted it, to be on the safe side.
    fn take_back(&self) {
        self.writes.fetch_sub(1, AcqRel);
    }
}

fn sealed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection is sealed: nothing more is written to it")
}

/// What the stream tells of all it does.
#[derive(Debug, Default)]
pub(super) struct Listener {
    wire: Arc<Wire>,
    frontend: Frontend,
    backend: Backend,
    ledger: Ledger,
    /// As many sessions had begun when this was last called.
    sessions: u64,
}

impl Listener {
    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Start-up is over.
    pub(super) fn is_started(&self) -> bool {
        self.backend.heard.is_started
    }

    /// A write is about to be attempted; or not, if that is forbidden.
    pub(super) fn will_write(&self) -> io::Result<()> {
        self.wire.announce()
    }

    /// What there is to write waits: nothing is attempted yet.
    pub(super) fn holds_back(&self) {
        self.wire.is_unflushed.store(true, Release);
    }

    /// Nothing could be written yet.
    pub(super) fn could_not_write(&self) {
        self.wire.take_back();
    }

    pub(super) fn has_written(&mut self, bytes: &[u8]) {
        // Before that the driver writes what has no type, and no requests.
        if self.backend.heard.is_started {
            self.look_for_session();
            self.frontend.feed(bytes, &mut self.ledger);
            self.publish_traces();
            self.publish_requests();
        }
    }

    /// Once sealed, nothing goes out that lies in a buffer below us.
    pub(super) fn will_flush(&self) -> io::Result<()> {
        if self.wire.is_sealed() { Err(sealed()) } else { Ok(()) }
    }

    pub(super) fn has_flushed(&self) {
        self.wire.is_unflushed.store(false, Release);
    }

    pub(super) fn has_read(&mut self, bytes: &[u8]) {
        self.look_for_session();
        self.backend.feed(bytes, &mut self.ledger, self.frontend.is_amid_group());
        self.publish_heard();
        self.publish_requests();
    }

    /// Fails when the server has sent what nobody has to bear: nothing more is read.
    pub(super) fn will_read(&self) -> io::Result<()> {
        let Some(excess) = self.backend.excess() else { return Ok(()) };
        Err(io::Error::new(io::ErrorKind::InvalidData, ProtocolViolation(excess.to_string())))
    }

    pub(super) fn found_nothing_to_read(&self) {
        self.wire.has_read_all.store(true, Relaxed);
    }

    fn look_for_session(&mut self) {
        let sessions = self.wire.sessions.load(Acquire);
        if sessions != self.sessions {
            self.sessions = sessions;
            self.backend.heard.reported.begin();
        }
    }

    fn publish_traces(&mut self) {
        let traces = self.frontend.take_traces();
        self.backend.heard.harmless += traces.harmless;
        if traces.leaves_something {
            self.wire.has_touched_session.store(true, Release);
        }
        if traces.may_prepare {
            self.wire.may_have_prepared.store(true, Release);
        }
    }

    fn publish_heard(&mut self) {
        let (wire, heard) = (&self.wire, &mut self.backend.heard);
        wire.process_id.store(heard.process_id, Relaxed);
        wire.status.store(heard.status as u8, Release);
        wire.tag.store(heard.tag as u8, Release);
        wire.errors.store(heard.errors, Release);
        wire.items.store(heard.items, Relaxed);
        wire.commits.store(heard.commits, Release);
        wire.schema_changes.store(heard.schema_changes, Release);
        wire.completed.store(heard.completed, Release);
        if let Some([a, b, c, d, e]) = heard.error.take() {
            wire.last_error.store(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]), Release);
        }
        wire.settings.store(heard.settings, Release);
        wire.parameters.store(heard.parameters, Release);
        if mem::take(&mut heard.touched_session) {
            wire.has_touched_session.store(true, Release);
        }
        let has_changed = heard.is_started && heard.reported.has_changed();
        if wire.has_changed_parameter.load(Relaxed) != has_changed {
            wire.has_changed_parameter.store(has_changed, Release);
        }
        if mem::take(&mut heard.last_words_changed) {
            wire.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&heard.last_words);
        }
    }

    /// After all else: see [`Wire::unanswered`].
    fn publish_requests(&self) {
        self.wire.in_flight.store(self.ledger.in_flight(), Release);
        self.wire.is_committing.store(self.ledger.is_committing(), Release);
        self.wire.unanswered.store(self.ledger.unanswered(), Release);
    }
}
