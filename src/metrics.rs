//! The metrics of a pool: their names, units, labels and buckets. Feature `metrics`, which is on by default.
//!
//! They go to the recorder that the process has installed for the `metrics` crate, or to the pool's own
//! ([`PoolBuilder::recorder`](crate::PoolBuilder::recorder)). Nothing is recorded, and next to nothing is spent, without one. A recorder that is installed after the pool was
//! built is found within a quarter of a second, if its type has any fields; what was measured before is lost, what was counted as refused is not.
//!
//! Names and meanings are OpenTelemetry's where it has one (`db.client.*`), and ours otherwise (`failfast.*`). `docs/metrics.md` has the table with what each one tells, and
//! with the names of HikariCP, opossum and resilience4j beside it.
//!
//! Exporters for Prometheus make summaries of histograms unless they are told the buckets: [`Metric::buckets`] has them, and with the feature `prometheus` the function
//! `prometheus()` here makes a builder that knows them.

mod breaker;
mod metric;
#[cfg(feature = "prometheus")]
mod prometheus;
mod table;

use std::mem::size_of_val;

pub use ::metrics::Recorder;
use ::metrics::{Level, Metadata, with_recorder};

#[cfg(feature = "prometheus")]
pub use metrics_exporter_prometheus::PrometheusHandle;

pub(crate) use self::breaker::*;
pub use self::breaker::{BREAKER, BREAKER_METRICS};
pub use self::metric::{Kind, Metric, Unit};
#[cfg(feature = "prometheus")]
pub use self::prometheus::prometheus;
pub use self::table::METRICS;
pub(crate) use self::table::*;

/// Of `db.client.operation.duration`, in seconds: OpenTelemetry's, and a quarter of a second, which is a common target.
pub const OPERATION_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// Of the times of connections, in seconds: a wait may be much shorter than an operation, or end with a timeout.
pub const POOL_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// The label of every metric of a pool: the [pool's name](crate::PoolBuilder::name).
pub const POOL: &str = "db.client.connection.pool.name";

/// What a recorder learns about the code that registers a metric.
pub(crate) const METADATA: Metadata<'static> = Metadata::new("failfast", Level::INFO, Some(module_path!()));

/// Whether a recorder is installed. The one that stands in for none has no size.
pub(crate) fn is_recorded() -> bool {
    with_recorder(|recorder| size_of_val(recorder) > 0)
}

impl Metric {
    /// For a histogram, the upper bounds of its buckets, in seconds.
    pub fn buckets(&self) -> Option<&'static [f64]> {
        match self.kind {
            Kind::Histogram if [OPERATION_DURATION.name, CALL_DURATION.name].contains(&self.name) => {
                Some(OPERATION_BUCKETS)
            }
            Kind::Histogram => Some(POOL_BUCKETS),
            Kind::Counter | Kind::Gauge => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_told_from_each_other_and_say_whose_they_are() {
        let all = || METRICS.iter().chain(BREAKER_METRICS);
        let names: HashSet<_> = all().map(Metric::prometheus_name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|metric| metric.name.starts_with("db.client.") || metric.name.starts_with("failfast.")));
    }

    #[test]
    fn names_in_prometheus_have_unit_and_kind() {
        assert_eq!(OPERATION_DURATION.prometheus_name(), "db_client_operation_duration_seconds");
        assert_eq!(TIMEOUTS.prometheus_name(), "db_client_connection_timeouts_total");
        assert_eq!(UTILIZATION.prometheus_name(), "failfast_utilization_ratio");
        assert_eq!(RETRY_EXHAUSTED.prometheus_name(), "failfast_retry_exhausted_total");
    }

    #[test]
    fn histograms_have_buckets_in_order() {
        for metric in METRICS.iter().chain(BREAKER_METRICS) {
            let buckets = metric.buckets();
            assert_eq!(buckets.is_some(), metric.kind == Kind::Histogram, "{}", metric.name);
            assert!(buckets.is_none_or(|buckets| buckets.is_sorted() && buckets[0] > 0.0));
        }
    }
}
