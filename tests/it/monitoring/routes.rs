//! Tests with amtool which receivers get which alerts.

use super::words::{is_alert, words};
use super::{alert_names, read, run};

#[test]
fn the_routes_are_valid() {
    run("amtool", &["check-config", "alertmanager.yml"]);
}

#[test]
fn each_alert_reaches_its_receivers() {
    let cases: [(&[&str], &str); 5] = [
        (&["severity=warning"], "team-channel"),
        (&["severity=critical"], "incident-channel,pager-first"),
        (&["severity=critical", "escalation=5m"], "incident-channel,pager-second"),
        (&["severity=critical", "escalation=10m"], "incident-channel,pager-everybody"),
        (&["alertname=SomethingElse"], "team-channel"),
    ];
    for (labels, receivers) in cases {
        let verify = format!("--verify.receivers={receivers}");
        let mut arguments = vec!["config", "routes", "test", "--config.file=alertmanager.yml", &verify];
        arguments.extend(labels);
        run("amtool", &arguments);
    }
}

#[test]
fn only_alerts_that_exist_are_routed() {
    let routes = read("docs/monitoring/alertmanager.yml");
    let named: Vec<_> = words(&routes).filter(|word| is_alert(word)).collect();
    assert!(!named.is_empty(), "no alert is named");
    let alerts = alert_names();
    assert!(named.iter().all(|name| alerts.contains(*name)), "{named:?}");
}
