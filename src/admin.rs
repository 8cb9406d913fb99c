//! What an operator sees of a pool, as data for an admin page. Feature `admin`.
//!
//! ```no_run
//! # fn example(pool: failfast::Pool) {
//! println!("{}", pool.report().to_json());
//! # }
//! ```
//!
//! # An endpoint
//!
//! With the feature `axum`, `handler` answers with the report:
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # fn example(pool: failfast::Pool) -> axum::Router {
//! use axum::Router;
//! use axum::routing::get;
//!
//! Router::new().route("/admin/pool", get(failfast::admin::handler(pool)))
//! # }
//! ```
//!
//! **Put it behind authentication, or on a port of its own that only operators reach.** The report only reads, and has
//! no SQL, no parameter and no password. But it has the names of operations, places in the code, the server's process
//! ids, and the error of the latest dial, which names the server.
//!
//! # The JSON
//!
//! That of a cluster is described at `ClusterReport`.
//!
//! Keys and words never change their meaning; later versions may add keys. The unit is in the name of each key. Numbers
//! are integers, except `demand`, `background_share`, the percentages, `inflation`, `utilization` and `throughput`.
//! What is not known is `null`.
//!
//! | key | value |
//! |---|---|
//! | `pool` | the pool's name |
//! | `status` | [`Status`]: `max_size`, `in_use`, `settling`, `idle`, `dialing`, `closing`, `closed`, `demand` (connections), `background_share` (0 to 1), `fleet`, `adaptive`, `time_to_exhaustion_ms`, `last_connect_error`, `last_success_age_ms` |
//! | `status.fleet` | with the feature `fleet`, `FleetStatus` or `null`: `name`, `state` (a word of `FleetState::as_str`), `granted`, `wanted`, `minimum`, `max_size`, `members`, `capacity`, `strangers`, `last_reading_age_ms` |
//! | `status.adaptive` | with the feature `fleet`, `AdaptiveStatus` or `null`: `acts`, `limit`, `max_size`, `inflation`, `advice`, `capped`, `trouble` |
//! | `status.adaptive.advice` | [`Advice`](crate::Advice) or `null`: `reason` (a word of [`AdviceReason::as_str`](crate::AdviceReason::as_str)), `operation`, `from`, `to`, `inflation`, `utilization` (0 to 1), `throughput` (leases per second) |
//! | `status.adaptive.capped` | a list of operations that may use no more connections than usual: `operation`, `most` |
//! | `queue` | the callers that wait: `waiting`, `max_waiting`, `predicted_wait_ms` |
//! | `holders` | a list of each [`Holder`], the longest first: `operation`, `lane` (a word of [`Lane::as_str`](crate::Lane::as_str)), `taken` (file and line), `age_ms`, `state` (a word of [`HolderState::as_str`](crate::HolderState::as_str)), `in_transaction`, `running_ms`, `process_id` |
//! | `breaker` | [`Snapshot`] without its history: `state` (a word of [`State::as_str`](crate::breaker::State::as_str)), `age_ms`, `completed`, `failures`, `unreachable`, `slow`, `rejected`, `failure_rate_percent`, `slow_rate_percent`, `retry_after_ms`, `probes` |
//! | `baselines` | a list of each [`Baseline`]: `operation`, `mean_us`, `leases`, `slow_after_us`, `inflated_to_us` |
//! | `refusals` | since the pool was built: a count for each word of [`ShedReason::as_str`](crate::ShedReason::as_str), `timed_out`, `circuit_open` |

#[cfg(feature = "axum")]
mod axum;
mod json;

#[cfg(all(feature = "axum", feature = "cluster"))]
pub(crate) use self::axum::json_response;
#[cfg(feature = "axum")]
pub use self::axum::{Reporting, handler};
use crate::breaker::Snapshot;
use crate::clock::now;
use crate::holder::Holder;
pub use crate::policy::Baseline;
use crate::policy::RefusalCounts;
use crate::pool::Pool;
use crate::status::Status;

/// What an operator sees of a pool. [`Pool::report`] makes it.
///
/// With serde it becomes the [JSON](crate::admin#the-json) that the module describes, in any format that serde writes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolReport {
    /// How many connections and callers there are.
    pub status: Status,
    /// Who holds a connection, the longest first.
    pub holders: Vec<Holder>,
    /// The circuit breaker: its state and its rates.
    pub breaker: Snapshot,
    /// How long each operation usually holds a connection. The pool remembers up to 256 operations.
    pub baselines: Vec<Baseline>,
    /// The callers that were refused since the pool was built.
    pub refused: RefusalCounts,
}

impl PoolReport {
    /// Returns the report as [JSON](crate::admin#the-json).
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has only texts, numbers, lists and tables")
    }
}

impl Pool {
    /// Returns what an operator sees of the pool: status, holders, queue, breaker, usual lease durations, refusals.
    ///
    /// It waits for nothing, and costs about as much as [`holders`](Self::holders) and [`status`](Self::status)
    /// together. The parts are read one after the other, so their numbers may differ by the callers of that instant.
    ///
    /// Feature `admin`.
    pub fn report(&self) -> PoolReport {
        let reports = &self.shared.maintenance.reports;
        PoolReport {
            status: self.status(),
            holders: self.holders(),
            breaker: self.breaker().snapshot(),
            baselines: reports.baselines(now()),
            refused: reports.refused(),
        }
    }
}
