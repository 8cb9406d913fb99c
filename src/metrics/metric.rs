//! The description of one metric: its name, kind, unit and labels.

use metrics::{KeyName, Recorder, SharedString, Unit as Known};

/// A metric that pools, or circuit breakers by themselves, record.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, with dots, as OpenTelemetry writes it.
    pub name: &'static str,
    /// Whether it is a counter, a gauge or a histogram.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// The labels that it may have, besides [`POOL`](super::POOL) or [`BREAKER`](super::BREAKER).
    pub labels: &'static [&'static str],
    /// What it means, as the recorder gets it.
    pub help: &'static str,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// The present value, set four times a second.
    Gauge,
    /// The distribution of a value.
    Histogram,
}

/// The unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Seconds, with fractions.
    Seconds,
    /// Connections, callers, events, or a ratio.
    Count,
}

impl Metric {
    pub(super) const fn new(
        kind: Kind,
        unit: Unit,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, unit, labels, help }
    }

    pub(crate) fn describe(&self, recorder: &dyn Recorder) {
        let (name, help) = (KeyName::from_const_str(self.name), SharedString::const_str(self.help));
        let unit = Some(if self.unit == Unit::Seconds { Known::Seconds } else { Known::Count });
        match self.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        }
    }

    /// The name in Prometheus, by the rules of both OpenTelemetry and Prometheus: with underscores, the unit, and
    /// `_total` for counters. The series of a histogram also end in `_bucket`, `_sum` and `_count`.
    pub fn prometheus_name(&self) -> String {
        let unit = if self.unit == Unit::Seconds { "_seconds" } else { "" };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name.replace('.', "_"))
    }
}
