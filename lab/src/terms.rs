//! The numbers that all scenarios share.

use std::error::Error;
use std::time::Duration;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The connections of each pool.
pub(crate) const CONNECTIONS: usize = 10;
/// How long a query usually holds its connection: `SELECT pg_sleep(0.04)`.
pub(crate) const HOLD: Duration = Duration::from_millis(40);
/// An answer after this is late, unless the scenario has other deadlines. Callers wait for it all the same, if their
/// pool lets them.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);
/// How long the lab waits for the last answers at the end of a scenario. Until then, no caller gives up.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(1);
/// How many connections other work may have where a pool can limit it, by whichever means.
pub(crate) const FOR_OTHERS: usize = 3;

/// The most that a pool can do, in queries per second, without the time that the server and the network need.
pub(crate) fn capacity(hold: Duration) -> f64 {
    CONNECTIONS as f64 / hold.as_secs_f64()
}
