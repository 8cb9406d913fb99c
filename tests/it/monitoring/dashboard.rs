//! Grafana can import the dashboard without changes, and the expression of each panel is valid.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{check_expressions, read};

fn dashboard() -> Value {
    serde_json::from_str(&read("docs/monitoring/dashboard.json")).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Returns all panels, including those in folded rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = list(dashboard, "panels");
    panels.iter().chain(panels.iter().flat_map(|panel| list(panel, "panels"))).collect()
}

fn with_data(dashboard: &Value) -> impl Iterator<Item = &Value> {
    panels(dashboard).into_iter().filter(|panel| panel["type"] != "row")
}

/// Returns the expressions of the panels, with values in place of Grafana's variables.
pub(super) fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = with_data(&dashboard).flat_map(|panel| list(panel, "targets"));
    let asked = targets.map(|target| target["expr"].as_str().unwrap());
    asked.map(|expr| expr.replace("$__rate_interval", "1m").replace("$pool", "orders|billing")).collect()
}

#[test]
fn each_expression_is_valid() {
    let expressions = expressions();
    assert!(
        expressions.iter().all(|expr| !expr.contains('$')),
        "an expression has a variable that this test does not know"
    );
    check_expressions("dashboard", &expressions);
}

#[test]
fn panels_have_unique_ids_and_do_not_overlap() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "the id of {title} is not unique");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{title} overlaps another panel or the edge");
            }
        }
    }
}

#[test]
fn the_dashboard_can_be_imported_without_changes() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null() && dashboard["__inputs"].is_null(), "the dashboard belongs to one Grafana");
    let variables: BTreeSet<_> =
        list(&dashboard["templating"], "list").iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, BTreeSet::from(["datasource", "pool"]));
    for panel in with_data(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title} has no description");
        for target in list(panel, "targets") {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(target["expr"].as_str().unwrap().contains(r#"=~"$pool""#), "{title} does not select the pool");
        }
    }
}
