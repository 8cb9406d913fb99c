//! What a call under way has to look like before it comes to a pretended outcome. Feature `testing`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use super::in_flight::InFlightCall;
use super::rows::RowStream;
use crate::conn::Client;
use crate::error::{Error, Lost};

/// How long the reader of a stream pauses in a test that pretends it.
const PAUSE: Duration = Duration::from_secs(60);

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

impl Client {
    /// Returns a stream that ends at its first poll, because its reader pauses for too long. An empty statement is sent
    /// in place of the caller's.
    pub(super) async fn idle_stream(&self) -> Result<RowStream<'_>, Error> {
        let nothing = std::iter::empty::<(&(dyn ToSql + Sync), Type)>();
        let work = pin!(self.driver().query_typed_raw("", nothing));
        let (rows, call) = self.begun(self.span("query_raw"), work).await?;
        let stream = RowStream::new(rows, call, Arc::clone(&self.conn().statements));
        stream.end_as_idle(PAUSE);
        Ok(stream)
    }
}
