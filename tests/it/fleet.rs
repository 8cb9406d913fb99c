//! Pools that share a server share its connections: the budget of a fleet, on real servers.

mod many;
mod pooler;
pub(crate) mod processes;
mod series;
pub(crate) mod worker;

use std::time::Duration;

use failfast::{FleetConfig, FleetState, Pool, PoolBuilder};
use tokio_postgres::Config;

use crate::support::server::Server;

const SECOND: Duration = Duration::from_secs(1);

/// A server with few connections, and an ordinary role: the reserved ones are not for it.
pub(crate) async fn small_server(connections: &str) -> Server {
    let server = Server::own(&[("max_connections", connections), ("log_line_prefix", "%e ")]).await;
    server.execute("CREATE ROLE app LOGIN PASSWORD 'secret'").await;
    server
}

pub(crate) fn as_app(server: &Server) -> Config {
    let mut config = server.config();
    config.user("app");
    config
}

fn member(config: Config) -> PoolBuilder {
    Pool::builder(config).max_size(40).acquire_timeout(5 * SECOND).fleet(FleetConfig::new("shop"))
}

/// How often the server has refused a connection because it was full.
pub(crate) async fn refusals(server: &Server) -> usize {
    server.log().await.lines().filter(|line| line.starts_with("53300")).count()
}

fn fleet(pool: &Pool) -> failfast::FleetStatus {
    pool.status().fleet.expect("the pool is a member")
}

fn is_sharing(pool: &Pool, members: usize) -> bool {
    let fleet = fleet(pool);
    fleet.state == FleetState::Sharing && fleet.members == members
}
