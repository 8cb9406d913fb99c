//! A real PgBouncer in transaction mode, in a container of its own, in front of a server.

use std::{net::SocketAddr, time::Duration};

use testcontainers::{ImageExt, core::IntoContainerPort};
use tokio_postgres::NoTls;

use super::{
    docker::{self, Container},
    eventually, free_port,
    server::{PASSWORD, Server, USER},
};

/// The limit for its start.
const START: Duration = Duration::from_secs(60);

/// A PgBouncer. Dropping it removes its container.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    container: Container,
    addr: SocketAddr,
}

impl PgBouncer {
    /// Starts one with two connections to the server and these settings (`name = value`). Returns `None` if no image
    /// has the program; `scripts/postgres-image` makes one. CI has it, so there it must not be missing.
    pub(crate) async fn start(server: &Server, settings: &[&str]) -> Option<PgBouncer> {
        let Some(image) = docker::image_with_pgbouncer().await else {
            assert!(std::env::var_os("CI").is_none(), "no image has PgBouncer");
            return None;
        };
        let upstream = server.inner_addr().await;
        let settings = settings.join("\n");
        let script = format!(
            r#"cat >/tmp/users <<END
"{USER}" "{PASSWORD}"
END
cat >/tmp/pgbouncer.ini <<END
[databases]
* = host={ip} port={port}
[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 6432
auth_type = scram-sha-256
auth_file = /tmp/users
pool_mode = transaction
default_pool_size = 2
admin_users = {USER}
{settings}
END
exec postgres-entrypoint pgbouncer /tmp/pgbouncer.ini"#,
            ip = upstream.ip(),
            port = upstream.port(),
        );
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let request = image.with_mapped_port(addr.port(), 6432.tcp()).with_cmd(["sh", "-c", &script]);
        let container = Container::start(request).await.unwrap_or_else(|error| panic!("no PgBouncer: {error}"));
        let config = server.config_at(addr);
        eventually("PgBouncer serves", START, async || config.connect(NoTls).await.is_ok()).await;
        Some(PgBouncer { container, addr })
    }

    /// Runs a command of its console, such as PAUSE, and waits until it is done.
    pub(crate) async fn command(&self, server: &Server, command: &str) {
        let mut config = server.config_at(self.addr);
        config.dbname("pgbouncer");
        let (client, connection) = config.connect(NoTls).await.expect("the console of PgBouncer");
        tokio::spawn(connection);
        client.simple_query(command).await.unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// Stops it, which closes its connections.
    pub(crate) async fn stop(&mut self) {
        self.container.run("stop", async |container| container.stop_with_timeout(Some(2)).await).await;
    }

    /// Starts it again after [`stop`](Self::stop), and waits until it serves.
    pub(crate) async fn start_again(&mut self, server: &Server) {
        self.container.run("start", async |container| container.start().await).await;
        let config = server.config_at(self.addr);
        eventually("PgBouncer serves", START, async || config.connect(NoTls).await.is_ok()).await;
    }

    /// Returns its address on this machine.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}
