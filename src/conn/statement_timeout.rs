//! The `statement_timeout` of a session, and how the pool lifts it for streams and COPY.
//!
//! With [`server_timeouts`](crate::PoolBuilder::server_timeouts) the pool sets `statement_timeout` when a session
//! begins. It bounds a statement as a whole. A stream or a COPY may take longer as a whole, although each of its steps
//! is in time. So the pool sends a `SET` right before such a statement, and does not wait for the answer. The clean-up
//! after the lease restores the timeout.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join;
use tokio_postgres::{Client, Error};

/// 0 is no timeout.
const LIFT: &str = "SET statement_timeout = 0";
/// Back to the value with which the session began.
const RESTORE: &str = "RESET statement_timeout";

pub(super) struct StatementTimeout {
    /// `None` if the pool has set none.
    timeout: Option<Duration>,
    is_lifted: AtomicBool,
}

impl StatementTimeout {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, is_lifted: AtomicBool::new(false) }
    }

    pub(super) fn is_lifted(&self) -> bool {
        self.is_lifted.load(Relaxed)
    }

    /// Returns whether a statement that ended `after` so long can have been ended by this timeout.
    pub(super) fn is_reached(&self, after: Duration) -> bool {
        self.timeout.is_some_and(|timeout| after >= timeout)
    }

    /// Does `work`, which begins a stream or a COPY, without the timeout.
    pub(super) async fn lift_for<T>(
        &self,
        driver: &Client,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.timeout.is_none() {
            return work.await;
        }
        self.is_lifted.store(true, Relaxed);
        // If the `SET` fails, so does the work, whose error is returned.
        let (_, result) = join(driver.batch_execute(LIFT), work).await;
        result
    }

    /// Restores the timeout if it was lifted. Returns whether it is in force.
    pub(super) async fn restore(&self, driver: &Client) -> bool {
        if self.is_lifted() && driver.batch_execute(RESTORE).await.is_err() {
            return false;
        }
        self.on_reset();
        true
    }

    /// A reset of the session has restored the timeout.
    pub(super) fn on_reset(&self) {
        self.is_lifted.store(false, Relaxed);
    }
}
