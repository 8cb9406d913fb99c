//! A PostgreSQL server for one example or benchmark, which ends with it.
//!
//! If `DATABASE_URL` is set, that server is used and none is started. Otherwise the PostgreSQL programs of this machine
//! run a fresh cluster in a temporary folder, or a container if there are none. If the server does not start, the error
//! ends with the server's own log.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, error, fmt, fs};

use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Config, NoTls};

use super::supervisor::{Supervisor, random};

/// Arguments: the folder, the port, the folder of the programs.
///
/// At the end both signals are needed. As a background job, the server ignores QUIT until it has installed its
/// handlers, but dies of TERM. After that, TERM would wait for its clients. Its children have process groups of their
/// own, so each child gets a signal.
const LOCAL: &str = r#"
start() {
    "$programs/postgres" -D data -k "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200 &
    server=$!
}
stop() { kill -INT $server && wait $server; }
children() { ps -A -o pid= -o ppid= | while read -r pid parent; do if [ "$parent" = $server ]; then echo "$pid"; fi; done; }
pause() {
    kill -STOP $server && found=$(children) && [ -n "$found" ] || return
    kill -STOP $found || true # one may have ended
}
resume() { kill -CONT $server $(children) || true; }

folder=$1 port=$2 programs=$3
echo "$POSTGRES_PASSWORD" | "$programs/initdb" -D data -U postgres -A password --pwfile=/dev/stdin -E UTF8 --locale=C -N && {
    start
    while read -r order; do
        "$order" || break
        echo "$order" >>done
    done
    resume
    kill -TERM $server
    kill -QUIT $server
    wait
}
rm -rf "$folder"
"#;

/// Arguments: the folder, whose name is also the container's; the port; the image.
const CONTAINER: &str = r#"
start() { docker start "$name"; }
stop() { docker kill --signal INT "$name" && docker wait "$name"; }
pause() { docker pause "$name"; }
resume() { docker unpause "$name"; }

name=${1##*/}
docker run -d --name "$name" -p "127.0.0.1:$2:5432" -e POSTGRES_PASSWORD "$3" \
    postgres -c fsync=off -c max_connections=200 && {
    docker logs -f "$name" &
    while read -r order; do
        "$order" || break
        echo "$order" >>done
    done
}
docker rm -f -v "$name"
wait
rm -rf "$1"
"#;

const IMAGES: [&str; 2] = ["postgres:17", "failfast-postgres:17"];
const HELP: &str = "no PostgreSQL found: set DATABASE_URL, install a PostgreSQL server, or `docker pull postgres:17`";
const DOCKER_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A server that ends when this value is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Throwaway {
    pub(super) config: Config,
    pub(super) supervisor: Option<Supervisor>,
}

impl Throwaway {
    /// Starts a server and waits until it answers: about two seconds where PostgreSQL is installed.
    pub(crate) async fn start() -> Result<Throwaway, NotStarted> {
        if let Ok(url) = env::var("DATABASE_URL") {
            let config = url.parse().map_err(|error| not_reached(&error))?;
            return reached(config).await;
        }
        let password = random()?;
        let mut supervisor = if let Some(programs) = programs() {
            Supervisor::start(LOCAL, &programs.to_string_lossy(), &password, false)?
        } else if let Some(image) = image().await {
            Supervisor::start(CONTAINER, &image, &password, true)?
        } else {
            return Err(NotStarted(HELP.into()));
        };
        let mut config = Config::new();
        config.host("127.0.0.1").port(supervisor.port()).user("postgres").password(&password).dbname("postgres");
        await_ready(&config, &mut supervisor).await?;
        Ok(Throwaway { config, supervisor: Some(supervisor) })
    }

    /// The connection settings: as superuser on 127.0.0.1, or those of `DATABASE_URL`.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }
}

/// Why there is no server, or why an order failed. `main` prints errors with `Debug`, so `Debug` is as readable as
/// `Display`.
pub(crate) struct NotStarted(pub(super) String);

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for NotStarted {}

impl From<std::io::Error> for NotStarted {
    fn from(error: std::io::Error) -> Self {
        NotStarted(format!("cannot start PostgreSQL: {error}"))
    }
}

/// The server of `DATABASE_URL`, if it answers.
async fn reached(config: Config) -> Result<Throwaway, NotStarted> {
    match timeout(START_TIMEOUT, config.connect(NoTls)).await {
        Ok(Ok(_)) => Ok(Throwaway { config, supervisor: None }),
        Ok(Err(error)) => Err(not_reached(&error)),
        Err(_) => Err(NotStarted(format!("DATABASE_URL: no answer within {START_TIMEOUT:?}"))),
    }
}

/// The driver names the cause only as the source of its error.
fn not_reached(error: &tokio_postgres::Error) -> NotStarted {
    let cause = error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    NotStarted(format!("DATABASE_URL: {error}{cause}"))
}

pub(super) async fn await_ready(config: &Config, supervisor: &mut Supervisor) -> Result<(), NotStarted> {
    let connected = timeout(START_TIMEOUT, async {
        while !supervisor.has_ended()? {
            if config.connect(NoTls).await.is_ok() {
                return Ok(true);
            }
            sleep(RETRY_AFTER).await;
        }
        Ok::<_, NotStarted>(false)
    });
    if let Ok(result) = connected.await {
        if result? {
            return Ok(());
        }
    }
    Err(NotStarted(format!("PostgreSQL does not start; its log ends:\n{}", supervisor.log_tail()?)))
}

/// The folder of `initdb` and `postgres`: from PATH, otherwise the newest of Debian's.
pub(super) fn programs() -> Option<PathBuf> {
    let has_both = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter_map(|folder| real_folder(&folder.join("initdb"))).find(has_both);
    on_path.or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|version| version.path());
        let folders = versions.map(|version| version.join("bin")).filter(has_both);
        folders.max_by_key(|folder| folder.parent()?.file_name()?.to_str()?.parse::<u32>().ok())
    })
}

/// Follows links to the programs' folder, from which the server finds its libraries.
fn real_folder(program: &Path) -> Option<PathBuf> {
    Some(program.canonicalize().ok()?.parent()?.to_path_buf())
}

/// The chosen image, which docker may have to pull; otherwise the first one that is present.
async fn image() -> Option<String> {
    if let Ok(asked) = env::var("FAILFAST_TEST_IMAGE") {
        return Some(asked);
    }
    for image in IMAGES {
        let mut inspect = Command::new("docker");
        inspect.args(["image", "inspect", image]).kill_on_drop(true);
        if let Ok(Ok(output)) = timeout(DOCKER_TIMEOUT, inspect.output()).await {
            if output.status.success() {
                return Some(image.into());
            }
        }
    }
    None
}
