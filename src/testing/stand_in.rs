//! A stand-in for a server: it begins and ends sessions and transactions, and refuses every other statement.
//!
//! It runs on threads of its own, because the runtime of a test ends with the test. Each connection has one. The first
//! pool begins the stand-in, and it stays until the end of the process.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;

use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

use crate::builder::PoolBuilder;
#[cfg(feature = "cluster")]
use crate::cluster::ClusterBuilder;
use crate::policy::{IN_FAILED_TRANSACTION, NOT_SUPPORTED};
use crate::pool::Pool;
use crate::pretend::ServerError;

/// The longest message that the stand-in reads, in bytes.
const LONGEST: usize = 16 << 20;
/// The code of a request for TLS, in place of the protocol's version.
const TLS: u32 = 80_877_103;
/// The code of a cancel.
const CANCEL: u32 = 80_877_102;

static PORT: LazyLock<io::Result<u16>> = LazyLock::new(|| {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::Builder::new().name("failfast-stand-in".to_owned()).spawn(move || listen(&listener))?;
    Ok(port)
});

/// Begins a pool without a server, for tests of what a service does when calls fail.
///
/// Connections and transactions begin and end as with a server. So the closures of
/// [`transaction`](Pool::transaction) and [`run`](Pool::run) run. Every statement fails: with the outcome that a test
/// [pretends](Pool::pretend), otherwise with an error that says that there is no server (SQLSTATE 0A000).
///
/// # Panics
///
/// If this machine has no free port on 127.0.0.1, or no thread can be started.
pub fn without_server() -> PoolBuilder {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port()).user("nobody").dbname("none");
    Pool::builder(config).name("without-server")
}

/// Begins a cluster of a primary and a replica without servers, for tests of what a service does when calls fail. As
/// [`without_server`]: every statement fails, with the outcome that a test [pretends](crate::Cluster::pretend) or with
/// SQLSTATE 0A000.
///
/// # Panics
///
/// As [`without_server`].
#[cfg(feature = "cluster")]
pub fn cluster_without_servers() -> ClusterBuilder {
    let address = Ipv4Addr::LOCALHOST.into();
    let mut config = Config::new();
    config.host("primary").hostaddr(address).host("replica").hostaddr(address).port(port());
    ClusterBuilder::without_servers(config.user("nobody").dbname("none").clone())
        .pool(|pool| pool.name("without-servers"))
}

/// The port of the stand-in.
fn port() -> u16 {
    *PORT.as_ref().unwrap_or_else(|error| panic!("cannot begin the stand-in for a server: {error}"))
}

fn listen(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // A connection that gets no thread is closed.
        let _ = thread::Builder::new().name("failfast-stand-in".to_owned()).spawn(move || serve(&stream));
    }
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session { from: BufReader::new(stream), to: BufWriter::new(stream), status: b'I' };
    if session.start()? { session.run() } else { Ok(()) }
}

struct Session<'a> {
    from: BufReader<&'a TcpStream>,
    to: BufWriter<&'a TcpStream>,
    /// The status of the transaction, as in ReadyForQuery: idle (I), open (T) or failed (E).
    status: u8,
}

impl Session<'_> {
    /// Begins the session. Returns whether there is one.
    fn start(&mut self) -> io::Result<bool> {
        loop {
            let request = self.body()?;
            match request.first_chunk().map(|code| u32::from_be_bytes(*code)) {
                Some(TLS) => self.to.write_all(b"N")?,
                Some(CANCEL) | None => return Ok(false),
                Some(_) => break,
            }
            self.to.flush()?;
        }
        self.send(b'R', &[0; 4])?;
        for (name, value) in [("server_version", "17.0"), ("client_encoding", "UTF8"), ("TimeZone", "UTC")] {
            self.send(b'S', format!("{name}\0{value}\0").as_bytes())?;
        }
        self.send(b'K', &[0, 0, 0, 1, 0, 0, 0, 0])?;
        self.ready()?;
        Ok(true)
    }

    fn run(&mut self) -> io::Result<()> {
        // After an error, a server skips what comes before the next Sync. After an empty statement, it does not.
        let (mut is_skipping, mut is_empty) = (false, false);
        loop {
            let mut kind = [0];
            self.from.read_exact(&mut kind)?;
            let body = self.body()?;
            match kind[0] {
                b'X' => return Ok(()),
                b'Q' => {
                    let text = String::from_utf8_lossy(&body);
                    self.simple(text.trim_end_matches('\0'))?;
                    self.ready()?;
                }
                b'S' => {
                    (is_skipping, is_empty) = (false, false);
                    self.ready()?;
                }
                _ if is_skipping => {}
                b'C' => self.send(b'3', &[])?,
                b'H' => self.to.flush()?,
                // The name of the statement, its text, and no types of parameters.
                b'P' if body.ends_with(&[0, 0, 0, 0]) => {
                    is_empty = true;
                    self.send(b'1', &[])?;
                }
                b'B' if is_empty => self.send(b'2', &[])?,
                b'D' if is_empty => self.send(b'n', &[])?,
                b'E' if is_empty => self.send(b'I', &[])?,
                _ => {
                    is_skipping = true;
                    self.refuse()?;
                }
            }
        }
    }

    /// Runs the statements of a simple query.
    fn simple(&mut self, text: &str) -> io::Result<()> {
        let mut statements = text.split(';').map(str::trim).filter(|statement| !statement.is_empty()).peekable();
        if statements.peek().is_none() {
            return self.send(b'I', &[]);
        }
        for statement in statements {
            let Some((tag, status)) = self.transaction_command(statement) else { return self.refuse() };
            self.status = status;
            self.send(b'C', format!("{tag}\0").as_bytes())?;
        }
        Ok(())
    }

    /// Returns the command tag, and the status of the transaction afterwards. `None` for every other statement.
    fn transaction_command(&self, statement: &str) -> Option<(&'static str, u8)> {
        let mut words = statement.split_whitespace();
        let (first, second) = (words.next()?.to_uppercase(), words.next().map(str::to_uppercase));
        match (&*first, second.as_deref(), self.status) {
            ("BEGIN", _, b'I') => Some(("BEGIN", b'T')),
            ("COMMIT", _, b'E') | ("ROLLBACK", None, _) => Some(("ROLLBACK", b'I')),
            ("COMMIT", _, _) => Some(("COMMIT", b'I')),
            ("ROLLBACK", Some("TO"), b'T' | b'E') => Some(("ROLLBACK", b'T')),
            ("SAVEPOINT", _, b'T') => Some(("SAVEPOINT", b'T')),
            ("RELEASE", _, b'T') => Some(("RELEASE", b'T')),
            _ => None,
        }
    }

    fn refuse(&mut self) -> io::Result<()> {
        let (state, message) = if self.status == b'E' {
            (IN_FAILED_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block")
        } else {
            (NOT_SUPPORTED, "this pool has no server: pretend an outcome for this statement")
        };
        if self.status == b'T' {
            self.status = b'E';
        }
        let error = ServerError::new(SqlState::from_code(state)).message(message);
        self.to.write_all(&error.to_message())
    }

    fn ready(&mut self) -> io::Result<()> {
        self.send(b'Z', &[self.status])?;
        self.to.flush()
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        self.to.write_all(&[kind])?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(body)
    }

    /// Reads the length of a message and what follows.
    fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..=LONGEST).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length - 4];
        self.from.read_exact(&mut body)?;
        Ok(body)
    }
}
