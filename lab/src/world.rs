//! The server with a database for each pool, and the faults that happen to it.

mod cluster;
mod counting;
mod pgbouncer;

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

use self::cluster::Cluster;
pub(crate) use self::cluster::is_possible as cluster_is_possible;
use self::counting::Counting;
pub(crate) use self::pgbouncer::program as pgbouncer_program;
use self::pgbouncer::{FLEET, PgBouncer};
use crate::peers::Peer;
use crate::peers::processes::LIMIT;
use crate::scenarios::{Fault, Scenario};
use crate::support::Throwaway;
use crate::terms::{HOLD, Result};

/// How many queries without load are timed.
const TIMED: usize = 15;
/// The limit for the sessions of a closed pool to end.
const UNTIL_GONE: Duration = Duration::from_secs(3);
const LOOK_AFTER: Duration = Duration::from_millis(10);
/// The beginning of the databases' names.
const PREFIX: &str = "failfast_lab_";

/// The server and its measured overhead.
#[derive(Debug)]
pub(crate) struct World {
    // Ends before the server.
    pgbouncer: Option<PgBouncer>,
    /// Only while a failover is played.
    cluster: Option<Cluster>,
    server: Throwaway,
    peers: Vec<Peer>,
    version: String,
    /// Of the roles whose connections are limited.
    password: String,
    /// How much longer than its sleep a query takes without load.
    overhead: Duration,
}

impl World {
    /// Starts a server, unless `DATABASE_URL` names one, and makes a database for each of these pools.
    pub(crate) async fn start(peers: &[Peer]) -> Result<Self> {
        let server = Throwaway::start().await?;
        let password: String = (0..32).map(|_| fastrand::alphanumeric()).collect();
        let mut world = Self {
            pgbouncer: None,
            cluster: None,
            server,
            peers: peers.to_vec(),
            version: String::new(),
            password,
            overhead: Duration::ZERO,
        };
        let client = world.admin(Fault::None).await?;
        world.version =
            client.query_one("SELECT split_part(current_setting('server_version'), ' ', 1)", &[]).await?.get(0);
        for peer in peers {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", database(*peer))).await?;
            client.batch_execute(&format!("CREATE DATABASE {}", database(*peer))).await?;
            let hot = "CREATE TABLE hot (sold int NOT NULL); INSERT INTO hot VALUES (0)";
            connect(world.config_at_server(*peer)).await?.batch_execute(hot).await?;
        }
        let sql = format!("SELECT pg_sleep({})", HOLD.as_secs_f64());
        let mut times = Vec::new();
        for _ in 0..TIMED {
            let asked = Instant::now();
            client.batch_execute(&sql).await?;
            times.push(asked.elapsed());
        }
        times.sort();
        world.overhead = times[TIMED / 2].saturating_sub(HOLD);
        Ok(world)
    }

    /// Removes the databases from a server that goes on running.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop((self.pgbouncer.take(), self.cluster.take()));
        let client = self.admin(Fault::None).await?;
        for peer in &self.peers {
            client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", database(*peer))).await?;
            client.batch_execute(&format!("DROP ROLE IF EXISTS {}", database(*peer))).await?;
        }
        Ok(())
    }

    pub(crate) fn server_is_ours(&self) -> bool {
        self.server.is_ours()
    }

    /// The server's version, such as `17.2`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// How long a query takes that sleeps for `hold`.
    pub(crate) fn service(&self, hold: Duration) -> Duration {
        hold + self.overhead
    }

    /// The connection settings of `peer`, which has a database of its own.
    pub(crate) fn config(&self, peer: Peer, scenario: &Scenario) -> Result<Config> {
        let mut config = self.config_at_server(peer);
        if let Some(cluster) = self.cluster.as_ref().filter(|_| scenario.fault == Fault::Failover) {
            // sqlx knows one host only.
            let knows_one = matches!(peer, Peer::Sqlx | Peer::SqlxTuned);
            config = if knows_one { cluster.proxied() } else { cluster.config() };
            config.dbname(database(peer)).application_name(peer.name());
            return Ok(config);
        }
        if scenario.fault == Fault::Deploy && peer != Peer::Pgbouncer {
            config.user(database(peer)).password(&self.password);
        }
        if peer == Peer::Pgbouncer {
            config = self.pgbouncer.as_ref().ok_or("there is no PgBouncer")?.config(config);
            if scenario.fault == Fault::Deploy {
                config.dbname(FLEET);
            }
        }
        Ok(config)
    }

    fn config_at_server(&self, peer: Peer) -> Config {
        let mut config = self.server.config();
        config.dbname(database(peer)).application_name(peer.name());
        config
    }

    /// Starts what the scenario needs besides the server. A PgBouncer is a new one, because it refuses clients for a
    /// while after an outage.
    pub(crate) async fn begin(&mut self, scenario: &Scenario, peers: &[Peer]) -> Result<()> {
        if peers.contains(&Peer::Pgbouncer) {
            drop(self.pgbouncer.take());
            let fleet = database(Peer::Pgbouncer);
            self.pgbouncer = Some(PgBouncer::start(&self.server.config(), &fleet, LIMIT).await?);
        }
        if scenario.fault != Fault::Failover {
            return Ok(());
        }
        match &mut self.cluster {
            Some(cluster) => cluster.repair().await?,
            None => {
                let cluster = Cluster::start().await?;
                let client = cluster.primary().await?;
                for peer in peers {
                    client.batch_execute(&format!("CREATE DATABASE {}", database(*peer))).await?;
                }
                self.cluster = Some(cluster);
            }
        }
        Ok(())
    }

    /// Gives sessions of a tuned pool a `statement_timeout`, which all of its connections have from their beginning.
    /// For a deploy, makes a role whose connections are limited.
    pub(crate) async fn prepare(&self, peer: Peer, scenario: &Scenario) -> Result<()> {
        if peer.is_tuned() {
            let limit = scenario.longest_deadline().as_millis();
            let set = format!("ALTER DATABASE {} SET statement_timeout = {limit}", database(peer));
            self.admin(scenario.fault).await?.batch_execute(&set).await?;
        }
        if scenario.fault == Fault::Deploy {
            let (role, password) = (database(peer), &self.password);
            let make = format!(
                "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD '{password}' CONNECTION LIMIT {LIMIT}"
            );
            self.admin(scenario.fault).await?.batch_execute(&make).await?;
        }
        Ok(())
    }

    /// Begins the incident, and returns when it began.
    pub(crate) async fn strike(&mut self, fault: Fault) -> Result<Instant> {
        let mut begun = Instant::now();
        match fault {
            Fault::None | Fault::Deploy => {}
            Fault::Outage => self.server.stop().await?,
            Fault::Freeze => self.server.pause().await?,
            Fault::Failover => self.cluster()?.kill_primary().await?,
            Fault::Kill => {
                let client = self.admin(fault).await?;
                let busy =
                    format!("SELECT count(*) FROM pg_stat_activity WHERE datname ~ '^{PREFIX}' AND state <> 'idle'");
                while client.query_one(&busy, &[]).await?.get::<_, i64>(0) > 0 {
                    sleep(LOOK_AFTER).await;
                }
                begun = Instant::now();
                let kill = format!(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname ~ '^{PREFIX}'"
                );
                client.batch_execute(&kill).await?;
            }
        }
        Ok(begun)
    }

    /// Ends the incident when the server accepts connections again, and returns since when.
    pub(crate) async fn lift(&mut self, fault: Fault) -> Result<Instant> {
        match fault {
            Fault::None | Fault::Kill | Fault::Deploy => {}
            Fault::Outage => self.server.start_again().await?,
            Fault::Freeze => self.server.resume().await?,
            Fault::Failover => return self.cluster()?.await_primary().await,
        }
        Ok(Instant::now())
    }

    fn cluster(&mut self) -> Result<&mut Cluster> {
        Ok(self.cluster.as_mut().ok_or("there is no cluster")?)
    }

    /// Counts the connections of all pools until [`Counting::end`]. The times are since `begun`.
    pub(crate) fn count_connections(&self, fault: Fault, begun: Instant) -> Counting {
        Counting::begin(self.admin_config(fault), self.peers.clone(), begun)
    }

    /// How many connections to the database of `peer` the server has counted. The server may count a connection only
    /// when it ends, so this waits for the ends. `None` for several processes, which do not begin with a known number,
    /// and after a failover, because each server has its own counts.
    pub(crate) async fn sessions(&self, peer: Peer, fault: Fault) -> Result<Option<i64>> {
        if matches!(fault, Fault::Deploy | Fault::Failover) {
            return Ok(None);
        }
        let client = self.admin(fault).await?;
        let name = database(peer);
        // A PgBouncer keeps its connections.
        let patience = if peer == Peer::Pgbouncer { Duration::ZERO } else { UNTIL_GONE };
        let give_up = Instant::now() + patience;
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        while client.query_one(count, &[&name]).await?.get::<_, i64>(0) > 0 {
            if Instant::now() > give_up {
                let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
                client.query_one(kill, &[&name]).await?;
            }
            sleep(LOOK_AFTER).await;
        }
        let counted = client.query_one("SELECT sessions FROM pg_stat_database WHERE datname = $1", &[&name]).await?;
        Ok(Some(counted.get(0)))
    }

    fn admin_config(&self, fault: Fault) -> Config {
        match &self.cluster {
            Some(cluster) if fault == Fault::Failover => cluster.config(),
            _ => self.server.config(),
        }
    }

    async fn admin(&self, fault: Fault) -> Result<Client> {
        connect(self.admin_config(fault)).await
    }
}

async fn connect(config: Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn database(peer: Peer) -> String {
    format!("{PREFIX}{}", peer.name().replace('-', "_"))
}
