//! The admin page: what a client of the service gets.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use failfast::admin;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::pool::{LONG, shared};
use crate::service::exchange;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_pool_and_no_sql() {
    let pool = shared("admin_page").await.max_size(3).max_waiting(0).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    for _ in 0..100 {
        pool.call().name("canary_free").query("SELECT 'canary'", &[]).await.unwrap();
    }
    let report = pool.call().name("report").get().await.unwrap();
    report.batch_execute("BEGIN; SELECT 'canary'").await.unwrap();
    let line = line!() + 1;
    let search = pool.get().await.unwrap();
    let search_id = search.process_id();
    let running = tokio::spawn(async move { search.query("SELECT pg_sleep(60), 'canary'", &[]).await });
    let last = pool.call().name("last").get().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert!(pool.get().await.is_err() && pool.try_get().is_err());

    let routes = Router::new().route("/admin/pool", get(admin::handler(pool.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(axum::serve(listener, routes).into_future());
    let (head, body) = exchange(&service, "GET", "/admin/pool", "").await;
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    assert!(!body.contains("SELECT") && !body.contains("'canary'") && !body.contains("secret"), "{body}");

    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&page["pool"], &page["status"]["in_use"], &page["status"]["max_size"]),
        (&"admin_page".into(), &3.into(), &3.into())
    );
    let holders = page["holders"].as_array().unwrap();
    let of = |operation: &str| holders.iter().find(|holder| holder["operation"] == *operation).unwrap();
    assert_eq!(holders.len(), 3);
    assert_eq!((&of("report")["state"], &of("report")["in_transaction"]), (&"caller".into(), &true.into()));
    assert!(of("report")["age_ms"].as_u64().is_some_and(|age| age >= 150), "{body}");
    let search = of(&format!("tests/it/admin.rs:{line}"));
    assert_eq!((&search["state"], search["process_id"].as_i64()), (&"server".into(), search_id.map(i64::from)));
    assert!(search["running_ms"].as_u64().is_some_and(|running| running >= 200), "{body}");
    assert_eq!((&page["refusals"]["queue_full"], &page["refusals"]["none_idle"]), (&1.into(), &1.into()));
    assert_eq!((&page["breaker"]["state"], &page["queue"]["waiting"]), (&"closed".into(), &0.into()));
    drop((report, last));
    running.abort();
    serving.abort();
    let _ = timeout(LONG, running).await;
    // A sample of the leases is enough, and maintenance takes it four times a second.
    eventually("the baseline is known", LONG, async || {
        pool.report().baselines.iter().any(|baseline| baseline.operation.to_string() == "canary_free")
    })
    .await;
}
