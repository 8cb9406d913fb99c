//! A process of its own with one pool: this test program, started again. It takes orders from its input, one a line,
//! and answers `report` with one line.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use failfast::{FleetConfig, Pool, Shedding};

use crate::support::apart::Apart;

/// How many seconds one call holds a connection, if nothing else was asked for.
const CALL: &str = "0.02";

/// How the connections of a worker are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fleet,
    /// This pool, with a fixed size.
    Fixed(usize),
    /// Bare deadpool, with a fixed size.
    Deadpool(usize),
}

impl Kind {
    fn text(self) -> String {
        match self {
            Self::Fleet => "fleet 0".to_owned(),
            Self::Fixed(size) => format!("fixed {size}"),
            Self::Deadpool(size) => format!("deadpool {size}"),
        }
    }
}

/// What a worker has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// The connections that the pool may use.
    pub(crate) granted: usize,
    pub(crate) members: usize,
    /// The slowest call since the last report, in milliseconds.
    pub(crate) slowest: u64,
    /// What all members divide, as this one sees it. 0 if it has not read it.
    pub(crate) capacity: usize,
}

/// A running process. Dropping it kills it.
pub(crate) struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The arguments with which this test program is a worker.
const ARGUMENTS: [&str; 4] = ["fleet::worker::a_process_of_its_own", "--exact", "--ignored", "--nocapture"];

impl Worker {
    pub(crate) fn start(url: &str, kind: Kind) -> Self {
        Self::start_with_calls(url, kind, CALL)
    }

    /// [`start`](Self::start) with calls that take so many seconds.
    pub(crate) fn start_with_calls(url: &str, kind: Kind, seconds: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(ARGUMENTS).env("FAILFAST_FLEET_URL", url).env("FAILFAST_FLEET_KIND", kind.text());
        command.env("FAILFAST_FLEET_CALL", seconds);
        Self::run(command)
    }

    /// A member whose network can be cut. The URL has the server's address for containers.
    pub(super) async fn start_apart(url: &str) -> (Self, Apart) {
        let program = env::current_exe().unwrap();
        let environment = [("FAILFAST_FLEET_URL", url), ("FAILFAST_FLEET_KIND", &Kind::Fleet.text())];
        let (command, apart) = Apart::command(&program, &ARGUMENTS, &environment).await;
        (Self::run(command), apart)
    }

    fn run(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// So many callers run calls, one after the other.
    pub(crate) fn load(&mut self, callers: usize) {
        self.order(&format!("load {callers}"));
    }

    /// Waits until the first call has been answered.
    pub(crate) fn is_up(&mut self) {
        self.order("up");
        self.answer("up");
    }

    pub(crate) fn report(&mut self) -> Report {
        self.order("report");
        let line = self.answer("report");
        let mut numbers = line.split(' ').skip(1).map(|number| number.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        let (ok, failed, granted, members, slowest, capacity) = (next(), next(), next(), next(), next(), next());
        let (granted, members, capacity) = (granted as usize, members as usize, capacity as usize);
        Report { ok, failed, granted, members, slowest, capacity }
    }

    /// Stops the process, as a debugger does. It must not be given an order before [`thaw`](Self::thaw).
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// The load ends, the pool is drained, and the process ends. Returns its last report.
    pub(crate) fn drain(mut self) -> Report {
        self.load(0);
        let report = self.report();
        self.order("drain");
        self.child.wait().unwrap();
        report
    }

    /// As `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn answer(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the process has ended");
            // The test harness writes its own line first, without an end.
            if let Some(at) = line.find(&format!("{word} ")) {
                return line[at..].trim_end().to_owned();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Subject {
    Failfast(Pool),
    Deadpool(deadpool_postgres::Pool),
}

impl Subject {
    fn of(url: &str, kind: &str) -> Self {
        let (kind, size) = kind.split_once(' ').unwrap();
        let (config, size): (failfast::Config, usize) = (url.parse().unwrap(), size.parse().unwrap());
        let seconds = Duration::from_secs;
        let pool = |config| {
            let builder = Pool::builder(config).acquire_timeout(seconds(5)).query_timeout(seconds(5));
            builder.shedding(Shedding::QueueOnly)
        };
        match kind {
            "fleet" => Self::Failfast(pool(config).max_size(40).fleet(FleetConfig::new("shop")).build().unwrap()),
            "fixed" => Self::Failfast(pool(config).max_size(size).build().unwrap()),
            _ => {
                let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
                let builder = deadpool_postgres::Pool::builder(manager).max_size(size);
                let builder = builder.runtime(deadpool_postgres::Runtime::Tokio1);
                Self::Deadpool(builder.wait_timeout(Some(seconds(5))).create_timeout(Some(seconds(5))).build().unwrap())
            }
        }
    }

    async fn call(&self, sql: &str) -> bool {
        match self {
            Self::Failfast(pool) => pool.execute(sql, &[]).await.is_ok(),
            Self::Deadpool(pool) => match pool.get().await {
                Ok(client) => client.execute(sql, &[]).await.is_ok(),
                Err(_) => false,
            },
        }
    }

    /// Granted connections, members, and the capacity.
    fn sizes(&self) -> (usize, usize, usize) {
        match self {
            Self::Failfast(pool) => {
                let status = pool.status();
                let fleet = status.fleet.as_ref();
                let (members, capacity) = fleet.map_or((0, None), |fleet| (fleet.members, fleet.capacity));
                (status.max_size, members, capacity.unwrap_or_default())
            }
            Self::Deadpool(pool) => (pool.status().max_size, 0, 0),
        }
    }
}

#[derive(Default)]
struct Work {
    sql: String,
    callers: AtomicUsize,
    ok: AtomicU64,
    failed: AtomicU64,
    slowest: AtomicU64,
}

/// One of at most 64 callers.
async fn caller(subject: Arc<Subject>, work: Arc<Work>, number: usize) {
    loop {
        if number >= work.callers.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let begun = Instant::now();
        let count = if subject.call(&work.sql).await { &work.ok } else { &work.failed };
        count.fetch_add(1, Relaxed);
        work.slowest.fetch_max(begun.elapsed().as_millis() as u64, Relaxed);
        if begun.elapsed() < Duration::from_millis(10) {
            tokio::time::sleep(Duration::from_millis(10)).await; // a failed call must not be repeated in a hot loop
        }
    }
}

#[test]
#[ignore = "other tests start it"]
fn a_process_of_its_own() {
    let (Ok(url), Ok(kind)) = (env::var("FAILFAST_FLEET_URL"), env::var("FAILFAST_FLEET_KIND")) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _guard = runtime.enter();
    let seconds = env::var("FAILFAST_FLEET_CALL").unwrap_or_else(|_| CALL.to_owned());
    let work = Work { sql: format!("SELECT pg_sleep({seconds})"), ..Work::default() };
    let (subject, work) = (Arc::new(Subject::of(&url, &kind)), Arc::new(work));
    for number in 0..64 {
        runtime.spawn(caller(Arc::clone(&subject), Arc::clone(&work), number));
    }
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("load", callers)) => work.callers.store(callers.parse().unwrap(), Relaxed),
            _ if line == "up" => {
                while !runtime.block_on(subject.call(&work.sql)) {}
                println!("up ");
            }
            _ if line == "report" => {
                let (granted, members, capacity) = subject.sizes();
                let (ok, failed) = (work.ok.load(Relaxed), work.failed.load(Relaxed));
                let slowest = work.slowest.swap(0, Relaxed);
                println!("report {ok} {failed} {granted} {members} {slowest} {capacity}");
            }
            _ => {
                if let Subject::Failfast(pool) = &*subject {
                    runtime.block_on(pool.drain(Duration::from_secs(5)));
                }
                std::process::exit(0);
            }
        }
    }
}
