//! A real PostgreSQL server in a container, and its faults: stopped, killed, frozen, or with a killed process.
//!
//! [`Server::shared`] is for tests without faults of the server. A test that hurts its server starts one of its own.
//! The faults take `&mut self`, so no test can hurt the shared one by accident. The address stays the same after a stop
//! and a start.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use testcontainers::{ImageExt, bollard::query_parameters::KillContainerOptions, core::IntoContainerPort};
use tokio::{
    net::lookup_host,
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{
    docker::{self, Container, chain, on_own_runtime},
    eventually, free_port,
};

pub(super) const USER: &str = "failfast";
pub(super) const PASSWORD: &str = "secret";
pub(super) const DATABASE: &str = "failfast";

/// The limit until a server accepts connections, also after a crash.
const START: Duration = Duration::from_secs(60);

/// The limit for a stop in seconds. Then the container is killed.
const STOP: i32 = 30;

/// How often a container is paused at most, until it is.
const PAUSES: usize = 100;

/// The limit for a statement of [`Server::execute`].
const STATEMENT: Duration = Duration::from_secs(30);

/// Where a server is among the containers of a cluster.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) network: &'a str,
    /// The container's name, by which the other containers of the network find it.
    pub(super) name: &'a str,
}

/// A server. Dropping it removes its container.
#[derive(Debug)]
pub(crate) struct Server {
    container: Container,
    addr: SocketAddr,
}

impl Server {
    /// Returns the server that all tests of this process share.
    pub(crate) async fn shared() -> &'static Server {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_init(|| Server::own(&[("max_connections", "200")])).await
    }

    /// Starts a server for one test, with these settings.
    pub(crate) async fn own(settings: &[(&str, &str)]) -> Server {
        Server::start_any(settings, &[], None).await
    }

    /// Starts a streaming standby of `primary` with these settings. It is read-only.
    pub(crate) async fn standby(primary: &Server, settings: &[(&str, &str)]) -> Server {
        let host = primary.exec("hostname -i").await;
        let host = host.trim();
        primary.exec("echo 'host replication all all scram-sha-256' >>\"$PGDATA/pg_hba.conf\"").await;
        primary.execute("SELECT pg_reload_conf()").await;
        let script = format!(
            "mkdir -p \"$PGDATA\"
            until pg_basebackup -d 'host={host} user={USER} password={PASSWORD}' -D \"$PGDATA\" -R -c fast; do sleep 0.2; done
            chown -R postgres: \"$PGDATA\"; chmod 700 \"$PGDATA\"
            exec $(command -v docker-entrypoint.sh || command -v postgres-entrypoint) postgres -c ssl=off \"$@\""
        );
        Server::start_any(settings, &["sh", "-c", &script, "sh"], None).await
    }

    /// Starts the `command`, which ends as a server, with these settings as its further arguments.
    pub(super) async fn start_any(settings: &[(&str, &str)], command: &[&str], place: Option<&Place<'_>>) -> Server {
        for _ in 0..10 {
            match Server::create(free_port(), settings, command, place).await {
                Ok(server) => return server,
                Err(error) if error.contains("already allocated") || error.contains("already in use") => continue,
                Err(error) => panic!("no server: {error}"),
            }
        }
        panic!("no server: every port tried was taken");
    }

    /// Starts an empty container in the place of this one, at the same address.
    pub(super) async fn replace(&mut self, settings: &[(&str, &str)], command: &[&str], place: Option<&Place<'_>>) {
        self.container.remove();
        let created = Server::create(self.addr.port(), settings, command, place).await;
        *self = created.unwrap_or_else(|error| panic!("no server: {error}"));
    }

    async fn create(
        port: u16,
        settings: &[(&str, &str)],
        command: &[&str],
        place: Option<&Place<'_>>,
    ) -> Result<Server, String> {
        // `./dev german` sets another language than English.
        let messages = std::env::var("FAILFAST_TEST_MESSAGES").ok();
        let messages = messages.as_deref().map(|locale| ("lc_messages", locale));
        let defaults = [("fsync", "off")];
        let arguments = defaults
            .iter()
            .chain(&messages)
            .chain(settings)
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
        let mut request = docker::image()
            .await
            .with_mapped_port(port, 5432.tcp())
            .with_env_var("POSTGRES_USER", USER)
            .with_env_var("POSTGRES_PASSWORD", PASSWORD)
            .with_env_var("POSTGRES_DB", DATABASE)
            .with_cmd(command.iter().map(|word| (*word).to_owned()).chain(arguments));
        if let Some(Place { network, name }) = place {
            request = request.with_network(*network).with_container_name(*name);
        }
        let container = Container::start(request).await?;
        let host = container.run("host", async |container| container.get_host().await).await.to_string();
        let mut found = lookup_host((host, port)).await.map_err(|error| error.to_string())?;
        let addr = found.find(SocketAddr::is_ipv4).ok_or("the container's host has no IPv4 address")?;
        let server = Server { container, addr };
        server.accepting().await;
        Ok(server)
    }

    /// Returns the identity of the container.
    pub(crate) fn id(&self) -> &str {
        self.container.id()
    }

    /// Returns the server's address on this machine.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the server's address for other containers.
    pub(crate) async fn inner_addr(&self) -> SocketAddr {
        let ip: IpAddr = self.exec("hostname -i").await.trim().parse().expect("one address");
        (ip, 5432).into()
    }

    /// Returns a URL for the superuser.
    pub(crate) fn url(&self) -> String {
        url(self.addr)
    }

    /// Returns settings for the superuser.
    pub(crate) fn config(&self) -> Config {
        self.config_at(self.addr)
    }

    /// Returns [`Server::config`] with another address, such as that of a proxy.
    pub(crate) fn config_at(&self, addr: SocketAddr) -> Config {
        url(addr).parse().expect("our own URL")
    }

    /// Returns [`Server::config`] with further settings: hosts, ports, `sslmode` and others.
    pub(crate) fn config_with(&self, settings: &str) -> Config {
        let all = format!("user={USER} password={PASSWORD} dbname={DATABASE} {settings}");
        all.parse().unwrap_or_else(|error| panic!("{}: {settings}", chain(&error)))
    }

    /// Opens a connection that does not depend on the caller's runtime.
    pub(crate) async fn admin(&self) -> Client {
        let connecting = connect(self.config());
        on_own_runtime(connecting).await.unwrap_or_else(|error| panic!("admin connection: {}", chain(&error)))
    }

    /// Runs SQL on a connection of its own.
    pub(crate) async fn execute(&self, sql: &str) {
        self.query(sql).await;
    }

    /// Runs SQL on a connection of its own. Returns the first column of the first row as text, or an empty text without
    /// a row.
    pub(crate) async fn scalar(&self, sql: &str) -> String {
        let messages = self.query(sql).await;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.unwrap_or_default().to_owned()
    }

    /// Returns how many connections with this application name the server has.
    pub(crate) async fn connection_count(&self, application_name: &str) -> u64 {
        let name = application_name.replace('\'', "''");
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        self.scalar(&count).await.parse().expect("a count")
    }

    /// Runs a shell command in the container as root, and returns its output. Panics if the command fails.
    pub(crate) async fn exec(&self, command: &str) -> String {
        let (code, printed) = self.container.exec(command).await;
        assert_eq!(code, Some(0), "{command}: {printed}");
        printed
    }

    /// Shuts the server down properly: it reports the shutdown to open connections and closes them.
    pub(crate) async fn stop(&mut self) {
        self.container.run("stop", async |container| container.stop_with_timeout(Some(STOP)).await).await;
        self.has_ended().await;
    }

    /// Returns what the server has logged.
    #[cfg(feature = "fleet")]
    pub(crate) async fn log(&self) -> String {
        let log = self.container.run("log", async |container| container.stderr_to_vec().await).await;
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Kills everything in the container at once.
    pub(crate) async fn kill(&mut self) {
        let kill = async |id: &str| docker::engine().await.kill_container(id, None::<KillContainerOptions>).await;
        self.container.run("kill", async move |container| kill(container.id()).await).await;
        self.has_ended().await;
    }

    /// On a busy machine, the engine knows of the end later. Until then, a start would do nothing.
    async fn has_ended(&self) {
        let has_ended = async |container: Arc<docker::Running>| container.is_running().await.map(|running| !running);
        eventually("the container has ended", START, async || self.container.run("end", has_ended).await).await;
    }

    /// Leaves the server so many processors.
    #[cfg(feature = "fleet")]
    pub(crate) async fn limit_processors(&mut self, processors: f64) {
        let limit = testcontainers::bollard::models::ContainerUpdateBody {
            nano_cpus: Some((processors * 1e9) as i64),
            ..Default::default()
        };
        let update = async |id: &str| docker::engine().await.update_container(id, limit).await;
        self.container.run("limit", async move |container| update(container.id()).await).await;
    }

    /// Starts the server after [`Server::stop`] or [`Server::kill`], and waits until it accepts connections.
    pub(crate) async fn start(&mut self) {
        self.container.run("start", async |container| container.start().await).await;
        self.accepting().await;
    }

    /// Freezes everything in the container. The kernel still accepts connections, and no process answers.
    pub(crate) async fn pause(&mut self) {
        // On a busy machine, the engine may give up before it has frozen every process.
        let pause = async |container: Arc<docker::Running>| {
            for _ in 1..PAUSES {
                if container.pause().await.is_ok() {
                    return Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
            container.pause().await
        };
        self.container.run("pause", pause).await;
    }

    /// Ends [`Server::pause`].
    pub(crate) async fn unpause(&mut self) {
        self.container.run("unpause", async |container| container.unpause().await).await;
    }

    /// Kills one server process by its id. The server then ends all sessions and recovers.
    pub(crate) async fn kill_backend(&mut self, pid: i32) {
        self.exec(&format!("kill -9 {pid}")).await;
    }

    /// Waits until the server accepts connections.
    pub(crate) async fn accepting(&self) {
        let config = self.config();
        let accepting = self.container.run("waiting for the server", async move |container| {
            let deadline = Instant::now() + START;
            while let Err(error) = connect(config.clone()).await {
                let running = container.is_running().await.map_err(|error| chain(&error))?;
                if !running || Instant::now() > deadline {
                    let log = container.stderr_to_vec().await.unwrap_or_default();
                    let state = if running { "still starts" } else { "has ended" };
                    return Err(format!("it {state}: {}\n{}", chain(&error), String::from_utf8_lossy(&log)));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        accepting.await;
    }

    async fn query(&self, sql: &str) -> Vec<SimpleQueryMessage> {
        let client = self.admin().await;
        let done = timeout(STATEMENT, client.simple_query(sql)).await;
        let done = done.unwrap_or_else(|_| panic!("longer than {STATEMENT:?}: {sql}"));
        done.unwrap_or_else(|error| panic!("{}: {sql}", chain(&error)))
    }
}

async fn connect(mut config: Config) -> Result<Client, tokio_postgres::Error> {
    config.connect_timeout(Duration::from_secs(2)).application_name("failfast-test-admin");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn url(addr: SocketAddr) -> String {
    format!("postgresql://{USER}:{PASSWORD}@{addr}/{DATABASE}")
}
