//! A service of several processes behind a load balancer, each with a pool of its own: this program, started again.
//!
//! A process reads a line for each caller, and writes a line for each answer. Its input ends when it is to end.

use std::collections::HashMap;
use std::env;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin, stdout};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::{Answer, Peer, Pool, failfast};
use crate::callers::Caller;
use crate::terms::{AFTERMATH, DEADLINE, Result};
use crate::work::Work;

/// The first argument of a process.
pub(crate) const ARGUMENT: &str = "process";
/// The connection string, which has a password, and the pool.
const URL: &str = "FAILFAST_LAB_URL";
const PEER: &str = "FAILFAST_LAB_PEER";

/// How many processes the service usually has.
const PROCESSES: usize = 4;
/// The connections that the service may have. Its role is limited to them.
pub(crate) const LIMIT: usize = 24;
/// How many connections each process may have with failfast, which shares them, and with a PgBouncer in front.
const SHARED: usize = 20;
/// How long a process may take to start.
const START: Duration = Duration::from_secs(10);

/// How many connections the pool of one process may have. With the defaults, they are divided by the usual number of
/// processes; a careful user divides by those of a deploy.
pub(super) fn size(peer: Peer) -> usize {
    match peer {
        Peer::Failfast | Peer::Pgbouncer => SHARED,
        _ if peer.is_tuned() => LIMIT / (2 * PROCESSES),
        _ => LIMIT / PROCESSES,
    }
}

/// The running processes, which are asked in turn.
pub(super) struct Processes {
    peer: Peer,
    url: String,
    running: Mutex<Vec<Arc<Process>>>,
    asked: AtomicU64,
}

impl Processes {
    pub(super) async fn start(peer: Peer, config: &Config) -> Result<Self> {
        let service = Self { peer, url: url(config)?, running: Mutex::default(), asked: AtomicU64::new(0) };
        for _ in 0..PROCESSES {
            service.add().await?;
        }
        Ok(service)
    }

    async fn add(&self) -> Result<()> {
        let process = Process::start(self.peer, &self.url).await?;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(process));
        Ok(())
    }

    /// Takes the oldest process out of the load balancer. It ends when its last caller has an answer.
    fn remove(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(0);
    }
}

impl Pool for Processes {
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer> {
        async move {
            let number = self.asked.fetch_add(1, Relaxed);
            let process = {
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(&running[number as usize % running.len()])
            };
            process.ask(number, caller).await
        }
        .boxed()
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    /// First all new processes start, one after the other. Then the old ones end in the same way.
    fn deploy(&self, within: Duration) -> BoxFuture<'_, Result<()>> {
        async move {
            let pause = within / (2 * PROCESSES) as u32;
            for _ in 0..PROCESSES {
                self.add().await?;
                sleep(pause).await;
            }
            for _ in 0..PROCESSES {
                self.remove();
                sleep(pause).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.running.lock().unwrap_or_else(PoisonError::into_inner).clear() }.boxed()
    }
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// One process. Dropping it ends its input.
struct Process {
    lines: mpsc::UnboundedSender<String>,
    waiting: Waiting,
}

impl Process {
    async fn start(peer: Peer, url: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(ARGUMENT).env(URL, url).env(PEER, peer.name());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut first = String::new();
        timeout(START, output.read_line(&mut first)).await??;
        if first != "ready\n" {
            return Err(format!("a process of {peer} did not start: {first:?}").into());
        }
        let (lines, mut to_write) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let Some(line) = to_write.recv().await {
                if input.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let waiting = Waiting::default();
        tokio::spawn(hear(child, output, Arc::clone(&waiting)));
        Ok(Self { lines, waiting })
    }

    async fn ask(&self, number: u64, caller: &Caller) -> Answer {
        let Work::Query(hold) = caller.work else { return Answer::Failed };
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        let line = format!("{number} {} {}\n", hold.as_millis(), caller.deadline.as_millis());
        if self.lines.send(line).is_err() {
            return Answer::Failed;
        }
        answered.await.unwrap_or(Answer::Failed)
    }
}

/// Gives each answer to its caller, until the process ends. Then the others get none.
async fn hear(mut child: Child, output: BufReader<ChildStdout>, waiting: Waiting) {
    let mut lines = output.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some((number, answer)) = line.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        let caller = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(caller) = caller {
            let _ = caller.send(read(answer));
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let _ = child.wait().await;
}

const NAMES: [(Answer, &str); 4] = [
    (Answer::Served, "served"),
    (Answer::RefusedAtEntry, "refused-at-entry"),
    (Answer::Refused, "refused"),
    (Answer::Failed, "failed"),
];

fn read(text: &str) -> Answer {
    NAMES.iter().find(|(_, name)| *name == text).map_or(Answer::Failed, |(answer, _)| *answer)
}

fn write(answer: Answer) -> &'static str {
    NAMES.iter().find(|(named, _)| *named == answer).map_or("failed", |(_, name)| name)
}

/// What a process does: it answers callers until its input ends and all of them have an answer.
pub(crate) async fn run() -> Result<()> {
    let config: Config = env::var(URL)?.parse()?;
    let name = env::var(PEER)?;
    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name).ok_or("an unknown pool")?;
    let pool: Arc<dyn Pool> = match peer {
        Peer::Failfast => Arc::new(failfast::Failfast::in_fleet(&config, size(peer))?),
        _ => peer.create(size(peer), &config, DEADLINE, false).await?,
    };
    let (lines, mut to_write) = mpsc::unbounded_channel::<String>();
    lines.send("ready\n".to_owned())?;
    let writing = tokio::spawn(async move {
        let mut out = stdout();
        while let Some(line) = to_write.recv().await {
            out.write_all(line.as_bytes()).await?;
            out.flush().await?;
        }
        std::io::Result::Ok(())
    });
    let mut asked = BufReader::new(stdin()).lines();
    let mut callers = JoinSet::new();
    while let Some(line) = asked.next_line().await? {
        let (pool, lines) = (Arc::clone(&pool), lines.clone());
        callers.spawn(async move {
            let Some((number, caller)) = caller(&line) else { return };
            let answer = pool.ask(&caller).await;
            let _ = lines.send(format!("{number} {}\n", write(answer)));
        });
        while callers.try_join_next().is_some() {}
    }
    let _ = timeout(DEADLINE + AFTERMATH, async { while callers.join_next().await.is_some() {} }).await;
    pool.close().await;
    drop((callers, lines));
    writing.await??;
    Ok(())
}

fn caller(line: &str) -> Option<(u64, Caller)> {
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let [number, hold, deadline] = numbers[..] else { return None };
    let ms = Duration::from_millis;
    Some((number, Caller { due: Duration::ZERO, work: Work::Query(ms(hold)), deadline: ms(deadline) }))
}

/// As a connection string, for another process.
fn url(config: &Config) -> Result<String> {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => folder.to_string_lossy().into_owned(),
        None => return Err("the server's host is unknown".into()),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let mut text = format!("host={} port={port}", quoted(&host));
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    let named = [("user", config.get_user()), ("dbname", config.get_dbname()), ("password", password.as_deref())];
    for (name, value) in named {
        if let Some(value) = value {
            text += &format!(" {name}={}", quoted(value));
        }
    }
    Ok(text)
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_are_written() {
        for (answer, _) in NAMES {
            assert_eq!(read(write(answer)), answer);
        }
        assert_eq!(read("nonsense"), Answer::Failed);
    }

    #[test]
    fn callers_are_read_as_they_are_written() {
        let (number, caller) = caller("7 40 500").unwrap();
        assert_eq!((number, caller.work, caller.deadline), (7, Work::Query(Duration::from_millis(40)), DEADLINE));
        assert!(super::caller("7 40").is_none() && super::caller("7 x 500").is_none());
    }

    #[test]
    fn a_connection_string_has_what_a_process_needs() {
        let mut config = Config::new();
        config.host("127.0.0.1").port(5433).user("o'neil").password("a\\b' c").dbname("lab");
        let again: Config = url(&config).unwrap().parse().unwrap();
        assert_eq!(again.get_user(), config.get_user());
        assert_eq!(again.get_password(), config.get_password());
        assert_eq!((again.get_dbname(), again.get_ports()), (Some("lab"), &[5433_u16][..]));
    }

    #[test]
    fn the_usual_processes_fit_and_a_careful_user_thinks_of_deploys() {
        assert!(PROCESSES * size(Peer::Deadpool) <= LIMIT && 2 * PROCESSES * size(Peer::Deadpool) > LIMIT);
        assert!(2 * PROCESSES * size(Peer::DeadpoolTuned) <= LIMIT);
    }
}
