//! A PgBouncer in transaction mode in front of the server, with as many connections to the server as each pool has.

use std::env;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::connect;
use crate::support::supervisor::Supervisor;
use crate::terms::{CONNECTIONS, Result};

/// Arguments: the folder, the port, the program. The password is in the environment.
///
/// Clients need no password. PgBouncer listens on 127.0.0.1 only, and ends with the lab.
const SCRIPT: &str = r#"
umask 077
printf '"%s" "%s"\n' '{user}' "$POSTGRES_PASSWORD" >users
cat >pgbouncer.ini <<END
[databases]
fleet = host={host} port={port} dbname={database} pool_size={limit}
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $2
unix_socket_dir =
auth_type = trust
auth_file = $1/users
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
server_login_retry = 1
END
"$3" pgbouncer.ini &
server=$!
read -r order
kill -KILL $server
wait
rm -rf "$1"
"#;

/// The name of the database for which it has more connections.
pub(super) const FLEET: &str = "fleet";

const LIMIT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct PgBouncer {
    supervisor: Supervisor,
}

impl PgBouncer {
    /// Starts it in front of the server with these settings, and waits until it serves. With the name [`FLEET`], it
    /// leads to `database` with so many connections.
    pub(super) async fn start(server: &Config, database: &str, limit: usize) -> Result<Self> {
        let program = program().ok_or("please install pgbouncer, or leave it out with --peers")?;
        let host = match server.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => folder.to_string_lossy().into_owned(),
            None => return Err("a PgBouncer needs to know the server's host".into()),
        };
        let port = server.get_ports().first().copied().unwrap_or(5432);
        let script = SCRIPT
            .replace("{user}", server.get_user().unwrap_or("postgres"))
            .replace("{host}", &host)
            .replace("{port}", &port.to_string())
            .replace("{database}", database)
            .replace("{limit}", &limit.to_string())
            .replace("{connections}", &CONNECTIONS.to_string());
        let password = String::from_utf8_lossy(server.get_password().unwrap_or_default()).into_owned();
        let mut supervisor = Supervisor::start(&script, &program.to_string_lossy(), &password, false)?;
        let give_up = Instant::now() + LIMIT;
        let at = at(server.clone(), supervisor.port());
        while let Err(error) = connect(at.clone()).await {
            if Instant::now() > give_up || supervisor.has_ended()? {
                let log = supervisor.log_tail()?;
                return Err(format!("PgBouncer does not start: {error}; its log ends:\n{log}").into());
            }
            sleep(RETRY_AFTER).await;
        }
        Ok(Self { supervisor })
    }

    /// These settings, but with PgBouncer's address.
    pub(super) fn config(&self, config: Config) -> Config {
        at(config, self.supervisor.port())
    }
}

fn at(config: Config, port: u16) -> Config {
    let mut at = Config::new();
    at.host(Ipv4Addr::LOCALHOST.to_string()).port(port).user(config.get_user().unwrap_or("postgres"));
    at.dbname(config.get_dbname().unwrap_or("postgres"));
    at
}

/// Where the program is on this machine.
pub(crate) fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}
