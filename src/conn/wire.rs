//! Observes the protocol between the driver and the server.
//!
//! The [`Stream`](super::stream::Stream) reports each byte that it moves to its [`ProtocolTracker`]. The tracker
//! belongs to the stream alone, so it needs no lock. It publishes what others need in the [`Wire`], before the driver
//! sees the bytes. So a caller that learned something from the driver finds at least that in the `Wire`.

mod backend;
mod facts;
mod frames;
mod frontend;
mod ledger;
mod limits;
#[cfg(any(test, fuzzing))]
mod pieces;
mod reported;
#[cfg(test)]
mod tests;
mod traces;
mod unused;

use std::io;
use std::sync::Arc;

use self::backend::Backend;
pub(crate) use self::backend::{Tag, TransactionStatus};
pub(crate) use self::facts::Wire;
use self::frontend::Frontend;
use self::ledger::Ledger;
#[cfg(fuzzing)]
pub use self::pieces::fuzz;
use crate::error::ProtocolViolation;

/// Receives every event of one stream, and publishes what it learns.
#[derive(Debug, Default)]
pub(super) struct ProtocolTracker {
    wire: Arc<Wire>,
    frontend: Frontend,
    backend: Backend,
    ledger: Ledger,
    /// The number of sessions that had begun at the last event.
    sessions: u64,
    /// How often the pool had dropped the unused statements at the last event.
    unused_dropped: u64,
}

impl ProtocolTracker {
    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Returns whether start-up is over.
    pub(super) fn is_started(&self) -> bool {
        self.backend.heard.is_started
    }

    /// The stream is about to write. Fails if the wire is sealed.
    pub(super) fn before_write(&self) -> io::Result<()> {
        self.wire.announce_write()
    }

    /// The stream postpones a write that it has not attempted.
    pub(super) fn on_write_postponed(&self) {
        self.wire.mark_unflushed();
    }

    /// The attempted write wrote nothing yet.
    pub(super) fn on_write_pending(&self) {
        self.wire.take_back_write();
    }

    pub(super) fn on_written(&mut self, bytes: &[u8]) {
        // During start-up the driver writes no requests, and messages that have no type byte.
        if self.backend.heard.is_started {
            self.follow_session();
            self.frontend.feed(bytes, &mut self.ledger);
            let traces = self.frontend.take_traces();
            self.backend.heard.harmless += traces.harmless;
            self.wire.publish_traces(traces);
            self.wire.publish_requests(&mut self.ledger);
        }
    }

    /// The stream is about to flush. Fails if the wire is sealed, so that no bytes leave a buffer of the layers below.
    pub(super) fn before_flush(&self) -> io::Result<()> {
        self.wire.check_unsealed()
    }

    pub(super) fn on_flushed(&self) {
        self.wire.mark_flushed();
    }

    pub(super) fn on_read(&mut self, bytes: &[u8]) {
        self.follow_session();
        let deallocations = self.backend.heard.deallocations;
        self.backend.feed(bytes, &mut self.ledger, self.frontend.is_amid_group());
        if self.backend.heard.deallocations != deallocations && self.frontend.has_look_up() {
            self.wire.mark_look_up_lost();
        }
        self.wire.publish_heard(&mut self.backend.heard);
        self.wire.publish_requests(&mut self.ledger);
    }

    /// The stream is about to read. Fails if the server has exceeded a limit: nothing more is read from it.
    pub(super) fn before_read(&self) -> io::Result<()> {
        let Some(excess) = self.backend.excess() else { return Ok(()) };
        Err(io::Error::new(io::ErrorKind::InvalidData, ProtocolViolation(excess.to_string())))
    }

    pub(super) fn on_nothing_to_read(&self) {
        self.wire.mark_all_read();
    }

    /// Starts the comparison of parameters anew if a session has begun since the last event. Forgets the unused
    /// statements if the pool has dropped them.
    fn follow_session(&mut self) {
        let dropped = self.wire.unused_dropped();
        if dropped != self.unused_dropped {
            self.unused_dropped = dropped;
            self.ledger.unused.clear();
        }
        let sessions = self.wire.sessions();
        if sessions != self.sessions {
            self.sessions = sessions;
            self.backend.heard.reported.begin();
        }
    }
}
