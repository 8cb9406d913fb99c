//! Connections whose readers are far behind the server.
//!
//! A connection notes until when the reader of its stream is busy with rows that lie in memory already. While readers hold all connections there may be,
//! nothing is given back before the first of them is done. The note may be wrong, if the reader drops its stream: then the connection takes it back.

use std::time::Instant;

use super::{Core, Refusal};
use crate::policy::{ShedReason, Shedding, WaitPolicy};

impl<C, W> Core<C, W> {
    /// Notes until when a reader holds this connection at least; `None` takes the note back.
    pub(crate) fn hold_up(&mut self, connection: u64, until: Option<Instant>) {
        match until {
            Some(until) => _ = self.held_up.insert(connection, until),
            None => _ = self.held_up.remove(&connection),
        }
    }

    /// Refuses a caller that has less time than the first of the readers needs, if readers hold all connections.
    pub(super) fn look_at_readers(&self, now: Instant, wait_policy: &WaitPolicy) -> Result<(), Refusal> {
        let most = self.in_use.max(self.limits.max_size);
        if self.held_up.len() < most || wait_policy.shedding != Shedding::Predictive {
            return Ok(());
        }
        let first = self.held_up.values().min().filter(|first| **first > wait_policy.deadline.instant());
        first.map_or(Ok(()), |first| Err(Refusal::Shed(ShedReason::Unread, first.saturating_duration_since(now))))
    }
}
