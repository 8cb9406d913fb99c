//! The options that the calls of one lease share: time limits, names, and how they are measured.

use std::panic::Location;
use std::time::{Duration, Instant};

use crate::operation::Operation;
use crate::policy::{Deadline, Lane};

/// The options of each statement of a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    /// The end of the whole call that the lease was taken for.
    pub(crate) deadline: Option<Deadline>,
    /// How long each statement may take.
    pub(crate) timeout: Option<Duration>,
    /// The caller's name for the call.
    pub(crate) operation: Option<&'static str>,
    /// How much the call matters.
    pub(crate) lane: Lane,
    /// Where the connection was taken.
    pub(crate) taken: &'static Location<'static>,
    /// Whether prepared statements are kept on the connection.
    pub(crate) is_cached: bool,
    /// Whether the statements belong to a [`Transaction`](crate::conn::Transaction), which alone commits them.
    pub(crate) is_transaction: bool,
    /// Whether the statements are parts of an operation that is measured as a whole.
    pub(crate) is_part: bool,
}

impl CallOptions {
    /// Returns what the connection is used for.
    pub(crate) fn named(&self) -> Operation {
        self.operation.map_or(Operation::At(self.taken), Operation::Named)
    }

    /// Returns when a statement that begins now has to be over.
    pub(crate) fn limit(&self, now: Instant) -> Deadline {
        let timeout = self.timeout.map(|timeout| Deadline::after(now, timeout));
        match (self.deadline, timeout) {
            (Some(deadline), Some(timeout)) => deadline.min(timeout),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => Deadline::after(now, Duration::MAX),
        }
    }
}
