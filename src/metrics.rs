//! The metrics of a pool: their names, units, labels and buckets. Feature `metrics`, which is on by default.
//!
//! A pool records them with its own recorder ([`PoolBuilder::recorder`](crate::PoolBuilder::recorder)), or with the one
//! that the process has installed for the `metrics` crate. Without a recorder, nothing is recorded. The pool finds a
//! recorder that is installed later within a quarter of a second, if its type has any fields. It then reports the
//! refusals since the pool began, but none of the earlier durations.
//!
//! Names and meanings are OpenTelemetry's (`db.client.*`) where it has one, and our own (`failfast.*`) otherwise.
//! `docs/metrics.md` explains each metric, beside the names of HikariCP, opossum and resilience4j.
//!
//! An exporter for Prometheus makes a summary of a histogram unless it knows the buckets. [`Metric::buckets`] has them.
//! With the feature `prometheus`, the function `prometheus()` returns a builder that knows them.

#[cfg(feature = "fleet")]
mod adaptive;
mod metric;
mod table;

use std::mem::size_of_val;
#[cfg(feature = "prometheus")]
use std::time::Duration;

pub use ::metrics::Recorder;
use ::metrics::{Level, Metadata, with_recorder};

#[cfg(feature = "prometheus")]
pub use metrics_exporter_prometheus::PrometheusHandle;
#[cfg(feature = "prometheus")]
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

#[cfg(feature = "fleet")]
pub use self::adaptive::ADAPTIVE_METRICS;
#[cfg(feature = "fleet")]
pub(crate) use self::adaptive::*;
pub use self::metric::{Kind, Metric, Unit};
#[cfg(feature = "cluster")]
pub use self::table::CLUSTER_METRICS;
#[cfg(feature = "fleet")]
pub use self::table::FLEET_METRICS;
pub(crate) use self::table::*;
pub use self::table::{BREAKER, BREAKER_METRICS, METRICS};

/// The buckets of `db.client.operation.duration`, in seconds: OpenTelemetry's, and a quarter of a second, a common
/// target.
pub const OPERATION_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// The buckets of the other durations, in seconds. A wait may be much shorter than an operation, or end with a timeout.
pub const POOL_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// The label of every metric of a pool: the [pool's name](crate::PoolBuilder::name).
pub const POOL: &str = "db.client.connection.pool.name";

/// What a recorder learns about the code that registers a metric.
pub(crate) const METADATA: Metadata<'static> = Metadata::new("failfast", Level::INFO, Some(module_path!()));

/// Returns whether the process has installed a recorder. The placeholder for none has no size.
pub(crate) fn is_recorded() -> bool {
    with_recorder(|recorder| size_of_val(recorder) > 0)
}

impl Metric {
    /// The upper bounds of a histogram's buckets, in seconds. `None` for a counter or a gauge.
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

/// Returns a builder of `metrics-exporter-prometheus` that renders this crate's histograms with their
/// [buckets](Metric::buckets) and adds units to all names, as `docs/monitoring` expects:
/// `db_client_operation_duration_seconds`. Feature `prometheus`.
///
/// If you install the recorder without the exporter's own listener, spawn [`upkeep`]. Otherwise samples pile up until
/// they are rendered.
///
/// ```
/// # fn example() -> Result<(), metrics_exporter_prometheus::BuildError> {
/// let metrics = failfast::metrics::prometheus()?.install_recorder()?;
/// println!("{}", metrics.render());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// None today. The exporter's type requires a `Result`.
#[cfg(feature = "prometheus")]
pub fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    METRICS.iter().chain(BREAKER_METRICS).try_fold(builder, |builder, metric| match metric.buckets() {
        Some(buckets) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets),
        None => Ok(builder),
    })
}

/// The pause between two rounds of [`upkeep`].
#[cfg(feature = "prometheus")]
const UPKEEP: Duration = Duration::from_secs(5);

/// Sorts the exporter's samples into their buckets every five seconds, for ever. Feature `prometheus`.
///
/// ```no_run
/// # async fn example() -> Result<(), metrics_exporter_prometheus::BuildError> {
/// let metrics = failfast::metrics::prometheus()?.install_recorder()?;
/// tokio::spawn(failfast::metrics::upkeep(metrics.clone()));
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "prometheus")]
pub async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_have_a_prefix() {
        let all = || METRICS.iter().chain(BREAKER_METRICS);
        #[cfg(feature = "cluster")]
        let all = || all().chain(CLUSTER_METRICS);
        #[cfg(feature = "fleet")]
        let all = || all().chain(FLEET_METRICS).chain(ADAPTIVE_METRICS);
        let names: HashSet<_> = all().map(Metric::prometheus_name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|metric| metric.name.starts_with("db.client.") || metric.name.starts_with("failfast.")));
    }

    #[test]
    fn names_in_prometheus_end_with_unit_and_kind() {
        assert_eq!(OPERATION_DURATION.prometheus_name(), "db_client_operation_duration_seconds");
        assert_eq!(TIMEOUTS.prometheus_name(), "db_client_connection_timeouts_total");
        assert_eq!(UTILIZATION.prometheus_name(), "failfast_utilization_ratio");
        assert_eq!(RETRY_EXHAUSTED.prometheus_name(), "failfast_retry_exhausted_total");
    }

    #[test]
    fn histograms_have_ascending_buckets() {
        for metric in METRICS.iter().chain(BREAKER_METRICS) {
            let buckets = metric.buckets();
            assert_eq!(buckets.is_some(), metric.kind == Kind::Histogram, "{}", metric.name);
            assert!(buckets.is_none_or(|buckets| buckets.is_sorted() && buckets[0] > 0.0));
        }
    }
}
