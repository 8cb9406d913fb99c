//! The run-book: each alert has a section, each section belongs to an alert, and its queries and commands are valid.

use std::collections::BTreeSet;

use super::words::{is_alert, words};
use super::{alert_names, check_expressions, read, values};
use crate::support::server::Server;

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim())
}

/// Returns the anchor that GitHub makes of the heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let text = read("docs/runbook.md");
    let sections: BTreeSet<_> = headings(&text).filter(|heading| is_alert(heading)).map(str::to_owned).collect();
    assert_eq!(sections, alert_names());
}

#[test]
fn every_alert_leads_to_its_section() {
    let rules = read("docs/monitoring/alerts.yml");
    for (alert, url) in values(&rules, "alert:").into_iter().zip(values(&rules, "runbook_url:")) {
        assert_eq!(url, format!("docs/runbook.md#{}", anchor(alert)));
    }
}

#[test]
fn every_link_has_a_target() {
    for (folder, file) in [
        ("docs", "cluster.md"),
        ("docs", "fleet.md"),
        ("docs", "metrics.md"),
        ("docs", "runbook.md"),
        ("docs/monitoring", "README.md"),
    ] {
        let text = read(&format!("{folder}/{file}"));
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            if link.starts_with("https://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { file } else { path };
            let target = read(&format!("{folder}/{path}"));
            let is_there = wanted.is_empty() || headings(&target).any(|heading| anchor(heading) == wanted);
            assert!(is_there, "{folder}/{file}: {link} leads nowhere");
        }
    }
}

#[test]
fn only_alerts_that_exist_are_named() {
    let alerts = alert_names();
    for file in ["docs/cluster.md", "docs/fleet.md", "docs/runbook.md", "docs/metrics.md", "docs/monitoring/README.md"]
    {
        for word in words(&read(file)).filter(|word| is_alert(word)) {
            assert!(alerts.contains(word), "{file}: there is no alert {word}");
        }
    }
}

/// Returns the code blocks of this language.
fn blocks(language: &str) -> Vec<String> {
    let (text, begin) = (read("docs/runbook.md"), format!("```{language}\n"));
    let blocks = text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks: Vec<_> = blocks.map(str::to_owned).collect();
    assert!(!blocks.is_empty(), "no {language} was found");
    blocks
}

/// Each line of a block is one expression.
#[test]
fn the_expressions_of_the_runbook_are_valid() {
    let blocks = blocks("promql").join("\n");
    let lines = blocks.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    check_expressions("runbook", &lines.map(str::to_owned).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_answers_the_queries_of_the_runbook() {
    let server = Server::shared().await;
    for sql in blocks("sql") {
        server.execute(&sql).await;
    }
}

/// The tests of the library contain the same lines.
#[test]
fn the_log_lines_of_the_runbook_are_real() {
    // Long lines continue after a backslash.
    let tested = ["src/event/tests.rs", "src/holder.rs"].map(read).concat();
    let tested: String = tested.split("\\\n").map(str::trim_start).collect();
    for line in blocks("text").iter().flat_map(|block| block.lines()) {
        // The place of an order is the service's own.
        let event = line.split_once(" by src/").map_or(line.to_owned(), |(event, _)| format!("{event} by "));
        assert!(tested.contains(&event), "no event and no error reads like this: {line}");
    }
}

#[test]
fn the_expressions_of_the_autoscaler_are_valid() {
    let queries = read("docs/monitoring/autoscaler.yml");
    check_expressions("autoscaler", &values(&queries, "query:").into_iter().map(str::to_owned).collect::<Vec<_>>());
}
