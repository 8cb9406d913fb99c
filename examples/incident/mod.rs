//! The incident lab. In reading order: `scenarios` (the incidents), `peers` (the pools), `play` (runs a scenario),
//! `measure` (its figures), `checks` (the limits of the figures); then `table`, `chart`, `svg` and `json`, which show
//! them.

pub(crate) mod arguments;
pub(crate) mod chart;
pub(crate) mod checks;
pub(crate) mod json;
pub(crate) mod load;
pub(crate) mod measure;
pub(crate) mod peers;
pub(crate) mod play;
pub(crate) mod progress;
pub(crate) mod scenarios;
pub(crate) mod series;
pub(crate) mod svg;
pub(crate) mod table;
pub(crate) mod world;

use std::error::Error;
use std::time::Duration;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The connections of each pool.
pub(crate) const CONNECTIONS: usize = 10;
/// How long a query usually holds its connection: `SELECT pg_sleep(0.04)`.
pub(crate) const HOLD: Duration = Duration::from_millis(40);
/// An answer after this is late. Callers wait for it all the same, if their pool lets them.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);

/// The most that a pool can do, in queries per second, without the time that the server and the network need.
pub(crate) fn capacity(hold: Duration) -> f64 {
    CONNECTIONS as f64 / hold.as_secs_f64()
}
