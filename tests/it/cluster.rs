//! Several servers as one: the primary is followed, and reads see what they asked for.

mod failover;
mod positions;
mod reads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use failfast::{Cluster, ClusterBuilder, Event, EventKind, Role};

use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const SECOND: Duration = Duration::from_secs(1);

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
