//! What a call under way has to look like before it comes to a pretended outcome. Feature `testing`.

use std::sync::Arc;
use std::time::Duration;

use super::in_flight::InFlightCall;
use crate::error::{Error, Lost};

/// How long the reader of a stream pauses in a test that pretends it.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

impl InFlightCall {
    /// The call began this much earlier.
    pub(in crate::conn) fn begun_earlier(mut self, by: Duration) -> Self {
        self.begun = self.begun.checked_sub(by).unwrap_or(self.begun);
        self
    }

    /// A request of the call was written.
    pub(in crate::conn) fn pretend_written(mut self) -> Self {
        self.before.attempts = self.before.attempts.saturating_sub(1);
        self
    }

    /// The call failed, because the server has closed the connection without a word.
    pub(in crate::conn) fn lose(self, error: tokio_postgres::Error) -> Error {
        let lost = Arc::new(Lost::closed());
        let phase = self.phase();
        self.conclude(phase, error, Some(lost))
    }
}
