//! The description of one metric: its name, kind, unit and labels.

use metrics::{KeyName, Recorder, SharedString, Unit as Known};

/// One metric that pools, or circuit breakers by themselves, emit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// With dots, as OpenTelemetry writes names.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// The labels it may have, besides [`POOL`](super::POOL), which all of a pool's have, or [`BREAKER`](super::BREAKER).
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is as it is now: set four times a second.
    Gauge,
    /// How often each value occurred.
    Histogram,
}

/// What a metric is measured in.
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

    /// Its name in Prometheus, by the rules of both OpenTelemetry and Prometheus: underscores, the unit, `_total` for counters. A histogram's series
    /// end in `_bucket`, `_sum` and `_count` beyond that.
    pub fn prometheus_name(&self) -> String {
        let unit = if self.unit == Unit::Seconds { "_seconds" } else { "" };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name.replace('.', "_"))
    }
}
