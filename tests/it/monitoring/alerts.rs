//! The rules, by promtool: they parse, and each alert fires where it should and nowhere else.

use std::collections::BTreeSet;

use super::{alert_names, read, run, values};

#[test]
fn the_rules_are_valid() {
    run("promtool", &["check", "rules", "alerts.yml"]);
}

#[test]
fn the_alerts_fire_when_they_should() {
    run("promtool", &["test", "rules", "alerts_test.yml"]);
}

#[test]
fn every_alert_is_seen_to_fire_in_each_severity_and_to_stay_silent() {
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    let mut alert = String::new();
    for line in read("docs/monitoring/alerts_test.yml").lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("alertname: ") {
            name.clone_into(&mut alert);
        } else if let Some(labels) = line.strip_prefix("- exp_labels: {") {
            fires.insert((alert.clone(), told_apart(labels.trim_end_matches('}').split(", "))));
        } else if line == "exp_alerts: []" {
            silent.insert(alert.clone());
        }
    }
    assert_eq!(silent, alert_names());

    let rules = read("docs/monitoring/alerts.yml");
    let mut defined = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let (name, rest) = rule.split_once('\n').unwrap();
        let labels = rest.split("labels:").nth(1).and_then(|rest| rest.split("annotations:").next()).unwrap();
        defined.insert((name.to_owned(), told_apart(labels.lines().map(str::trim))));
    }
    assert_eq!(fires, defined);
}

/// The labels that tell rules of one name apart.
fn told_apart<'a>(labels: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let of_rules = |label: &&str| label.starts_with("severity: ") || label.starts_with("escalation: ");
    labels.filter(of_rules).map(|label| label.replace('"', "")).collect()
}

#[test]
fn every_alert_says_what_where_and_what_to_do() {
    let rules = read("docs/monitoring/alerts.yml");
    let alerts = values(&rules, "alert:").len();
    let summaries = values(&rules, "summary:");
    let descriptions = values(&rules, "description:");
    assert_eq!((summaries.len(), descriptions.len(), values(&rules, "runbook_url:").len()), (alerts, alerts, alerts));
    for text in summaries.iter().chain(&descriptions) {
        assert!(text.contains("$labels.db_client_connection_pool_name"), "which pool? {text}");
    }
    let severities = values(&rules, "severity:");
    assert_eq!(severities.len(), alerts);
    assert!(severities.iter().all(|severity| ["warning", "critical"].contains(severity)), "{severities:?}");
}
