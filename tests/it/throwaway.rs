//! The server of the examples and benchmarks. It answers, and nothing remains of it afterwards.

use std::error::Error;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

#[path = "../../examples/support/mod.rs"]
mod support;

pub(crate) use support::Throwaway;

const LIMIT: Duration = Duration::from_secs(30);
/// Longer than a query takes.
const A_MOMENT: Duration = Duration::from_millis(200);
const OWNER: &str = "FAILFAST_THROWAWAY_OWNER";

#[tokio::test]
async fn the_server_answers_until_it_is_dropped() -> Result<(), Box<dyn Error>> {
    let server = Throwaway::start().await?;
    let (port, folder) = whereabouts(&server).await?;
    drop(server);
    if std::env::var_os("DATABASE_URL").is_none() {
        assert!(is_gone(port, &folder), "{} on port {port}", folder.display());
    }
    Ok(())
}

/// Runs itself again as the owner of a server, and kills that process before it can clean up.
#[tokio::test]
async fn the_server_ends_with_its_owner() -> Result<(), Box<dyn Error>> {
    if std::env::var_os(OWNER).is_some() {
        let server = Throwaway::start().await?;
        let (port, folder) = whereabouts(&server).await?;
        eprintln!("server {port} {}", folder.display());
        sleep(LIMIT).await;
        return Ok(());
    }
    let mut owner = Command::new(std::env::current_exe()?);
    owner.args(["--exact", "throwaway::the_server_ends_with_its_owner", "--nocapture"]);
    owner.env(OWNER, "").env_remove("DATABASE_URL").stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut owner = owner.spawn()?;
    let mut lines = BufReader::new(owner.stderr.take().ok_or("no pipe")?).lines();
    let line = timeout(LIMIT, lines.next_line()).await??.ok_or("the owner said nothing")?;
    let (port, folder) = line.strip_prefix("server ").and_then(|rest| rest.split_once(' ')).ok_or(line.clone())?;
    owner.kill().await?;

    let (port, folder) = (port.parse()?, PathBuf::from(folder));
    let gone = timeout(LIMIT, async {
        while !is_gone(port, &folder) {
            sleep(Duration::from_millis(10)).await;
        }
    });
    Ok(gone.await?)
}

#[tokio::test]
async fn the_server_can_be_paused_stopped_and_started_again() -> Result<(), Box<dyn Error>> {
    let mut server = Throwaway::start().await?;
    if !server.is_ours() {
        return Ok(());
    }
    let (client, connection) = server.config().connect(NoTls).await?;
    tokio::spawn(connection);

    server.pause().await?;
    let query = client.simple_query("SELECT 1");
    tokio::pin!(query);
    assert!(timeout(A_MOMENT, &mut query).await.is_err(), "a paused server answered");
    server.resume().await?;
    timeout(LIMIT, query).await??;

    server.stop().await?;
    assert!(server.config().connect(NoTls).await.is_err(), "a stopped server answered");
    server.start_again().await?;
    assert!(server.config().connect(NoTls).await.is_ok(), "the restarted server does not answer");
    assert!(client.is_closed(), "a session survived the restart");
    Ok(())
}

async fn whereabouts(server: &Throwaway) -> Result<(u16, PathBuf), Box<dyn Error>> {
    let (client, connection) = server.config().connect(NoTls).await?;
    tokio::spawn(connection);
    let row = timeout(LIMIT, client.query_one("SHOW data_directory", &[])).await??;
    let port = *server.config().get_ports().first().ok_or("no port")?;
    Ok((port, PathBuf::from(row.get::<_, &str>(0))))
}

fn is_gone(port: u16, folder: &Path) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() && !folder.exists()
}
