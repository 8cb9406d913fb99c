//! Tests the rules with promtool. They parse, and each alert fires only when it should.

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
fn the_rule_tests_cover_every_alert_firing_and_silent() {
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

/// Returns the labels that distinguish rules of the same name.
fn told_apart<'a>(labels: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let of_rules = |label: &&str| label.starts_with("severity: ") || label.starts_with("escalation: ");
    labels.filter(of_rules).map(|label| label.replace('"', "")).collect()
}

#[test]
fn every_alert_has_a_summary_a_description_and_a_run_book() {
    let rules = read("docs/monitoring/alerts.yml");
    let alerts = values(&rules, "alert:").len();
    let summaries = values(&rules, "summary:");
    let descriptions = values(&rules, "description:");
    assert_eq!((summaries.len(), descriptions.len(), values(&rules, "runbook_url:").len()), (alerts, alerts, alerts));
    for text in summaries.iter().chain(&descriptions) {
        assert!(text.contains("$labels.db_client_connection_pool_name"), "the text does not name the pool: {text}");
    }
    let severities = values(&rules, "severity:");
    assert_eq!(severities.len(), alerts);
    assert!(severities.iter().all(|severity| ["warning", "critical"].contains(severity)), "{severities:?}");
}
