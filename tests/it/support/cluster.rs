//! A primary with streaming standbys, each in a container, and the faults of such a cluster: a standby that does not
//! replay, a promotion, a stopped, killed or frozen node, an old primary that returns writable.
//!
//! Nothing here fails over by itself. A test says who is promoted and who follows. The nodes have numbers, and their
//! addresses never change; node 0 is the first primary. The nodes find each other by name on a network of their own.
//! Each node has a replication slot on the primary, so a standby that was away for long finds its WAL again.

use std::{fmt::Write as _, time::Duration};

use futures_util::future::join_all;
use tokio_postgres::Config;

use super::{
    docker::Network,
    eventually,
    server::{PASSWORD, Place, Server, USER},
};

/// The limit until a standby streams, and until a promoted one accepts writes.
const LIMIT: Duration = Duration::from_secs(60);

/// A standby looks for its primary this often. The server's default is 5 s, which is most of a test.
const SETTINGS: [(&str, &str); 2] = [("wal_retrieve_retry_interval", "100ms"), ("max_connections", "200")];

/// A cluster. Dropping it removes its containers and its network.
#[derive(Debug)]
pub(crate) struct Replicated {
    nodes: Vec<Server>,
    primary: usize,
    settings: Vec<(String, String)>,
    /// After the nodes, because a network with containers cannot be removed.
    network: Network,
}

impl Replicated {
    /// Starts a primary, which is node 0, and so many standbys. Returns when all of them stream.
    pub(crate) async fn start(standbys: usize) -> Replicated {
        Replicated::start_with(standbys, &[]).await
    }

    /// [`start`](Self::start) with settings for all nodes.
    pub(crate) async fn start_with(standbys: usize, settings: &[(&str, &str)]) -> Replicated {
        let network = Network::create().await;
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        let nodes = join_all((0..=standbys).map(async |node| {
            let name = host(&network, node);
            let place = Place { network: network.name(), name: &name };
            if node > 0 {
                let script = copy_from(&host(&network, 0), node);
                return Server::start_any(&settings, &command(&script), Some(&place)).await;
            }
            let server = Server::start_any(&settings, &[], Some(&place)).await;
            admit_standbys(&server).await;
            create_slots(&server, standbys + 1).await;
            server
        }));
        let nodes = nodes.await;
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cluster = Replicated { nodes, primary: 0, settings, network };
        for node in 1..=standbys {
            cluster.is_streaming(node).await;
        }
        cluster
    }

    /// Returns how many nodes there are, whatever they do.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, node: usize) -> &Server {
        &self.nodes[node]
    }

    /// Returns the number of the node that was promoted last.
    pub(crate) fn primary_number(&self) -> usize {
        self.primary
    }

    /// Returns the node that was promoted last, even if it is down.
    pub(crate) fn primary(&self) -> &Server {
        &self.nodes[self.primary]
    }

    /// Returns settings for the superuser with all hosts in the order of their numbers, and further settings, such as
    /// `target_session_attrs=read-write`.
    pub(crate) fn config(&self, settings: &str) -> Config {
        let hosts: Vec<_> = self.nodes.iter().map(|node| node.addr().ip().to_string()).collect();
        let ports: Vec<_> = self.nodes.iter().map(|node| node.addr().port().to_string()).collect();
        self.nodes[0].config_with(&format!("host={} port={} {settings}", hosts.join(","), ports.join(",")))
    }

    /// Stops the replay of a standby. It still receives WAL, and still answers readers.
    pub(crate) async fn pause_replay(&self, node: usize) {
        let server = self.node(node);
        server.execute("SELECT pg_wal_replay_pause()").await;
        let is_paused = async || server.scalar("SELECT pg_get_wal_replay_pause_state()").await == "paused";
        eventually("the replay is paused", LIMIT, is_paused).await;
    }

    /// Ends [`pause_replay`](Self::pause_replay).
    pub(crate) async fn resume_replay(&self, node: usize) {
        self.node(node).execute("SELECT pg_wal_replay_resume()").await;
    }

    /// Lets a standby replay each commit so much later than its time on the primary. Zero ends this.
    pub(crate) async fn delay_replay(&self, node: usize, delay: Duration) {
        let server = self.node(node);
        server.execute(&format!("ALTER SYSTEM SET recovery_min_apply_delay = '{}ms'", delay.as_millis())).await;
        server.execute("SELECT pg_reload_conf()").await;
        let want = delay.as_millis().to_string();
        let setting = "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'";
        eventually("the delay is set", LIMIT, async || server.scalar(setting).await == want).await;
    }

    /// Promotes a standby and returns when it accepts writes. The old primary, if it runs, accepts them as well. The
    /// other standbys do not [`follow`](Self::follow) by themselves.
    pub(crate) async fn promote(&mut self, node: usize) {
        let server = self.node(node);
        let promoted = server.scalar("SELECT pg_promote(true, 60)").await;
        assert_eq!(promoted, "t", "node {node} was not promoted");
        create_slots(server, self.len()).await;
        self.primary = node;
    }

    /// Makes a standby receive nothing more. If it had more of the old primary's log than the standby that is promoted
    /// next, it could not [`follow`](Self::follow) that one.
    #[cfg(feature = "cluster")]
    pub(crate) async fn stop_streaming(&self, node: usize) {
        let server = self.node(node);
        server.execute("ALTER SYSTEM SET primary_conninfo = ''").await;
        server.execute("SELECT pg_reload_conf()").await;
        let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
        eventually("the standby receives nothing", LIMIT, async || server.scalar(receivers).await == "0").await;
    }

    /// Makes a standby stream from the current primary.
    pub(crate) async fn follow(&self, node: usize) {
        let server = self.node(node);
        let upstream = connection(&host(&self.network, self.primary), node);
        server.execute(&format!("ALTER SYSTEM SET primary_conninfo = '{}'", upstream.replace('\'', "''"))).await;
        server.execute("SELECT pg_reload_conf()").await;
        self.is_streaming(node).await;
    }

    /// Makes a node a new standby of the current primary, with a copy of its data. The node's own data is removed.
    pub(crate) async fn rebuild(&mut self, node: usize) {
        let name = host(&self.network, node);
        let place = Place { network: self.network.name(), name: &name };
        let script = copy_from(&host(&self.network, self.primary), node);
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.nodes[node].replace(&settings, &command(&script), Some(&place)).await;
        self.is_streaming(node).await;
    }

    /// Makes a node an empty database with a system identifier of its own, which accepts writes, as on a new disk.
    #[cfg(feature = "cluster")]
    pub(crate) async fn wipe(&mut self, node: usize) {
        let name = host(&self.network, node);
        let place = Place { network: self.network.name(), name: &name };
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.nodes[node].replace(&settings, &command(NEW_SYSTEM), Some(&place)).await;
    }

    /// Shuts a node down properly. A primary then sends all of its WAL to its standbys first.
    pub(crate) async fn stop(&mut self, node: usize) {
        self.nodes[node].stop().await;
    }

    /// Kills all processes of a node at once.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.nodes[node].kill().await;
    }

    /// Kills one session of a node with -9. The server then ends all sessions and recovers, in the process of before.
    /// Returns when it accepts connections again.
    #[cfg(feature = "cluster")]
    pub(crate) async fn kill_session(&mut self, node: usize) {
        let admin = self.node(node).admin().await;
        let pid: i32 = admin.query_one("SELECT pg_backend_pid()", &[]).await.expect("a session").get(0);
        self.nodes[node].kill_backend(pid).await;
        eventually("the session has ended", LIMIT, async || admin.is_closed()).await;
        self.node(node).accepting().await;
    }

    /// Starts a node after [`stop`](Self::stop) or [`kill`](Self::kill) as it was. An old primary is writable again, on
    /// its old timeline, although another node was promoted.
    pub(crate) async fn start_again(&mut self, node: usize) {
        self.nodes[node].start().await;
    }

    /// Freezes a node. The kernel still accepts connections, and no process answers.
    pub(crate) async fn pause(&mut self, node: usize) {
        self.nodes[node].pause().await;
    }

    /// Ends [`pause`](Self::pause).
    pub(crate) async fn unpause(&mut self, node: usize) {
        self.nodes[node].unpause().await;
    }

    /// Waits until a standby streams from the current primary, on the timeline of that primary.
    pub(crate) async fn is_streaming(&self, node: usize) {
        let (primary, standby) = (self.primary(), self.node(node));
        let sender = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{}' AND state = 'streaming'",
            slot(node)
        );
        let receiver = "SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        eventually("the standby streams", LIMIT, async || {
            primary.scalar(&sender).await == "1" && standby.scalar(receiver).await == timeline(primary).await
        })
        .await;
    }

    /// Waits until a standby has replayed all that the primary has written until now.
    pub(crate) async fn has_caught_up(&self, node: usize) {
        let position = self.primary().scalar("SELECT pg_current_wal_flush_lsn()").await;
        let standby = self.node(node);
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        eventually("the standby has caught up", LIMIT, async || standby.scalar(&replayed).await == "t").await;
    }
}

/// Returns the timeline of a primary, as decimal digits.
pub(crate) async fn timeline(primary: &Server) -> String {
    let file = primary.scalar("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await;
    let number = u32::from_str_radix(&file[..8], 16).expect("eight hexadecimal digits");
    number.to_string()
}

fn host(network: &Network, node: usize) -> String {
    format!("{}-{node}", network.name())
}

/// The name of a node's slot, and of its session on the primary.
fn slot(node: usize) -> String {
    format!("node{node}")
}

fn connection(host: &str, node: usize) -> String {
    format!("host={host} user={USER} password={PASSWORD} application_name={}", slot(node))
}

/// Copies the data of a host unless that was done before, and becomes the server.
fn copy_from(upstream: &str, node: usize) -> String {
    let (connection, slot) = (connection(upstream, node), slot(node));
    format!(
        r#"if ! test -e /tmp/failfast-copied; then
    mkdir -p "$PGDATA"
    until find "$PGDATA" -mindepth 1 -delete &&
        pg_basebackup -d "{connection}" -S {slot} -D "$PGDATA" -R -c fast --no-sync; do sleep 0.1; done
    chown -R postgres: "$PGDATA"
    chmod 700 "$PGDATA"
    touch /tmp/failfast-copied
fi
exec $(command -v docker-entrypoint.sh || command -v postgres-entrypoint) postgres -c ssl=off "$@""#
    )
}

/// The test image copies a cluster that was made when the image was built. The official image makes one anew.
#[cfg(feature = "cluster")]
const NEW_SYSTEM: &str = r#"template=/usr/local/share/failfast/cluster
if test -d $template && ! test -e /tmp/failfast-wiped; then
    rm -rf $template
    setpriv --reuid=postgres --regid=postgres --init-groups initdb --no-sync --username=postgres \
        --encoding=UTF8 --locale=C.UTF-8 --auth=trust --pgdata=/tmp/failfast-system
    printf 'local all all trust\nhost all all all scram-sha-256\n' >/tmp/failfast-system/pg_hba.conf
    cp -a /tmp/failfast-system $template
    touch /tmp/failfast-wiped
fi
exec $(command -v docker-entrypoint.sh || command -v postgres-entrypoint) postgres -c ssl=off -c 'listen_addresses=*' "$@""#;

fn command(script: &str) -> [&str; 4] {
    ["sh", "-c", script, "sh"]
}

/// The official image admits no standbys from other machines.
async fn admit_standbys(primary: &Server) {
    primary.exec("echo 'host replication all all scram-sha-256' >>\"$PGDATA/pg_hba.conf\"").await;
    primary.execute("SELECT pg_reload_conf()").await;
}

async fn create_slots(server: &Server, nodes: usize) {
    let mut names = String::new();
    for node in 0..nodes {
        let _ = write!(names, "{}('{}')", if node == 0 { "" } else { ", " }, slot(node));
    }
    let create = format!(
        "SELECT pg_create_physical_replication_slot(name) FROM (VALUES {names}) names(name)
        WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = name)"
    );
    server.execute(&create).await;
}
