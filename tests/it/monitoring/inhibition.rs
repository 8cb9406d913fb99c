//! Runs a real Alertmanager with the sample's settings: which alerts inhibit which, and what a silence covers.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{read, run};
use crate::support::{eventually, free_port};

const SOON: Duration = Duration::from_secs(20);

/// The program's name in Debian.
const PROGRAM: &str = "prometheus-alertmanager";

/// An Alertmanager of the test's own, which notifies nobody.
struct Alertmanager {
    process: Child,
    url: String,
    storage: PathBuf,
}

impl Alertmanager {
    async fn start() -> Self {
        let port = free_port();
        let storage = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("alertmanager-{port}"));
        let (path, settings) = (storage.to_str().unwrap(), storage.join("alertmanager.yml"));
        fs::create_dir_all(path).unwrap();
        fs::write(&settings, read("docs/monitoring/alertmanager.yml").replace("/etc/alertmanager", path)).unwrap();

        let mut command = Command::new(PROGRAM);
        command.arg("--config.file=alertmanager.yml").arg("--storage.path=.").arg("--cluster.listen-address=");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).current_dir(path).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{PROGRAM}: {error}; `./dev setup` installs it"));
        let started = Self { process, url: format!("--alertmanager.url=http://127.0.0.1:{port}"), storage };
        eventually("Alertmanager listens", SOON, async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
            .await;
        started
    }

    fn ask(&self, arguments: &[&str]) -> String {
        run("amtool", &[&[self.url.as_str()], arguments].concat())
    }

    fn fire(&self, pool: &str, alert: &str, severity: &str) {
        let (pool, severity) = (format!("db_client_connection_pool_name={pool}"), format!("severity={severity}"));
        self.ask(&["alert", "add", alert, "job=shop", &pool, &severity]);
    }

    /// Returns the alerts in this state, sorted, as pool, name and severity.
    fn alerts(&self, state: &str) -> Vec<String> {
        let listed: Value = serde_json::from_str(&self.ask(&["alert", "query", state, "-o", "json"])).unwrap();
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap().to_owned();
        let names = ["db_client_connection_pool_name", "alertname", "severity"];
        let alerts = listed.as_array().unwrap().iter().map(|alert| names.map(|name| label(alert, name)).join(" "));
        let mut alerts: Vec<_> = alerts.collect();
        alerts.sort();
        alerts
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.storage);
    }
}

#[tokio::test]
async fn one_incident_pages_once_and_one_silence_covers_it() {
    let manager = Alertmanager::start().await;
    // A full pool inhibits the alerts for a nearly full one and for a prediction. The alert that names the slow
    // operation still fires.
    manager.fire("orders", "FailfastUtilization", "critical");
    manager.fire("orders", "FailfastUtilization", "warning");
    manager.fire("orders", "FailfastExhaustionPredicted", "warning");
    manager.fire("orders", "FailfastLeasesInflated", "warning");
    manager.fire("orders", "FailfastErrors", "critical");
    manager.fire("orders", "FailfastEscalation", "critical");
    // This pool is only nearly full. An alert of another pool inhibits nothing here.
    manager.fire("billing", "FailfastUtilization", "warning");
    // An open circuit, and its consequences.
    manager.fire("search", "FailfastCircuitOpen", "critical");
    manager.fire("search", "FailfastErrors", "critical");
    manager.fire("search", "FailfastTraffic", "warning");
    manager.fire("search", "FailfastLeak", "warning");

    // A cluster without a primary: what is wrong with its replicas follows from it.
    manager.fire("stock", "FailfastNoPrimary", "critical");
    manager.fire("stock", "FailfastReplicaLags", "warning");
    manager.fire("stock", "FailfastFailover", "warning");

    let held_back = [
        "orders FailfastExhaustionPredicted warning",
        "orders FailfastUtilization warning",
        "search FailfastErrors critical",
        "search FailfastTraffic warning",
        "stock FailfastReplicaLags warning",
    ];
    eventually("the consequences are inhibited", SOON, async || manager.alerts("--inhibited") == held_back).await;
    assert_eq!(
        manager.alerts("--active"),
        [
            "billing FailfastUtilization warning",
            "orders FailfastErrors critical",
            "orders FailfastEscalation critical",
            "orders FailfastLeasesInflated warning",
            "orders FailfastUtilization critical",
            "search FailfastCircuitOpen critical",
            "search FailfastLeak warning",
            "stock FailfastFailover warning",
            "stock FailfastNoPrimary critical",
        ]
    );

    let silence = ["silence", "add", "db_client_connection_pool_name=orders", "--duration=1h", "--author=me"];
    manager.ask(&[&silence[..], &["--comment=looking"]].concat());
    let others = [
        "billing FailfastUtilization warning",
        "search FailfastCircuitOpen critical",
        "search FailfastLeak warning",
        "stock FailfastFailover warning",
        "stock FailfastNoPrimary critical",
    ];
    eventually("the alerts of the pool are silenced", SOON, async || manager.alerts("--active") == others).await;
}
