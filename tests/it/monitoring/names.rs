//! The table of metrics is the only source of their names. Every name elsewhere is in it, and every name in it is used.

use std::collections::{BTreeMap, BTreeSet};

use failfast::metrics::{ADAPTIVE_METRICS, CLUSTER_METRICS, FLEET_METRICS, Kind, METRICS};

use super::words::{is_ours, is_recorded, selectors, words};
use super::{dashboard, read, values};

/// The files that use the names.
const FILES: [&str; 8] = [
    "docs/metrics.md",
    "docs/runbook.md",
    "docs/monitoring/README.md",
    "docs/monitoring/alerts.yml",
    "docs/monitoring/alerts_test.yml",
    "docs/monitoring/alertmanager.yml",
    "docs/monitoring/autoscaler.yml",
    "docs/monitoring/dashboard.json",
];

/// These metrics are in neither the rules nor the dashboard, on purpose. They are settings, which the pool's first
/// event reports.
const NOT_SHOWN: [&str; 2] = ["db.client.connection.idle.max", "db.client.connection.idle.min"];

/// Labels that Prometheus adds to every series or histogram.
const OTHER_LABELS: [&str; 3] = ["job", "instance", "le"];

const POOL: &str = "db.client.connection.pool.name";

/// A metric, and its labels other than the pool's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    name: String,
    prometheus: String,
    is_histogram: bool,
    labels: Vec<String>,
}

/// Returns every metric of the library.
fn metrics() -> Vec<Metric> {
    let all = METRICS.iter().chain(CLUSTER_METRICS).chain(FLEET_METRICS).chain(ADAPTIVE_METRICS);
    let ours = all.map(|metric| Metric {
        name: metric.name.to_owned(),
        prometheus: metric.prometheus_name(),
        is_histogram: metric.kind == Kind::Histogram,
        labels: metric.labels.iter().map(|label| (*label).to_owned()).collect(),
    });
    ours.collect()
}

fn documented() -> Vec<Metric> {
    let text = read("docs/metrics.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
    let rows = text.lines().map(cells).filter(|cells| cells.len() == 7 && is_ours(&cells[1]));
    let metric = |cells: Vec<String>| Metric {
        name: cells[1].clone(),
        prometheus: cells[4].clone(),
        is_histogram: cells[2].starts_with("histogram"),
        labels: cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect(),
    };
    let metrics: Vec<_> = rows.map(metric).collect();
    assert!(metrics.len() > 20, "the table was not found");
    metrics
}

impl Metric {
    /// Returns the names of the metric's series in Prometheus.
    fn series(&self) -> Vec<String> {
        let endings: &[&str] = if self.is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        endings.iter().map(|ending| format!("{}{ending}", self.prometheus)).collect()
    }
}

fn underscored(name: &str) -> String {
    name.replace('.', "_")
}

#[test]
fn the_documentation_has_every_metric_and_no_other() {
    let sorted = |metrics: Vec<Metric>| metrics.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(documented()), sorted(metrics()));
    assert_eq!(documented().len(), sorted(metrics()).len(), "the documentation has a metric twice");
}

#[test]
fn every_name_is_in_the_table() {
    let mut known = BTreeSet::new();
    for metric in metrics() {
        known.extend(metric.series());
        known.extend(metric.labels.iter().flat_map(|label| [label.clone(), underscored(label)]));
        known.extend([metric.name, metric.prometheus]);
    }
    known.extend([POOL.to_owned(), underscored(POOL)]);
    for file in FILES {
        let text = read(file);
        for word in words(&text).filter(|word| is_ours(word)) {
            assert!(known.contains(word), "{file} names {word}, which does not exist");
        }
    }
}

#[test]
fn every_selected_label_belongs_to_its_metric() {
    let labels: BTreeMap<String, Vec<String>> = metrics()
        .iter()
        .flat_map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| underscored(label)).collect();
            metric.series().into_iter().map(move |series| (series, labels.clone()))
        })
        .collect();
    let mut seen = 0;
    for file in FILES {
        let text = read(file).replace("\\\"", "\"");
        for (series, selected) in selectors(&text) {
            seen += 1;
            let known = labels.get(series).unwrap_or_else(|| panic!("{file} selects {series}, which does not exist"));
            for label in selected {
                let is_known = OTHER_LABELS.contains(&label) || label == underscored(POOL);
                assert!(is_known || known.iter().any(|known| known == label), "{file}: {series} has no label {label}");
            }
        }
    }
    assert!(seen > 50, "the selectors were not found");
}

#[test]
fn every_metric_is_in_the_rules_or_in_the_dashboard() {
    let rules = read("docs/monitoring/alerts.yml");
    let expressions = dashboard::expressions().join("\n");
    let used: BTreeSet<_> = words(&rules).chain(words(&expressions)).collect();
    for metric in metrics() {
        let is_used = metric.series().iter().any(|series| used.contains(series.as_str()));
        let is_left_out = NOT_SHOWN.contains(&metric.name.as_str());
        assert!(is_used != is_left_out, "{}: used {is_used}, left out {is_left_out}", metric.name);
    }
}

#[test]
fn recorded_series_are_used_and_used_series_are_recorded() {
    let rules = read("docs/monitoring/alerts.yml");
    let recorded: BTreeSet<_> = values(&rules, "record:").into_iter().collect();
    for file in FILES {
        for word in words(&read(file)).filter(|word| is_recorded(word)) {
            assert!(recorded.contains(word), "{file} uses {word}, which is not recorded");
        }
    }
    for name in recorded {
        let times = words(&rules).filter(|word| *word == name).count();
        assert!(times > 1, "{name} is recorded, but not used");
    }
}

/// Event names are variants of the source in snake case: `leak_suspected` is `LeakSuspected`.
#[test]
fn every_event_exists() {
    let source = read("src/event/kind.rs");
    let variants = source.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let variants = variants.filter(|variant| variant.starts_with(|c: char| c.is_ascii_uppercase()));
    let snake = |variant: &str| {
        let separate = |c: char| if c.is_ascii_uppercase() { format!("_{}", c.to_ascii_lowercase()) } else { c.into() };
        variant.chars().map(separate).collect::<String>().trim_start_matches('_').to_owned()
    };
    let events: BTreeSet<_> = variants.map(snake).collect();
    assert!(events.len() > 20, "the events were not found");
    let mut seen = 0;
    for file in FILES {
        for rest in read(file).replace("\\\"", "\"").split("event=\"").skip(1) {
            let event = rest.split('"').next().unwrap();
            let is_opossums = file == "docs/metrics.md";
            assert!(is_opossums || events.contains(event), "{file}: there is no event {event}");
            seen += usize::from(!is_opossums);
        }
    }
    assert!(seen > 0, "no event is used");
}
