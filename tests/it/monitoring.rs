//! The files for operators: rules, routes, dashboard, run-book and the table of metrics. Each is valid by its own tool,
//! and their names agree.

mod alerts;
mod dashboard;
mod inhibition;
#[cfg(feature = "cluster")] // the names of all features
mod names;
mod routes;
mod runbook;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    root().join("docs/monitoring")
}

/// Reads a file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a tool in the folder of the monitoring files, asserts its success, and returns its output.
fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).current_dir(folder()).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}; `./dev setup` installs it"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {}:\n{text}", arguments.join(" "));
    text
}

/// Checks PromQL expressions as recording rules, because no tool checks bare expressions. `name` keeps the files of
/// different tests apart.
fn check_expressions(name: &str, expressions: &[String]) {
    assert!(!expressions.is_empty(), "{name}: no expressions were found");
    let rules: Vec<_> =
        (1..).zip(expressions).map(|(n, expr)| json!({"record": format!("{name}:{n}"), "expr": expr})).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.yml", std::process::id()));
    fs::write(&path, json!({"groups": [{"name": name, "rules": rules}]}).to_string()).unwrap();
    run("promtool", &["check", "rules", path.to_str().unwrap()]);
    fs::remove_file(path).unwrap();
}

/// Returns the rest of each line that begins with `key`.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key)).map(str::trim).collect()
}

fn alert_names() -> BTreeSet<String> {
    let names: BTreeSet<_> =
        values(&read("docs/monitoring/alerts.yml"), "alert:").into_iter().map(str::to_owned).collect();
    assert!(names.len() > 5, "the alerts were not found");
    names
}
