//! The server with a database for each pool, and the faults that happen to it.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

use super::peers::Peer;
use super::scenarios::Fault;
use super::{HOLD, Result};
use crate::support::Throwaway;

/// How many queries without load are timed.
const TIMED: usize = 15;
/// The limit for the sessions of a closed pool to end.
const UNTIL_GONE: Duration = Duration::from_secs(3);
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// The server and its measured overhead.
#[derive(Debug)]
pub(crate) struct World {
    server: Throwaway,
    /// How much longer than its sleep a query takes without load.
    overhead: Duration,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let server = Throwaway::start().await?;
        let mut world = Self { server, overhead: Duration::ZERO };
        let client = world.admin().await?;
        for peer in Peer::ALL {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {}", database(peer))).await?;
            client.batch_execute(&format!("CREATE DATABASE {}", database(peer))).await?;
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
    pub(crate) async fn end(self) -> Result<()> {
        let client = self.admin().await?;
        for peer in Peer::ALL {
            client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", database(peer))).await?;
        }
        Ok(())
    }

    pub(crate) fn server_is_ours(&self) -> bool {
        self.server.is_ours()
    }

    /// How long a query takes that sleeps for `hold`.
    pub(crate) fn service(&self, hold: Duration) -> Duration {
        hold + self.overhead
    }

    /// The connection settings of `peer`, which has a database of its own.
    pub(crate) fn config(&self, peer: Peer) -> Config {
        let mut config = self.server.config();
        config.dbname(database(peer)).application_name(peer.name());
        config
    }

    /// Begins the incident, and returns when it began.
    pub(crate) async fn strike(&mut self, fault: Fault) -> Result<Instant> {
        let mut begun = Instant::now();
        match fault {
            Fault::None => {}
            Fault::Outage => self.server.stop().await?,
            Fault::Freeze => self.server.pause().await?,
            Fault::Kill => {
                let client = self.admin().await?;
                let busy =
                    "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'failfast_incident%' AND state <> 'idle'";
                while client.query_one(busy, &[]).await?.get::<_, i64>(0) > 0 {
                    sleep(LOOK_AFTER).await;
                }
                begun = Instant::now();
                let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname LIKE 'failfast_incident%'";
                client.batch_execute(kill).await?;
            }
        }
        Ok(begun)
    }

    /// Ends the incident, and returns when the server accepts connections again.
    pub(crate) async fn lift(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::None | Fault::Kill => {}
            Fault::Outage => self.server.start_again().await?,
            Fault::Freeze => self.server.resume().await?,
        }
        Ok(())
    }

    /// How many connections to the database of `peer` the server has counted. The server may count a connection only
    /// when it ends, so this waits for the ends.
    pub(crate) async fn sessions(&self, peer: Peer) -> Result<i64> {
        let client = self.admin().await?;
        let name = database(peer);
        let give_up = Instant::now() + UNTIL_GONE;
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        while client.query_one(count, &[&name]).await?.get::<_, i64>(0) > 0 {
            if Instant::now() > give_up {
                let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
                client.query_one(kill, &[&name]).await?;
            }
            sleep(LOOK_AFTER).await;
        }
        Ok(client.query_one("SELECT sessions FROM pg_stat_database WHERE datname = $1", &[&name]).await?.get(0))
    }

    async fn admin(&self) -> Result<Client> {
        let (client, connection) = self.server.config().connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

fn database(peer: Peer) -> String {
    format!("failfast_incident_{}", peer.name().replace('-', "_"))
}
