//! What a cluster offers because a pool does: changes of the schema, orders, readiness, and what an operator sees.

use std::time::Duration;

use failfast::{ErrorKind, EventKind, Freshness, Lane, NotReady};

use super::{SECOND, Seen, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const COLUMNS: &str = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0";

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_changed_at_the_primary_and_follows_it() {
    let mut nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.ddl().batch_execute("CREATE TABLE items (id int)").await.unwrap();
    is_complete(&cluster, &nodes).await;
    // A reader of the table is in the way of the first attempt, and then goes.
    let reader = nodes.node(0).admin().await;
    reader.batch_execute("BEGIN; SELECT FROM items").await.unwrap();
    let reader = tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        drop(reader);
    });
    let ddl = cluster.call().read(Freshness::Any).name("migration 2").ddl();
    let ddl = ddl.lock_timeout(Duration::from_millis(100)).backoff(SECOND / 2, SECOND / 2).attempts(10);
    ddl.batch_execute("ALTER TABLE items ADD COLUMN note text").await.unwrap();
    reader.await.unwrap();
    assert!(seen.count("schema_change_postponed") > 0, "the lock was not free");
    assert_eq!(nodes.node(0).scalar(COLUMNS).await, "2");

    nodes.has_caught_up(1).await;
    nodes.stop(0).await;
    nodes.promote(1).await;
    let call = cluster.call().across_failover().deadline(SECOND * 20);
    let change = call.ddl().transaction(async |tx| tx.batch_execute("ALTER TABLE items ADD COLUMN n int").await);
    change.await.unwrap();
    assert_eq!(nodes.node(1).scalar(COLUMNS).await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_reach_the_pool_of_each_host_with_their_reason() {
    let nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.warm_up(2, LONG).await.unwrap();
    let is_warm = |host: &failfast::HostStatus| host.pool.idle + host.pool.in_use >= 2;
    assert!(cluster.hosts().iter().all(is_warm), "{:?}", cluster.hosts());
    assert!(cluster.resize(0).is_err());
    cluster.because("the night").resize(3).unwrap();
    assert!(cluster.pools().all(|pool| pool.status().max_size == 3));
    let reasons = |name: &str| {
        let seen = seen.0.lock().unwrap();
        let of = |kind: &EventKind| match kind {
            EventKind::Resized { reason, by, .. } | EventKind::Flushed { reason, by, .. } => {
                (kind.as_str() == name).then(|| (reason.as_deref().map(str::to_owned), by.file()))
            }
            _ => None,
        };
        seen.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(reasons("resized"), vec![(Some("the night".to_owned()), file!()); 2]);
    cluster.flush();
    assert_eq!(reasons("flushed"), vec![(None, file!()); 2]);
    cluster.set_lane("report", Lane::Background).unwrap();
    let held = [
        cluster.call().name("report").get().await.unwrap(),
        cluster.call().read(Freshness::Any).name("report").get().await.unwrap(),
        cluster.lane(Lane::Critical).get().await.unwrap(),
    ];
    let holders = cluster.holders();
    let lanes: Vec<_> = holders.iter().map(|(_, holder)| holder.lane).collect();
    assert_eq!(lanes.iter().filter(|lane| **lane == Lane::Background).count(), 2, "{holders:?}");
    assert!(lanes.contains(&Lane::Critical), "{holders:?}");
    let label = |host: usize| cluster.hosts()[host].host.clone();
    assert_eq!([0, 1].map(|host| holders.iter().filter(|(of, _)| *of == label(host)).count()), [2, 1]);
    assert!(holders.is_sorted_by(|(_, one), (_, next)| one.age >= next.age), "{holders:?}");
    cluster.reset_lane("report");
    drop(held);

    cluster.warm_up(3, LONG).await.unwrap();
    // One of the three is never lent by Critical.
    let critical = cluster.lane(Lane::Critical).get().await.unwrap();
    let held = [critical, cluster.get().await.unwrap(), cluster.get().await.unwrap()];
    assert_eq!(cluster.try_get().unwrap_err().kind(), ErrorKind::Shed);
    let begun = std::time::Instant::now();
    let error = cluster.get_timeout(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.is_overload() && begun.elapsed() < Duration::from_millis(500), "{error} {:?}", begun.elapsed());
    drop(held);
    eventually("a connection is idle", LONG, async || cluster.try_get().is_ok()).await;
    assert!(!cluster.is_closed());
    cluster.close();
    assert!(cluster.is_closed());
    assert_eq!(cluster.get().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_ready_once_there_was_a_primary_and_while_any_host_serves() {
    let mut nodes = Replicated::start(1).await;
    let pool = |pool: failfast::PoolBuilder| pool.unready_after(SECOND * 3);
    let cluster = builder(&nodes).pool(pool).build().unwrap();
    eventually("ready", LONG, async || cluster.ready().is_ok()).await;
    let without_primary = failfast::Cluster::builder(nodes.node(1).config()).pool(pool).build().unwrap();
    eventually("its pool is ready", LONG, async || {
        without_primary.ready().is_err() && without_primary.pools().all(|pool| pool.ready().is_ok())
    })
    .await;
    assert_eq!(without_primary.ready(), Err(NotReady::NoPrimary));

    eventually("the replica serves", LONG, async || cluster.pools().all(|pool| pool.ready().is_ok())).await;
    nodes.kill(0).await;
    eventually("the primary's pool is not ready", LONG, async || {
        assert_eq!(cluster.ready(), Ok(()), "reads go on");
        cluster.pools().next().unwrap().ready().is_err()
    })
    .await;
    cluster.call().read(Freshness::Any).query("SELECT 1", &[]).await.unwrap();
    nodes.kill(1).await;
    eventually("no host serves", LONG, async || matches!(cluster.ready(), Err(NotReady::Silent { .. }))).await;
    cluster.close();
    assert_eq!(cluster.ready(), Err(NotReady::Closed));
}

#[cfg(feature = "admin")]
#[tokio::test(flavor = "multi_thread")]
async fn a_report_shows_roles_lags_refusals_and_the_pool_of_each_host() {
    let nodes = Replicated::start(1).await;
    let cluster = builder(&nodes).spill(0.0).build().unwrap();
    is_complete(&cluster, &nodes).await;
    let ahead: failfast::Position = "1.1.ffffffffffffffff".parse().unwrap();
    let refused = cluster.call().after(ahead).query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoFreshReplica);
    let held = cluster.call().name("report").get().await.unwrap();
    let report = cluster.report();
    assert_eq!((&*report.name, report.primary.as_deref()), ("orders", Some(&*report.hosts[0].status.host)));
    assert!(report.refused.contains(&(ErrorKind::NoFreshReplica, 1)), "{:?}", report.refused);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    let of = |host: usize, key: &str| json["hosts"][host][key].clone();
    assert_eq!(
        [of(0, "role"), of(1, "role"), of(0, "lag_ms")],
        ["primary".into(), "replica".into(), json["null"].clone()]
    );
    assert!(of(1, "lag_ms").as_u64().is_some_and(|lag| lag < 10_000), "{json}");
    assert_eq!(of(0, "pool")["holders"][0]["operation"], "report");
    assert_eq!(of(1, "pool")["holders"], serde_json::json!([]));
    drop(held);
}
