//! A PostgreSQL cluster that fails over by itself: nodes with Patroni and PostgreSQL, one etcd, and an HAProxy as
//! Patroni's documentation recommends it. Each is a container on a network of their own.
//!
//! `lab` starts the same cluster with the scripts of `scripts`. Patroni's lease is short here, so that a failover takes
//! seconds (see [`TTL`]). Replication is asynchronous, which is the default: a failover may lose acknowledged writes.
//!
//! A container stays when its node is killed, and so do its addresses. To clients on this machine, a killed node closes
//! each connection at once. A paused node accepts connections and says nothing, and so does one that is cut off from
//! everybody.

mod http;
mod scripts;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use testcontainers::core::{ContainerPort, IntoContainerPort};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

pub(crate) use self::watch::{Watch, Writable};
use super::docker::{self, Container, Network};
use super::server::{DATABASE, PASSWORD, USER};
use super::{eventually, free_port};

/// The primary's lease in seconds. Patroni's default is 30 with a `loop_wait` and a `retry_timeout` of 10 each. It
/// accepts no lease below 20, so [`scripts`] lowers that limit.
const TTL: u32 = 7;
const LOOP_WAIT: u32 = 1;
/// Patroni's minimum. It demands that `LOOP_WAIT` plus twice this is at most [`TTL`].
const RETRY_TIMEOUT: u32 = 3;

/// The limit until the cluster is whole, at first and after a fault.
const LIMIT: Duration = Duration::from_secs(120);

/// The limit for an answer of a node that may be silent.
const ANSWER: Duration = Duration::from_secs(1);

/// Patroni answers when the switchover is over.
const SWITCHOVER: Duration = Duration::from_secs(60);

/// A cluster. Dropping it removes its containers and its network.
#[derive(Debug)]
pub(crate) struct Patroni {
    nodes: Vec<Node>,
    proxy: Proxy,
    _etcd: Container,
    /// After the containers, because a network with containers cannot be removed.
    network: Network,
}

#[derive(Debug)]
struct Node {
    container: Container,
    host: String,
    postgres: SocketAddr,
    rest: SocketAddr,
}

#[derive(Debug)]
struct Proxy {
    _container: Container,
    primary: SocketAddr,
    replicas: SocketAddr,
}

/// From what a node is cut off. The packets are dropped, so nobody hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The other nodes and etcd. Clients and the HAProxy still reach it.
    Peers,
    Everybody,
}

impl Patroni {
    /// Starts a cluster of so many nodes. Returns when all of them stream. Returns `None` without the image, which
    /// `scripts/patroni-image` makes.
    pub(crate) async fn start(nodes: usize) -> Option<Patroni> {
        let image = docker::image_with_patroni().await?;
        let network = Network::create().await;
        let host = |name: &str| format!("{}-{name}", network.name());
        let start = async |name: &str, script: &str, ports: &[ContainerPort]| {
            let request = image.clone().with_network(network.name()).with_container_name(host(name));
            start(request.with_cap_add("NET_ADMIN").with_cmd(["bash", "-c", script]), ports).await
        };
        let hosts: Vec<_> = (0..nodes).map(|node| host(&name(node))).collect();
        let etcd_script = scripts::etcd(&host("etcd"));
        let etcd = start("etcd", &etcd_script, &[]);
        let nodes = join_all(hosts.iter().enumerate().map(async |(node, host_of_node)| {
            let script = scripts::node(&name(node), host_of_node, &host("etcd"));
            let (container, ports) = start(&name(node), &script, &[5432.tcp(), 8008.tcp()]).await;
            Node { container, host: host_of_node.clone(), postgres: ports[0], rest: ports[1] }
        }));
        let ((etcd, _), nodes) = tokio::join!(etcd, nodes);
        let (container, ports) = start("proxy", &scripts::proxy(&hosts), &[5000.tcp(), 5001.tcp()]).await;
        let proxy = Proxy { _container: container, primary: ports[0], replicas: ports[1] };
        let cluster = Patroni { nodes, proxy, _etcd: etcd, network };
        eventually("the cluster has a primary", LIMIT, async || cluster.leader().await.is_some()).await;
        watch::prepare(&cluster.proxied_when_ready().await).await;
        cluster.is_whole().await;
        Some(cluster)
    }

    /// Returns how many nodes there are, whatever they do.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns settings for the superuser at one node.
    pub(crate) fn node_config(&self, node: usize) -> Config {
        config(&[self.nodes[node].postgres], "")
    }

    /// Returns settings for the superuser with all nodes and further settings, such as
    /// `target_session_attrs=read-write`.
    pub(crate) fn config(&self, settings: &str) -> Config {
        let all: Vec<_> = self.nodes.iter().map(|node| node.postgres).collect();
        config(&all, settings)
    }

    /// Returns settings for the superuser at the HAProxy, which leads to the primary.
    pub(crate) fn proxied(&self) -> Config {
        config(&[self.proxy.primary], "")
    }

    /// Returns settings for the superuser at the HAProxy, which leads to the replicas in turn.
    pub(crate) fn proxied_replicas(&self) -> Config {
        config(&[self.proxy.replicas], "")
    }

    /// Returns the primary's number and timeline. After a partition, two nodes may believe to be the primary. Then it
    /// is the one with the higher timeline.
    pub(crate) async fn leader(&self) -> Option<(usize, u32)> {
        let answers = join_all(self.nodes.iter().map(async |node| {
            let (status, body) = http::request(node.rest, "GET", "/primary", None, ANSWER).await.ok()?;
            let timeline = body["timeline"].as_u64().and_then(|timeline| u32::try_from(timeline).ok())?;
            (status == 200).then_some(timeline)
        }));
        let leaders = answers.await.into_iter().enumerate().filter_map(|(node, timeline)| Some((node, timeline?)));
        leaders.max_by_key(|(_, timeline)| *timeline)
    }

    /// Returns what Patroni says of a node, if the node answers.
    async fn state(&self, node: usize) -> Option<Value> {
        let (_, body) = http::request(self.nodes[node].rest, "GET", "/patroni", None, ANSWER).await.ok()?;
        Some(body)
    }

    /// Waits until there is one primary, from which all other nodes stream.
    pub(crate) async fn is_whole(&self) {
        eventually("all nodes stream from one primary", LIMIT, async || {
            let Some((leader, timeline)) = self.leader().await else { return false };
            let states = join_all((0..self.len()).map(|node| self.state(node))).await;
            let streams = |sender: &&Value| sender["state"] == "streaming";
            let senders = states[leader].as_ref().and_then(|state| state["replication"].as_array());
            let is_on_it = |state: &Option<Value>| state.as_ref().is_some_and(|state| state["timeline"] == timeline);
            senders.is_some_and(|senders| senders.iter().filter(streams).count() + 1 == self.len())
                && states.iter().all(is_on_it)
        })
        .await;
    }

    /// Begins to write to every node, to learn when a new primary accepts a write. Begin before the fault.
    pub(crate) fn watch(&self) -> Watch {
        Watch::begin((0..self.len()).map(|node| self.node_config(node)).collect())
    }

    /// Hands the role of the primary over to this node. Returns when Patroni says that it is done.
    pub(crate) async fn switchover(&self, to: usize) {
        let (leader, _) = self.leader().await.expect("a primary");
        let order = json!({ "leader": name(leader), "candidate": name(to) }).to_string();
        let done = http::request(self.nodes[leader].rest, "POST", "/switchover", Some(&order), SWITCHOVER).await;
        let (status, body) = done.unwrap_or_else(|error| panic!("switchover: {error}"));
        assert_eq!(status, 200, "switchover: {body}");
    }

    /// Kills Patroni and PostgreSQL of a node at once. They stay down.
    pub(crate) async fn kill(&self, node: usize) {
        self.exec(node, scripts::KILL).await;
    }

    /// Ends [`kill`](Self::kill). Patroni then makes the node a standby, if another node is the primary.
    pub(crate) async fn start_again(&self, node: usize) {
        self.exec(node, scripts::START_AGAIN).await;
    }

    /// Kills PostgreSQL of a node and leaves Patroni, which starts it again. The primary usually remains the primary.
    pub(crate) async fn kill_postgres(&self, node: usize) {
        self.exec(node, scripts::KILL_POSTGRES).await;
    }

    /// Cuts a node off from the others.
    pub(crate) async fn partition(&self, node: usize, cut: Cut) {
        let peers = self.nodes.iter().map(|node| node.host.clone()).filter(|host| *host != self.nodes[node].host);
        let peers: Vec<_> = peers.chain([format!("{}-etcd", self.network.name())]).collect();
        self.exec(node, &scripts::partition(cut, &peers)).await;
    }

    /// Ends [`partition`](Self::partition).
    pub(crate) async fn heal(&self, node: usize) {
        self.exec(node, scripts::HEAL).await;
    }

    /// Freezes all processes of a node. The kernel still accepts connections.
    pub(crate) async fn pause(&self, node: usize) {
        self.nodes[node].container.run("pause", async |container| container.pause().await).await;
    }

    /// Ends [`pause`](Self::pause).
    pub(crate) async fn unpause(&self, node: usize) {
        self.nodes[node].container.run("unpause", async |container| container.unpause().await).await;
    }

    async fn exec(&self, node: usize, command: &str) {
        let (code, printed) = self.nodes[node].container.exec(command).await;
        assert_eq!(code, Some(0), "{command}: {printed}");
    }

    /// The HAProxy knows the primary some seconds later than Patroni.
    async fn proxied_when_ready(&self) -> Client {
        let (leader, _) = self.leader().await.expect("a primary");
        eventually("the HAProxy leads to the primary", LIMIT, async || {
            matches!(timeout(ANSWER, connect(self.proxied())).await, Ok(Ok(_)))
        })
        .await;
        connect(self.node_config(leader)).await.expect("the primary serves")
    }
}

/// Connects on the caller's runtime.
pub(crate) async fn connect(config: Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The name of a node for Patroni.
fn name(node: usize) -> String {
    format!("node{node}")
}

fn config(addrs: &[SocketAddr], settings: &str) -> Config {
    let join = |part: fn(&SocketAddr) -> String| addrs.iter().map(part).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (join(|addr| addr.ip().to_string()), join(|addr| addr.port().to_string()));
    let all = format!("user={USER} password={PASSWORD} dbname={DATABASE} host={hosts} port={ports} {settings}");
    all.parse().unwrap_or_else(|error| panic!("{error}: {settings}"))
}

/// Starts a container with these ports published. Returns their addresses on this machine.
async fn start(request: ContainerRequest<GenericImage>, inner: &[ContainerPort]) -> (Container, Vec<SocketAddr>) {
    let ports: Vec<_> = inner.iter().map(|_| free_port()).collect();
    let published =
        inner.iter().zip(&ports).fold(request, |request, (inner, port)| request.with_mapped_port(*port, *inner));
    let container = Container::start(published).await.unwrap_or_else(|error| panic!("no container: {error}"));
    (container, ports.into_iter().map(|port| ([127, 0, 0, 1], port).into()).collect())
}
