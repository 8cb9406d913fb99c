//! A standby of a throwaway server. It needs the PostgreSQL programs of this machine.

use super::supervisor::Supervisor;
use super::throwaway::{NotStarted, Throwaway, await_ready, programs};

/// Arguments: the folder, the port, the folder of the programs, a `|`, and the port of the primary. The end is as that of
/// a local throwaway server.
const SCRIPT: &str = r#"
folder=$1 port=$2 programs=${3%%|*} primary=${3##*|}
PGPASSWORD=$POSTGRES_PASSWORD "$programs/pg_basebackup" -h 127.0.0.1 -p "$primary" -U postgres -D data -R -c fast --no-sync && {
    "$programs/postgres" -D data -k "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200 &
    server=$!
    while read -r order; do
        "$order" || break
        echo "$order" >>done
    done
    kill -TERM $server
    kill -QUIT $server
    wait
}
rm -rf "$folder"
"#;

impl Throwaway {
    /// Starts a standby that streams from this server, and waits until it answers. `None` if this server is not a local
    /// one: then nobody admits a standby.
    pub(crate) async fn standby(&self) -> Result<Option<Throwaway>, NotStarted> {
        let (Some(_), Some(programs)) = (&self.supervisor, programs()) else { return Ok(None) };
        let password = String::from_utf8_lossy(self.config.get_password().unwrap_or_default()).into_owned();
        let thing = format!("{}|{}", programs.display(), self.config.get_ports()[0]);
        let mut supervisor = Supervisor::start(SCRIPT, &thing, &password, false)?;
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(supervisor.port()).user("postgres").password(&password).dbname("postgres");
        await_ready(&config, &mut supervisor).await?;
        Ok(Some(Throwaway { config, supervisor: Some(supervisor) }))
    }
}
