//! The metrics of a cluster, as Prometheus would read them: its hosts, its reads and a failover.

use std::sync::Arc;

use failfast::{ErrorKind, Freshness, Position};

use super::{SECOND, Seen, builder, is_complete};
use crate::metrics::Scraper;
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const CLUSTER: (&str, &str) = ("db_client_connection_pool_name", "orders");

#[tokio::test(flavor = "multi_thread")]
async fn hosts_reads_and_a_failover_are_measured_and_the_events_of_the_cluster_are_counted() {
    let mut nodes = Replicated::start(1).await;
    let recorder = failfast::metrics::prometheus().unwrap().build_recorder();
    let (scraper, recorder, seen) = (Scraper::of(recorder.handle()), Arc::new(recorder), Seen::default());
    let settings = builder(&nodes).spill(0.0).observer(seen.observe());
    let cluster = settings.pool(move |pool| pool.name("orders").recorder(Arc::clone(&recorder))).build().unwrap();
    is_complete(&cluster, &nodes).await;
    let hosts: Vec<_> = cluster.hosts().iter().map(|host| host.host.to_string()).collect();
    let value = |name: &str| scraper.value(name, &[CLUSTER]);
    let of = |name: &str, host: usize| scraper.value(name, &[CLUSTER, ("host", &hosts[host])]);
    let reads = |route: &str| scraper.value("failfast_cluster_reads_total", &[CLUSTER, ("route", route)]);
    eventually("the hosts are measured", LONG, async || {
        value("failfast_cluster_primaries") == Some(1.0) && value("failfast_cluster_replicas_fit") == Some(1.0)
    })
    .await;
    assert_eq!([0, 1].map(|host| of("failfast_cluster_primary", host)), [Some(1.0), Some(0.0)]);
    assert_eq!([0, 1].map(|host| of("failfast_cluster_silent", host)), [Some(0.0), Some(0.0)]);
    let lag = of("failfast_cluster_replica_lag_seconds", 1).unwrap();
    assert!(lag > 0.0 && lag < 2.0, "{lag}");
    assert_eq!(value("failfast_cluster_primary_changes_total"), Some(0.0), "the first one is no change");

    assert_eq!(["replica", "primary", "refused"].map(reads), [Some(0.0); 3]);
    cluster.call().read(Freshness::Any).query("SELECT 1", &[]).await.unwrap();
    nodes.pause_replay(1).await;
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    let ahead: Position = "1.1.ffffffffffffffff".parse().unwrap();
    let refused = cluster.call().after(ahead).query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoFreshReplica);
    assert_eq!(["replica", "primary", "refused"].map(reads), [Some(1.0), Some(0.0), Some(1.0)]);
    let count = async |tx: failfast::Transaction| tx.execute("SELECT 1", &[]).await;
    let call = cluster.call().after(ahead).name("count");
    assert_eq!(call.fallback(|_: &failfast::Error| Some(7)).transaction(count).await.unwrap(), 7);
    let fallback = [CLUSTER, ("failfast_operation", "count"), ("error_type", "no_fresh_replica")];
    assert_eq!(scraper.value("failfast_fallbacks_total", &fallback), Some(1.0));
    let refused = |reason| scraper.value("failfast_cluster_refused_total", &[CLUSTER, ("reason", reason)]);
    assert_eq!((refused("no_fresh_replica"), refused("no_primary")), (Some(2.0), Some(0.0)));
    nodes.resume_replay(1).await;

    nodes.kill(0).await;
    nodes.promote(1).await;
    let call = cluster.call().across_failover().idempotent().deadline(SECOND * 10);
    call.execute("SELECT 1", &[]).await.unwrap();
    eventually("the failover is measured", LONG, async || {
        of("failfast_cluster_primary", 1) == Some(1.0) && of("failfast_cluster_silent", 0) == Some(1.0)
    })
    .await;
    assert_eq!(of("failfast_cluster_primary", 0), Some(0.0));
    assert_eq!(value("failfast_cluster_primary_changes_total"), Some(1.0));
    assert_eq!(value("failfast_cluster_replicas_fit"), Some(0.0));
    let counted = |event: &str| scraper.value("failfast_events_total", &[CLUSTER, ("event", event)]);
    assert_eq!(counted("primary_changed"), Some(1.0));
    eventually("the events are counted", LONG, async || {
        seen.count("host_silent") > 0 && counted("host_silent") == Some(seen.count("host_silent") as f64)
    })
    .await;

    cluster.drain(LONG).await;
    assert!(value("failfast_cluster_primaries").is_some_and(f64::is_nan), "nothing is known any more");
}
