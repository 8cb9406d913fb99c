//! A shell that runs a server for this process, and cleans up however this process ends.
//!
//! The shell reads orders from a pipe whose other end only this process holds. When this process returns, panics, or
//! dies of Ctrl-C or `kill -9`, the kernel closes that end. Then `read` fails in the shell, and the rest of its script
//! cleans up. The shell has a process group of its own, so Ctrl-C in a terminal does not reach it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use tokio::net::TcpSocket;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LOG_TAIL: usize = 12;

/// The shell, its folder and its port. Dropping it waits until the script has ended.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shell: Child,
    folder: PathBuf,
    log: File,
    port: u16,
    orders: usize,
    _reserved: Option<TcpSocket>,
}

impl Supervisor {
    /// Runs `script` with the arguments folder (private, and the current one), port, `thing`; and `POSTGRES_PASSWORD`.
    /// The script must remove the folder. The server refuses to run as root: `as_root` says whether the script may.
    pub(crate) fn start(script: &str, thing: &str, password: &str, as_root: bool) -> io::Result<Supervisor> {
        let folder = env::temp_dir().join(format!("failfast-{}", random()?));
        DirBuilder::new().mode(0o700).create(&folder)?;
        Supervisor::start_in(folder.clone(), script, thing, password, as_root).map_err(|e| {
            let _ = fs::remove_dir_all(&folder);
            io::Error::new(e.kind(), format!("{}: {e}", folder.display()))
        })
    }

    fn start_in(folder: PathBuf, script: &str, thing: &str, password: &str, as_root: bool) -> io::Result<Supervisor> {
        let (port, reserved) = reserve_port()?;
        let log = folder.join("log");
        let output = OpenOptions::new().create(true).append(true).open(&log)?;

        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&folder).arg(port.to_string()).arg(thing);
        command.env("POSTGRES_PASSWORD", password).current_dir(&folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        if !as_root && fs::metadata(&folder)?.uid() == 0 {
            let (user, group) = unprivileged()?;
            chown(&folder, Some(user), Some(group))?;
            command.uid(user).gid(group);
        }
        let log = File::open(log)?;
        Ok(Supervisor { shell: command.spawn()?, folder, log, port, orders: 0, _reserved: reserved })
    }

    /// The port on 127.0.0.1 that the script was given.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The script's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Orders the script to run one of its functions. It carries out orders in sequence.
    pub(crate) fn order(&mut self, function: &str) -> io::Result<()> {
        let mut pipe = self.shell.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        self.orders += 1;
        writeln!(pipe, "{function}")
    }

    /// Whether the script has carried out all orders. It writes each of them to the file `done`.
    pub(crate) fn is_obeyed(&self) -> bool {
        let done = fs::read_to_string(self.folder.join("done")).unwrap_or_default();
        done.lines().count() >= self.orders
    }

    /// Whether the script has ended by itself, because it could not start the server.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.shell.try_wait()?.is_some())
    }

    /// The last lines of output of the script and of the processes that it started.
    pub(crate) fn log_tail(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.log.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let end = Instant::now() + STOP_TIMEOUT;
        while matches!(self.shell.try_wait(), Ok(None)) {
            if Instant::now() > end {
                eprintln!("still cleaning up {}", self.folder.display());
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // The script has removed the folder, unless only this process may remove it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// 128 bits in hexadecimal, from the system's random numbers.
pub(crate) fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// A free port. On Linux, a bound socket that does not listen reserves it. Only a server that also sets SO_REUSEADDR
/// can use it, as PostgreSQL and docker do. Elsewhere such a socket would keep the server away, too.
fn reserve_port() -> io::Result<(u16, Option<TcpSocket>)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((port, cfg!(target_os = "linux").then_some(socket)))
}

/// The user and group that replace root.
fn unprivileged() -> io::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).ok_or_else(|| io::Error::other("root needs a user postgres or nobody"))
}
