//! What a cluster sets on the call of a host's pool.

use super::{Call, Gate};

impl<'a> Call<'a> {
    /// The connection has to pass this gate on each attempt.
    pub(crate) fn through(self, gate: Option<Gate<'a>>) -> Self {
        Self { gate, ..self }
    }
}
