//! What a cluster sets on the call of a host's pool.

use std::time::Instant;

use super::{Call, Gate};
use crate::policy::Deadline;

impl<'a> Call<'a> {
    /// The connection has to pass this gate on each attempt.
    pub(crate) fn through(self, gate: &'a Gate<'a>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// When the wait for a connection ends, if the call has no deadline. A cluster may have used up a part of the time.
    pub(super) fn wait_deadline(&self, asked: Instant) -> Deadline {
        let wait = self.gate.map_or(self.shared.acquire_timeout, Gate::wait);
        Deadline::after(asked, wait)
    }
}
