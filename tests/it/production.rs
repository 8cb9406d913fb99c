//! `examples/axum.rs` in production. The test runs the real binary under load, stops and starts its database, and
//! watches it with a real Prometheus that has the recommended rules and dashboard.

mod prometheus;
mod service;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use self::prometheus::Prometheus;
use self::service::{Answer, Service};
use crate::pool::LONG;
use crate::support::eventually;
use crate::support::server::Server;

/// The pool knows the usual duration of leases after ten seconds.
const USUAL: Duration = Duration::from_secs(12);
/// The time between two requests.
const PACE: Duration = Duration::from_millis(25);

/// Makes requests at a steady pace until it is stopped, whatever their results.
#[derive(Clone, Default)]
struct Load {
    is_over: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<(Instant, Answer)>>>,
}

impl Load {
    async fn run(self, service: Service) {
        let (mut pace, mut requests) = (interval(PACE), JoinSet::new());
        for n in 0.. {
            pace.tick().await;
            if self.is_over.load(Relaxed) {
                break;
            }
            let (service, answers, asked) = (service.clone(), Arc::clone(&self.answers), Instant::now());
            requests.spawn(async move {
                let answer = if n % 10 == 0 {
                    service.ask("POST", "/items/7/orders").await
                } else {
                    service.ask("GET", &format!("/items/{}", n % 100 + 1)).await
                };
                answers.lock().unwrap().push((asked, answer));
            });
        }
        requests.join_all().await;
    }

    /// Returns the answers to the requests made between `then` and now.
    fn since(&self, then: Instant) -> Vec<Answer> {
        let answers = self.answers.lock().unwrap();
        answers.iter().filter(|(asked, _)| *asked >= then).map(|(_, answer)| answer.clone()).collect()
    }

    async fn is_answered(&self, what: &str, status: u16) {
        let then = Instant::now();
        eventually(what, LONG, async || self.since(then).iter().any(|answer| answer.status == status)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_watched_through_an_outage() {
    let mut server = Server::own(&[]).await;
    let (service, process) = Service::start(&server.url()).await;
    let prometheus = Prometheus::start(service.address()).await;
    assert_eq!(service.ask("GET", "/livez").await.status, 200);
    eventually("the service is ready", LONG, async || service.ask("GET", "/readyz").await.status == 200).await;
    assert_eq!(service.ask("GET", "/items/4711").await.status, 404);
    let stock = service.ask("GET", "/stock").await;
    assert_eq!(stock.status, 200);

    let load = Load::default();
    let loading = tokio::spawn(load.clone().run(service.clone()));
    let begun = Instant::now();
    sleep(USUAL).await;
    let usual = load.since(begun);
    assert!(usual.len() > 100 && usual.iter().all(|answer| answer.status < 300), "{usual:?}");
    assert_eq!(prometheus.firing().await, Vec::<String>::new());

    // An administrator locks a table, and one connection is killed.
    let admin = server.admin().await;
    admin.batch_execute("BEGIN; LOCK TABLE items").await.unwrap();
    eventually("an event names the slow operation", LONG, async || {
        prometheus.value("max(failfast_lease_inflation_ratio)").await.is_some_and(|ratio| ratio > 3.0)
    })
    .await;
    admin.batch_execute("COMMIT").await.unwrap();
    load.is_answered("the service serves again", 200).await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'items'";
    let retried = async || {
        admin.batch_execute(kill).await.unwrap();
        prometheus.value("sum(failfast_retries_total)").await.is_some_and(|retries| retries > 0.0)
    };
    eventually("failed calls ran again on other connections", LONG, retried).await;
    drop(admin);

    server.stop().await;
    load.is_answered("the service answers 503", 503).await;
    prometheus.comes_to_fire("FailfastCircuitOpen", true).await;
    let outage = load.since(Instant::now() - Duration::from_secs(2));
    assert!(outage.len() > 20, "{outage:?}");
    for answer in &outage {
        assert_eq!(answer.status, 503, "{answer:?}");
        let retry_after: u64 =
            answer.header("retry-after").expect("the answer says when to try again").parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{answer:?}");
        assert!(answer.took < Duration::from_millis(500), "{answer:?}");
        assert!(!answer.body.contains("connect") && !answer.body.contains("items"), "{answer:?}");
    }
    assert!(service.ask("GET", "/stock").await.body.ends_with("in stock\n"), "a fallback answers");
    eventually("the service is not ready", 2 * LONG, async || service.ask("GET", "/readyz").await.status == 503).await;
    assert_eq!(service.ask("GET", "/livez").await.status, 200, "an outage of the database must not cause a restart");

    server.start().await;
    load.is_answered("the service serves again", 200).await;
    eventually("the service is ready", LONG, async || service.ask("GET", "/readyz").await.status == 200).await;
    prometheus.comes_to_fire("FailfastCircuitOpen", false).await;

    let mut without = prometheus.panels_without_data().await;
    // The service has one server, is in no fleet, and has a fixed limit: see `cluster::watched` and `fleet`.
    let elsewhere = ["failfast_cluster_", "failfast_fleet_", "failfast_adaptive_"];
    without.retain(|panel| elsewhere.iter().all(|metrics| !panel.contains(metrics)));
    assert!(without.is_empty(), "no data: {without:#?}");

    let asked_to_stop = Instant::now();
    let ended = process.stop();
    eventually("the stopping service is not ready", LONG, async || service.ask("GET", "/readyz").await.status == 503)
        .await;
    load.is_over.store(true, Relaxed);
    loading.await.unwrap();
    let (is_success, said) = ended.await;
    assert!(is_success && said.contains("0 connections had not come back"), "{said}");
    let cut_off = load.since(asked_to_stop).into_iter().filter(|answer| answer.status == 0 && answer.has_begun).count();
    assert_eq!(cut_off, 0, "the shutdown cut requests off");
}
