//! Several servers as one: the primary is followed, and reads see what they asked for.

mod alone;
mod beats;
mod behind;
mod failover;
#[cfg(feature = "testing")]
mod instead;
mod listening;
mod moved;
mod offers;
mod others;
mod positions;
mod reads;
mod series;
mod start;
mod watched;
#[cfg(feature = "axum")]
mod web;
mod writers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use failfast::{Cluster, ClusterBuilder, Event, EventKind, Freshness, Role};
use futures_util::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};

use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const SECOND: Duration = Duration::from_secs(1);

/// How old the data of most reads may be.
const BOUND: Duration = Duration::from_secs(2);

/// The settings of a cluster of all nodes.
fn builder(nodes: &Replicated) -> ClusterBuilder {
    Cluster::builder(nodes.config("")).pool(|builder| builder.name("orders").max_size(10))
}

/// Waits until the cluster knows its primary and all of its replicas, and each replica has caught up.
async fn is_complete(cluster: &Cluster, nodes: &Replicated) {
    for node in (0..nodes.len()).filter(|node| *node != nodes.primary_number()) {
        nodes.has_caught_up(node).await;
    }
    let has_lag = |role, lag: Option<Duration>| role == Role::Primary || lag.is_some_and(|lag| lag < SECOND * 3 / 2);
    eventually("the cluster knows all of its hosts", LONG, async || {
        cluster.hosts().iter().all(|host| has_lag(host.role, host.lag))
    })
    .await;
}

fn role(cluster: &Cluster, node: usize) -> Role {
    cluster.hosts()[node].role
}

/// The events of a cluster, as they come.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<EventKind>>>);

impl Seen {
    fn observe(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let seen = self.clone();
        move |event: &Event| seen.0.lock().unwrap().push(event.kind.clone())
    }

    fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|kind| kind.as_str() == name).count()
    }

    fn find<T>(&self, find: impl Fn(&EventKind) -> Option<T>) -> Option<T> {
        self.0.lock().unwrap().iter().find_map(find)
    }
}

/// Whether a replica serves a read; if so, the replica's port on its own machine tells nothing, so its address does.
const SERVED_BY: &str = "SELECT pg_is_in_recovery(), host(inet_server_addr())";

/// The address at which a node sees itself.
async fn address(nodes: &Replicated, node: usize) -> String {
    nodes.node(node).scalar("SELECT host(inet_server_addr())").await
}

/// Each future of a cluster, in a task of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_future_of_a_cluster_can_be_spawned() {
    let nodes = Replicated::start(0).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.batch_execute("CREATE TABLE items (id int8, name text)").await.unwrap();
    let task = async move {
        let read = || cluster.call().read(Freshness::Any).deadline(LONG);
        cluster.warm_up(0, LONG).await?;
        let rows = [[&1_i64 as &(dyn ToSql + Sync), &"apple"]];
        assert_eq!(cluster.execute_many("INSERT INTO items VALUES ($1, $2)", rows).await?, 1);
        let sql = "COPY items (id, name) FROM STDIN (FORMAT binary)";
        assert_eq!(cluster.copy_in_rows(sql, &[Type::INT8, Type::TEXT], rows).await?, 1);
        let mut copy = cluster.copy_in("COPY items (id, name) FROM STDIN").await?;
        copy.send(&b"2\tpear\n"[..]).await?;
        copy.finish().await?;
        let data: Vec<_> = cluster.copy_out("COPY items TO STDOUT").await?.try_collect().await?;
        assert!(!data.is_empty());
        let types = [Type::INT8, Type::TEXT];
        let out = cluster.copy_out_rows("COPY items TO STDOUT (FORMAT binary)", &types).await?;
        assert_eq!(out.try_collect::<Vec<_>>().await?.len(), 3);
        let id = 2_i64;
        let count = "SELECT count(*) FROM items WHERE id = $1";
        for call in [cluster.call(), read(), cluster.call().after(std::time::Instant::now())] {
            assert_eq!(call.query(count, &[&id]).await?.len(), 1);
            assert_eq!(call.query_one(count, &[&id]).await?.get::<_, i64>(0), 1);
            assert!(call.query_opt(count, &[&id]).await?.is_some());
            assert_eq!(call.query_typed(count, &[(&id, Type::INT8)]).await?.len(), 1);
            assert_eq!(call.query_raw(count, [id]).await?.try_collect::<Vec<_>>().await?.len(), 1);
            assert_eq!(call.query_stream(count, &[&id]).await?.try_collect::<Vec<_>>().await?.len(), 1);
            assert!(!call.simple_query("SELECT 1").await?.is_empty());
            let run = async |client: failfast::Client| client.query_one(count, &[&id]).await;
            assert_eq!(call.run(run).await?.get::<_, i64>(0), 1);
            let work = async |tx: failfast::Transaction| tx.query_one(count, &[&id]).await;
            assert_eq!(call.transaction(work).await?.get::<_, i64>(0), 1);
            let once = async move |tx: failfast::Transaction| tx.query_one(count, &[&id]).await;
            assert_eq!(call.transaction_once(once).await?.get::<_, i64>(0), 1);
            drop(call.get().await?);
        }
        let update = async |tx: failfast::Transaction| tx.execute("UPDATE items SET name = 'plum'", &[]).await;
        assert_eq!(cluster.transaction_at(update).await?.0, 3);
        assert_eq!(cluster.primary()?.status().name.split('@').next(), Some("orders"));
        assert_eq!(cluster.drain(LONG).await, 0);
        Ok::<_, failfast::Error>(())
    };
    tokio::spawn(task).await.unwrap().unwrap();
}
