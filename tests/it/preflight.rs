//! Checks before a deployment or a migration: each case in which one is red, on a server that is really in that state.

mod example;
mod fleet;
mod locks;
mod replicas;
mod sessions;

use failfast::preflight::{Check, Finding, Grade, Plan, Report};
use failfast::{Pool, ServerTimeouts};

use crate::pool::{LONG, shared};
use crate::support::server::Server;

/// A pool of four, with the timeouts that the checks want, for a role that a test has made with [`role`].
fn pool_of(server: &Server, role: &str) -> Pool {
    let mut config = server.config();
    config.user(role).password("secret").application_name(role);
    let timeouts = ServerTimeouts::default();
    Pool::builder(config).name(role).max_size(4).server_timeouts(timeouts).build().unwrap()
}

/// Makes a role without rights, with a table of its own.
async fn role(server: &Server, role: &str) {
    let sql = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret'; CREATE TABLE t_{role} (id int PRIMARY KEY, n int);
        INSERT INTO t_{role} VALUES (1, 0); ALTER TABLE t_{role} OWNER TO {role}"
    );
    server.execute(&sql).await;
}

fn found(report: &Report, check: Check) -> &Finding {
    report.finding(check).unwrap_or_else(|| panic!("no {check:?}"))
}

/// Checks that a finding has this severity, a value and a limit.
fn assert_grade(report: &Report, check: Check, severity: Grade) {
    let finding = found(report, check);
    assert_eq!(finding.severity, severity, "{report}");
    assert!(!finding.value.is_empty() && !finding.limit.is_empty(), "{report}");
}

/// A whole report with nothing to object to, from a pool whose connections are all in use.
#[tokio::test]
async fn a_report_of_a_healthy_server_is_all_green() {
    let server = Server::shared().await;
    role(server, "pre_green").await;
    let pool = pool_of(server, "pre_green");
    let _held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let _others = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    assert_eq!(pool.status().in_use, 4);
    // Other tests may make others wait, and hold transactions, in the same database.
    let plan = Plan::new().instances(2).surge(1).touches(["t_pre_green"]);
    let report = pool.preflight(&plan).await;
    println!("{report}");
    for finding in &report.findings {
        assert_eq!(finding.severity, Grade::Ok, "{report}");
    }
    assert!(report.is_ok() && report.exit_code() == 0 && report.findings.len() == 10);
    assert!(report.to_string().starts_with("preflight: 0 critical, 0 not known, 0 warnings\n"), "{report}");
    assert_eq!(pool.status().in_use, 4);
}

#[tokio::test]
async fn a_check_that_is_left_out_says_so() {
    let pool = shared("pre_skip").await.build().unwrap();
    let report = pool.preflight(&Plan::new().skip(Check::Timeouts).skip(Check::FreeSlots)).await;
    assert_grade(&report, Check::Timeouts, Grade::Skipped);
    assert_grade(&report, Check::FreeSlots, Grade::Skipped);
}

/// A server that answers nothing: no question is green, and all is over soon.
#[tokio::test]
async fn a_server_that_does_not_answer_is_not_known() {
    let mut server = Server::own(&[]).await;
    let builder = Pool::builder(server.config()).connect_timeout(std::time::Duration::from_secs(1));
    let pool = builder.build().unwrap();
    server.pause().await;
    let begun = std::time::Instant::now();
    let report = pool.preflight(&Plan::new()).await;
    assert!(begun.elapsed() < LONG / 4, "{:?}", begun.elapsed());
    assert!(report.findings.iter().all(|finding| finding.severity == Grade::NotKnown), "{report}");
    assert_eq!(report.exit_code(), 2);
    assert!(found(&report, Check::LockQueue).value.starts_with("not connected: "), "{report}");
    server.unpause().await;
}

#[cfg(feature = "serde")]
#[tokio::test]
async fn a_report_is_data() {
    let pool = shared("pre_json").await.build().unwrap();
    let report = pool.preflight(&Plan::new().skip(Check::ReplicaLag)).await;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["exit_code"], 1, "the timeouts are not set: {report}");
    assert_eq!(json["ok"], false);
    let findings = json["findings"].as_array().unwrap();
    let timeouts = findings.iter().find(|finding| finding["check"] == "timeouts").unwrap();
    assert_eq!((&timeouts["severity"], &timeouts["limit"]), (&"critical".into(), &"both set".into()));
    let replicas = findings.iter().find(|finding| finding["check"] == "replica_lag").unwrap();
    assert_eq!((&replicas["severity"], &replicas["advice"]), (&"skipped".into(), &serde_json::Value::Null));
}
