//! The process of the service, and requests to it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::pool::LONG;
use crate::support::{eventually, free_port};

#[derive(Debug, Clone)]
pub(super) struct Service(SocketAddr);

/// The process. Dropping it kills it.
pub(super) struct Process(Child);

/// An answer to a request. The status is 0 if there was none.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: BTreeMap<String, String>,
    pub(super) body: String,
    pub(super) took: Duration,
    /// Whether the service had accepted the connection.
    pub(super) has_begun: bool,
}

impl Answer {
    /// Returns a header. `name` is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Service {
    pub(super) async fn start(database: &str) -> (Self, Process) {
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let mut command = Command::new(env!("CARGO_BIN_EXE_example-axum"));
        command.env("DATABASE_URL", database).env("LISTEN", address.to_string());
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let process = Process(command.spawn().unwrap());
        eventually("the service listens", LONG, async || TcpStream::connect(address).await.is_ok()).await;
        (Self(address), process)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0
    }

    pub(super) async fn ask(&self, method: &str, path: &str) -> Answer {
        ask(self.0, method, path).await
    }
}

/// Makes one request on a connection of its own.
pub(super) async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let asked = Instant::now();
    let Ok(stream) = TcpStream::connect(address).await else { return Answer::default() };
    let text = exchange(stream, method, path).await.unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.unwrap_or(0),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
        took: asked.elapsed(),
        has_begun: true,
    }
}

async fn exchange(mut stream: TcpStream, method: &str, path: &str) -> io::Result<String> {
    // HTTP 1.0 sends the body in one piece and ends it with the connection.
    let head = format!("{method} {path} HTTP/1.0\r\nHost: here\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

impl Process {
    /// Stops the process as a scheduler does. The future resolves to whether the process succeeded, and to its output.
    pub(super) fn stop(self) -> impl Future<Output = (bool, String)> {
        let pid = self.0.id().expect("the process runs").to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.unwrap().success());
        async {
            let output =
                tokio::time::timeout(LONG, self.0.wait_with_output()).await.expect("the process did not end").unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}
