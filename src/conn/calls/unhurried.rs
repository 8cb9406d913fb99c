//! Streams and COPY, whose every step is in time, may take longer as a whole than any statement may: the pool's `statement_timeout`, which bounds the
//! whole, is lifted for them.
//!
//! The `SET` is written right before the statement, and its answer is not waited for. What it changes is taken back when the lease ends.

use futures_util::future::join;
use tokio_postgres::Error;

use crate::conn::Client;

/// 0 is no timeout.
const LIFT: &str = "SET statement_timeout = 0";
/// Back to what the session began with.
pub(in crate::conn) const RESTORE: &str = "RESET statement_timeout";

impl Client {
    /// `work` without the timeout that [`server_timeouts`](crate::PoolBuilder::server_timeouts) has set.
    pub(super) async fn unhurried<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let link = &self.conn().link;
        if link.statement_timeout.is_none() {
            return work.await;
        }
        link.set_unhurried(true);
        // If it fails, so does what comes after it, and says why.
        let (_, result) = join(self.driver().batch_execute(LIFT), work).await;
        result
    }
}
