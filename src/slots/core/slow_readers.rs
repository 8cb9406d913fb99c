//! Connections whose readers are far behind the server.
//!
//! A connection notes until when the reader of its stream is busy with rows that lie in memory already. While such
//! readers have all connections, none comes back before the first reader is done. If a reader drops its stream early,
//! the connection removes the note.

use std::time::Instant;

use super::{Core, Refusal};
use crate::policy::{ShedReason, Shedding, WaitPolicy};

impl<C, W> Core<C, W> {
    /// Notes until when at least a reader of a stream keeps this connection. `None` removes the note.
    pub(crate) fn set_slow_reader(&mut self, connection: u64, until: Option<Instant>) {
        match until {
            Some(until) => _ = self.slow_readers.insert(connection, until),
            None => _ = self.slow_readers.remove(&connection),
        }
    }

    /// Refuses a caller if slow readers have all connections and none of them is done before the caller's deadline.
    pub(super) fn check_slow_readers(&self, now: Instant, wait_policy: &WaitPolicy) -> Result<(), Refusal> {
        let most = self.in_use.max(self.limits.max_size);
        if self.slow_readers.len() < most || wait_policy.shedding != Shedding::Predictive {
            return Ok(());
        }
        let first = self.slow_readers.values().min().filter(|first| **first > wait_policy.deadline.instant());
        first.map_or(Ok(()), |first| Err(Refusal::Shed(ShedReason::Unread, first.saturating_duration_since(now))))
    }
}
