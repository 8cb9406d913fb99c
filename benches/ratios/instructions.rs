//! Compares the instructions of the hot paths, which the benchmark `instructions` counts with valgrind.

use std::collections::HashMap;
use std::env;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::Report;
use super::support::Throwaway;

struct Figure {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    limit: f64,
}

const FIGURES: [Figure; 6] = [
    figure("instructions-get-idle", "get_idle", "get_idle_deadpool", 0.4),
    figure("instructions-get-idle-recorded", "get_idle_recorded", "get_idle_deadpool", 0.6),
    figure("instructions-hand-over", "hand_over", "hand_over_deadpool", 0.9),
    figure("instructions-refusal", "refusal", "refusal_deadpool", 5.0),
    figure("instructions-breaker", "breaker", "breaker_failsafe", 0.65),
    figure("instructions-select-1", "select_1", "select_1_deadpool", 1.55),
];

const fn figure(name: &'static str, ours: &'static str, theirs: &'static str, limit: f64) -> Figure {
    Figure { name, ours, theirs, limit }
}

/// What a pool costs more in a service that has the feature `cluster` and makes no cluster.
const WITH_CLUSTER: &str = "instructions-with-cluster";
const WITH_CLUSTER_LIMIT: f64 = 1.02;

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    let wanted: Vec<_> = FIGURES.iter().filter(|figure| report.wants(figure.name)).collect();
    if wanted.is_empty() && !report.wants(WITH_CLUSTER) {
        return;
    }
    let counts = count(server, &[]).await;
    for Figure { name, ours, theirs, limit } in wanted {
        let (ours, theirs) = (counts[*ours], counts[*theirs]);
        println!("# {name}: {ours} beside {theirs} instructions for 1,000 turns");
        report.at_most(name, ours as f64 / theirs as f64, *limit);
    }
    if report.wants(WITH_CLUSTER) {
        let with_cluster = count(server, &["--features", "cluster"]).await;
        let mut most = 0.0_f64;
        for Figure { ours, .. } in &FIGURES {
            let (with, without) = (with_cluster[*ours], counts[*ours]);
            println!("# {WITH_CLUSTER}: {ours}: {with} with the feature, {without} without");
            most = most.max(with as f64 / without as f64);
        }
        report.at_most(WITH_CLUSTER, most, WITH_CLUSTER_LIMIT);
    }
}

/// Returns the instructions of each benchmark by its name.
async fn count(server: &Throwaway, features: &[&str]) -> HashMap<String, u64> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--quiet", "--package", "failfast-benches", "--bench", "instructions"]).args(features);
    cargo.args(["--", "--output-format", "json"]).env("DATABASE_URL", url(server)).stderr(Stdio::inherit());
    let output = cargo.output().await.expect("cargo in PATH");
    assert!(output.status.success(), "the instructions cannot be counted: {}", output.status);
    String::from_utf8_lossy(&output.stdout).lines().map(read).collect()
}

fn url(server: &Throwaway) -> String {
    env::var("DATABASE_URL").unwrap_or_else(|_| {
        let config = server.config();
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
        format!("postgres://postgres:{password}@127.0.0.1:{}/postgres", config.get_ports()[0])
    })
}

/// Reads the summary of one benchmark. gungraun writes them as JSON, one in each line.
fn read(summary: &str) -> (String, u64) {
    let summary: Value = serde_json::from_str(summary).expect("a summary");
    let instructions = &summary["profiles"][0]["summaries"]["total"]["summary"]["Callgrind"]["Ir"]["metrics"];
    // `Both` has the new count and the count of the previous run.
    let new = instructions.get("Left").unwrap_or(&instructions["Both"][0]);
    let id = summary["id"].as_str().expect("each benchmark has an id");
    (id.to_owned(), new["Int"].as_u64().expect("a count of instructions"))
}
