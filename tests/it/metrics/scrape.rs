//! Reads the metrics of a pool as a Prometheus server would.

use std::collections::BTreeMap;
use std::sync::Arc;

use failfast::PoolBuilder;
use metrics_exporter_prometheus::PrometheusHandle;

/// Renders the metrics of one pool.
pub(crate) struct Scraper(PrometheusHandle);

/// The type of each metric and the value of each series, at one moment.
pub(crate) struct Scrape {
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) helps: BTreeMap<String, String>,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

pub(crate) fn recorded(builder: PoolBuilder) -> (PoolBuilder, Scraper) {
    let recorder = failfast::metrics::prometheus().unwrap().build_recorder();
    let scraper = Scraper(recorder.handle());
    (builder.recorder(Arc::new(recorder)), scraper)
}

impl Scraper {
    pub(crate) fn of(handle: PrometheusHandle) -> Self {
        Self(handle)
    }

    pub(crate) fn text(&self) -> String {
        self.0.render()
    }

    pub(crate) fn scrape(&self) -> Scrape {
        let (mut types, mut helps, mut series) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for line in self.text().lines().filter(|line| !line.is_empty()) {
            let pair = |rest: &str| {
                let (name, value) = rest.split_once(' ').unwrap();
                (name.to_owned(), value.to_owned())
            };
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                types.extend([pair(rest)]);
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                helps.extend([pair(rest)]);
            } else {
                series.push(Series::read(line));
            }
        }
        Scrape { types, helps, series }
    }

    /// Returns the value of the only series of this name that has these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let scrape = self.scrape();
        let has = |series: &&Series| labels.iter().all(|(label, value)| series.label(label) == Some(value));
        let mut found = scrape.series.iter().filter(|series| series.name == name).filter(has);
        let first = found.next()?.value;
        let others: Vec<_> = found.collect();
        assert!(others.is_empty(), "{name} {labels:?} has more than one: {others:?}");
        Some(first)
    }
}

impl Series {
    /// Reads one line. No label in these tests has a comma or a quote in it.
    fn read(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (label, value) = label.split_once('=').unwrap();
            (label.to_owned(), value.trim_matches('"').to_owned())
        };
        Self { name: name.to_owned(), labels: labels.map(label).collect(), value: value.parse().unwrap() }
    }

    pub(crate) fn label(&self, label: &str) -> Option<&str> {
        self.labels.get(label).map(String::as_str)
    }
}
