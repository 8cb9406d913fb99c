//! An exporter for Prometheus that knows the buckets and the names.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use super::{BREAKER_METRICS, METRICS};

/// A builder for `metrics-exporter-prometheus` that renders this crate's histograms with their [buckets](super::Metric::buckets) and adds units to all names, as
/// `docs/monitoring` expects: `db_client_operation_duration_seconds`. Feature `prometheus`.
///
/// Whoever installs the recorder without the exporter's own listener has to call `PrometheusHandle::run_upkeep` every few seconds: without it, samples pile up until
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
/// None today: the buckets are neither empty nor refused.
pub fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    METRICS.iter().chain(BREAKER_METRICS).try_fold(builder, |builder, metric| match metric.buckets() {
        Some(buckets) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets),
        None => Ok(builder),
    })
}
