//! A Prometheus that scrapes the service, with the recommended rules. The rules have all times divided by 20, so that
//! minutes pass in seconds.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::service::ask;
use crate::pool::LONG;
use crate::support::{eventually, free_port};

const FASTER: u64 = 20;

/// A Prometheus process. Dropping it kills the process and deletes its files.
pub(super) struct Prometheus {
    address: SocketAddr,
    folder: PathBuf,
    _process: Child,
}

impl Prometheus {
    pub(super) async fn start(service: SocketAddr) -> Self {
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", address.port()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("alerts.yml"), faster(&documented("alerts.yml"))).unwrap();
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "items", "static_configs": [{"targets": [service.to_string()]}]}],
        });
        fs::write(folder.join("prometheus.yml"), config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]);
        command.arg(format!("--web.listen-address={address}")).current_dir(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let process = command.spawn().expect("prometheus; `./dev setup` installs it");
        let prometheus = Self { address, folder, _process: process };
        eventually("the service is scraped", LONG, async || prometheus.value("up").await == Some(1.0)).await;
        prometheus
    }

    async fn get(&self, path: &str) -> Value {
        let answer = ask(self.address, "GET", path).await;
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }

    /// Returns the current value of each series of the expression.
    async fn query(&self, expression: &str) -> Vec<f64> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expression))).await;
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        series.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    pub(super) async fn value(&self, expression: &str) -> Option<f64> {
        self.query(expression).await.first().copied()
    }

    /// Returns the names of the firing alerts.
    pub(super) async fn firing(&self) -> Vec<String> {
        let answer = self.get("/api/v1/alerts").await;
        let alerts = answer["data"]["alerts"].as_array().cloned().expect("alerts");
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) async fn comes_to_fire(&self, alert: &str, fires: bool) {
        let what = format!("{alert} {}", if fires { "fires" } else { "is resolved" });
        eventually(&what, 3 * LONG, async || self.firing().await.iter().any(|name| name == alert) == fires).await;
    }

    /// Returns the queries of the dashboard without data, after everything that it shows has happened. Conditions that
    /// hide healthy series are left out.
    pub(super) async fn panels_without_data(&self) -> Vec<String> {
        let dashboard: Value = serde_json::from_str(&documented("dashboard.json")).unwrap();
        let (mut without, mut queries) = (Vec::new(), 0);
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
                let shown = target["expr"].as_str().unwrap();
                let (expression, _hidden) = shown.rsplit_once(" < 7200").unwrap_or((shown, ""));
                let (expression, _hidden) = expression.rsplit_once(" > 0").unwrap_or((expression, ""));
                let expression = expression.replace("$__rate_interval", "5m").replace("$pool", "items");
                assert!(!expression.contains('$'), "{expression}");
                queries += 1;
                let values = self.query(&expression).await;
                if values.is_empty() || values.iter().all(|value| value.is_nan()) {
                    without.push(format!("{}: {expression}", panel["title"]));
                }
            }
        }
        assert!(queries > 20, "the queries of the dashboard were not found");
        without
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn documented(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring").join(file)).unwrap()
}

/// Divides every time in the rules: `for: 2m`, `[1m]`, `offset 23h30m`, `interval: 1m`.
fn faster(rules: &str) -> String {
    let (mut done, mut rest) = (String::new(), rules);
    let before = ["[", "for: ", "interval: ", "offset "];
    while let Some(at) = before.iter().filter_map(|sign| Some(rest.find(sign)? + sign.len())).min() {
        done += &rest[..at];
        rest = &rest[at..];
        let (millis, after) = duration(rest);
        if millis > 0 {
            done += &format!("{}ms", millis / FASTER);
        }
        rest = after;
    }
    done + rest
}

/// Returns the duration at the beginning of the text, in milliseconds, and the rest of the text.
fn duration(text: &str) -> (u64, &str) {
    let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let seconds = match text[number..].chars().next() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        _ => return (0, text),
    };
    let Ok(count) = text[..number].parse::<u64>() else { return (0, text) };
    let (others, rest) = duration(&text[number + 1..]);
    (count * seconds * 1_000 + others, rest)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn times_are_divided_and_numbers_are_not() {
    let rules = "expr: rate(x{code=~\"23...\"}[5m]) * 120 > 5 offset 23h30m\nfor: 2m\ninterval: 10s";
    let fast = "expr: rate(x{code=~\"23...\"}[15000ms]) * 120 > 5 offset 4230000ms\nfor: 6000ms\ninterval: 500ms";
    assert_eq!(faster(rules), fast);
}
