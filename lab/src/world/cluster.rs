//! Two servers with Patroni, an etcd and an HAProxy, each in a container: a cluster that fails over by itself. The
//! scripts are those of the tests of failovers; the image is made by `scripts/patroni-image`.

#[path = "../../../tests/it/support/patroni/scripts.rs"]
#[allow(dead_code, reason = "the tests know more faults")]
mod scripts;

use std::fs;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config};

use super::connect;
use crate::support::supervisor::Supervisor;
use crate::terms::Result;

/// Patroni's lease in seconds, short so that a failover takes seconds. For the limits see the tests' `patroni`.
const TTL: u32 = 7;
const LOOP_WAIT: u32 = 1;
const RETRY_TIMEOUT: u32 = 3;
const USER: &str = "postgres";
/// Nobody but this machine reaches the containers.
const PASSWORD: &str = "lab";
const DATABASE: &str = "lab";

const IMAGE: &str = "failfast-patroni:17";
const NODES: [&str; 2] = ["node0", "node1"];
/// The limit until the cluster is whole, at first and after a failover.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// The limit for an answer of a node that may be down.
const ANSWER: Duration = Duration::from_secs(1);

/// From what a node is cut off. The lab only kills.
#[allow(dead_code, reason = "the tests know more faults")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Peers,
    Everybody,
}

/// Arguments: the folder, whose name is also that of the containers; a port that is not used; the image.
const SCRIPT: &str = r#"
name=${1##*/} image=$3
run() { # NAME [FLAGS]
    node=$1
    shift
    docker run -d --name "$name-$node" --network "$name" --network-alias "$node" "$@" \
        "$image" bash -c "$(cat "$node.sh")"
}
ports() {
    for node in node0 node1; do docker port "$name-$node" 5432/tcp; done >ports
    docker port "$name-proxy" 5000/tcp >>ports
}
kill0() { docker exec "$name-node0" bash -c "$(cat kill.sh)"; }
kill1() { docker exec "$name-node1" bash -c "$(cat kill.sh)"; }
again() { for node in node0 node1; do docker exec "$name-$node" bash -c "$(cat again.sh)"; done; }

docker network create "$name" && run etcd && run node0 -p 127.0.0.1::5432 && run node1 -p 127.0.0.1::5432 &&
    run proxy -p 127.0.0.1::5000 && {
    while read -r order; do
        "$order" || break
        echo "$order" >>done
    done
}
for node in proxy node0 node1 etcd; do docker rm -f -v "$name-$node"; done
docker network rm "$name"
rm -rf "$1"
"#;

/// A running cluster, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    supervisor: Supervisor,
    ports: Vec<u16>,
    /// Learns when a primary accepts writes again, after [`kill_primary`](Self::kill_primary).
    watch: Option<JoinHandle<Instant>>,
}

/// Whether the image is there.
pub(crate) async fn is_possible() -> bool {
    let mut inspect = Command::new("docker");
    inspect.args(["image", "inspect", IMAGE]).kill_on_drop(true);
    matches!(timeout(5 * ANSWER, inspect.output()).await, Ok(Ok(output)) if output.status.success())
}

impl Cluster {
    /// Starts a cluster and waits until the second node streams from the first one.
    pub(super) async fn start() -> Result<Self> {
        let hosts = NODES.map(str::to_owned);
        let mut script = String::new();
        let mut file = |name: &str, text: &str| script += &format!("cat >{name}.sh <<'FAILFAST'\n{text}\nFAILFAST\n");
        file("etcd", &scripts::etcd("etcd"));
        for node in NODES {
            file(node, &scripts::node(node, node, "etcd"));
        }
        file("proxy", &scripts::proxy(&hosts));
        file("kill", scripts::KILL);
        file("again", scripts::START_AGAIN);
        script += SCRIPT;
        let supervisor = Supervisor::start(&script, IMAGE, PASSWORD, true)?;
        let mut cluster = Self { supervisor, ports: Vec::new(), watch: None };
        cluster.order("ports").await?;
        let ports = fs::read_to_string(cluster.supervisor.folder().join("ports"))?;
        let port = |line: &str| line.rsplit(':').next()?.trim().parse().ok();
        cluster.ports = ports.lines().filter_map(port).collect();
        if cluster.ports.len() != NODES.len() + 1 {
            return Err(format!("docker did not name the ports: {ports:?}").into());
        }
        cluster.is_whole().await?;
        Ok(cluster)
    }

    /// Settings with both nodes, for the primary.
    pub(super) fn config(&self) -> Config {
        let mut config = self.node(0);
        config.host("127.0.0.1").port(self.ports[1]).target_session_attrs(TargetSessionAttrs::ReadWrite);
        config
    }

    /// Settings for the HAProxy, which leads to the primary.
    pub(super) fn proxied(&self) -> Config {
        self.node(NODES.len())
    }

    fn node(&self, index: usize) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.ports[index]).user(USER).password(PASSWORD).dbname("postgres");
        config
    }

    /// A connection to the primary.
    pub(super) async fn primary(&self) -> Result<Client> {
        connect(self.config()).await
    }

    /// Waits until one node is the primary, the other one streams from it, and the HAProxy leads to it.
    async fn is_whole(&mut self) -> Result<()> {
        let give_up = Instant::now() + LIMIT;
        loop {
            if timeout(ANSWER, self.streams()).await.is_ok_and(|streams| streams.unwrap_or(false)) {
                return Ok(());
            }
            if Instant::now() > give_up || self.supervisor.has_ended()? {
                let log = self.supervisor.log_tail()?;
                return Err(format!("the cluster is not whole after {LIMIT:?}; its log ends:\n{log}").into());
            }
            sleep(LOOK_AFTER).await;
        }
    }

    async fn streams(&self) -> Result<bool> {
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let streaming: i64 = self.primary().await?.query_one(streaming, &[]).await?.get(0);
        let proxied = connect(self.proxied()).await?.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        Ok(streaming == 1 && !proxied.get::<_, bool>(0))
    }

    /// Kills the node with the primary. Begins to watch for the next primary.
    pub(super) async fn kill_primary(&mut self) -> Result<()> {
        let at_first = connect(self.node(0)).await?.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        let is_second: bool = at_first.get(0);
        self.order(if is_second { "kill1" } else { "kill0" }).await?;
        let config = self.config();
        self.watch = Some(tokio::spawn(async move {
            loop {
                let write = async {
                    connect(config.clone()).await?.batch_execute("CREATE TEMP TABLE written ()").await?;
                    Result::Ok(())
                };
                if matches!(timeout(ANSWER, write).await, Ok(Ok(()))) {
                    return Instant::now();
                }
                sleep(LOOK_AFTER).await;
            }
        }));
        Ok(())
    }

    /// Waits for the next primary. Returns when it accepted a write.
    pub(super) async fn await_primary(&mut self) -> Result<Instant> {
        let watch = self.watch.take().ok_or("no node was killed")?;
        Ok(timeout(LIMIT, watch).await??)
    }

    /// Starts the killed node, and waits until the cluster is whole.
    pub(super) async fn repair(&mut self) -> Result<()> {
        self.order("again").await?;
        self.is_whole().await
    }

    async fn order(&mut self, order: &str) -> Result<()> {
        self.supervisor.order(order)?;
        let give_up = Instant::now() + LIMIT;
        while !self.supervisor.is_obeyed() {
            if Instant::now() > give_up || self.supervisor.has_ended()? {
                let log = self.supervisor.log_tail()?;
                return Err(format!("cannot {order} the cluster; the log ends:\n{log}").into());
            }
            sleep(LOOK_AFTER).await;
        }
        Ok(())
    }
}
