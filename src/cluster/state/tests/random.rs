//! Random histories of three servers behind three names, compared with the truth: commits, replays, crashes, restarts
//! further back, promotions, answers that arrive late, names that lead elsewhere. No read that a replica may serve
//! misses what its bound says.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const SERVERS: usize = 3;
const SYSTEM: u64 = 7;
/// Where the log begins.
const FIRST: u64 = 0x300_0000;

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The primary commits a transaction of this many bytes.
    Commit(u64),
    /// The scout of a host asks. The answer shows what is so this many milliseconds later. A replica may show the
    /// timeline that it showed before.
    Ask {
        host: usize,
        millis: u64,
        is_timeline_late: bool,
    },
    /// The answer arrives.
    Hear(usize),
    /// The answer is late, and the scout gives up.
    Miss(usize),
    /// Every replica replays everything, and every host is asked and answers.
    Round,
    /// A replica replays so many bytes.
    Replay {
        server: usize,
        bytes: u64,
    },
    Kill(usize),
    /// A server that was killed starts. A replica goes on from an earlier place. A primary has lost the end of its log,
    /// of which no replica has anything.
    Start {
        server: usize,
        bytes: u64,
    },
    /// A session of a replica crashes. The server ends all sessions and goes on from an earlier place, in the process
    /// of before.
    Recover {
        server: usize,
        bytes: u64,
    },
    /// The primary is killed, and this replica takes its place, with so many bytes more than it has replayed.
    Promote {
        server: usize,
        bytes: u64,
    },
    /// A server becomes a replica with a copy that lacks so many bytes.
    Rebuild {
        server: usize,
        bytes: u64,
    },
    /// New connections to a host lead to these servers in turn.
    Lead {
        host: usize,
        servers: Vec<usize>,
    },
    /// A read gets a connection of this host, or a new one.
    Read {
        host: usize,
        connection: usize,
        asks: Asks,
    },
}

/// What a read asks for. Times are in milliseconds before the read.
#[derive(Debug, Clone)]
enum Asks {
    Within(u64),
    Since(u64),
    /// The position of one of the commits, also of those that were lost.
    After(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let server = || 0..SERVERS;
    let asks = prop_oneof![
        (500_u64..6_000).prop_map(Asks::Within),
        (0_u64..6_000).prop_map(Asks::Since),
        any::<Index>().prop_map(Asks::After),
    ];
    let ask = (server(), 0_u64..400, any::<bool>());
    prop_oneof![
        4 => (0_u64..1_500).prop_map(Step::Wait),
        6 => (24_u64..20_000).prop_map(Step::Commit),
        6 => ask.prop_map(|(host, millis, is_timeline_late)| Step::Ask { host, millis, is_timeline_late }),
        6 => server().prop_map(Step::Hear),
        1 => server().prop_map(Step::Miss),
        4 => Just(Step::Round),
        4 => (server(), 0_u64..40_000).prop_map(|(server, bytes)| Step::Replay { server, bytes }),
        1 => server().prop_map(Step::Kill),
        2 => (server(), 0_u64..40_000).prop_map(|(server, bytes)| Step::Start { server, bytes }),
        2 => (server(), 0_u64..40_000).prop_map(|(server, bytes)| Step::Recover { server, bytes }),
        1 => (server(), 0_u64..20_000).prop_map(|(server, bytes)| Step::Promote { server, bytes }),
        1 => (server(), 0_u64..20_000).prop_map(|(server, bytes)| Step::Rebuild { server, bytes }),
        1 => (server(), prop::collection::vec(server(), 1..3)).prop_map(|(host, servers)| Step::Lead { host, servers }),
        12 => (server(), 0_usize..4, asks).prop_map(|(host, connection, asks)| Step::Read { host, connection, asks }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    at: Duration,
    end: u64,
    timeline: u32,
}

#[derive(Debug, Clone, Copy)]
struct Server {
    /// Another one after each start.
    started: i64,
    /// Another one after each crash. Sessions and connections end with it.
    life: u64,
    is_up: bool,
    is_replica: bool,
    timeline: u32,
    /// The timeline that it showed last.
    shown: u32,
    /// Of a primary: the end of its log.
    replayed: u64,
}

impl Server {
    fn shows(&self, commit: &Commit) -> bool {
        commit.timeline <= self.timeline && commit.end <= self.replayed
    }
}

/// A host as its scout and its pool see it. Sessions and connections are named by the life of their server.
#[derive(Debug, Clone, Default)]
struct Name {
    servers: Vec<usize>,
    dials: usize,
    session: Option<u64>,
    is_new_session: bool,
    answer: Option<(Instant, Answer)>,
    connections: Vec<u64>,
}

/// The truth, and what the state makes of it.
struct Random {
    state: State,
    begun: Instant,
    now: Duration,
    servers: [Server; SERVERS],
    names: [Name; SERVERS],
    lives: u64,
    timeline: u32,
    /// Where each timeline has left the one before: the first is that of timeline 2.
    forks: Vec<u64>,
    /// Those that survive.
    commits: Vec<Commit>,
    positions: Vec<Position>,
}

impl Random {
    fn new() -> Self {
        let begun = Instant::now();
        let labels = ["a:5432", "b:5432", "c:5432"].map(Arc::from);
        let server = |number: usize| Server {
            started: number as i64,
            life: number as u64,
            is_up: true,
            is_replica: number > 0,
            timeline: 1,
            shown: 1,
            replayed: FIRST,
        };
        let name = |number: usize| Name { servers: vec![number], ..Name::default() };
        Self {
            state: State::new(begun, labels.into_iter(), Looks::default(), SECOND * 30),
            begun,
            now: Duration::ZERO,
            servers: std::array::from_fn(server),
            names: std::array::from_fn(name),
            lives: 100,
            timeline: 1,
            forks: Vec::new(),
            commits: Vec::new(),
            positions: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.begun + self.now
    }

    /// The server of the present timeline that accepts writes.
    fn primary(&self) -> Option<usize> {
        (0..SERVERS).find(|number| self.is_primary(*number))
    }

    fn is_primary(&self, server: usize) -> bool {
        let server = self.servers[server];
        server.is_up && !server.is_replica && server.timeline == self.timeline
    }

    /// The running server of this life.
    fn running(&self, life: u64) -> Option<usize> {
        (0..SERVERS).find(|number| self.servers[*number].is_up && self.servers[*number].life == life)
    }

    fn new_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    /// Returns the number of reads that were served, which is 0 or 1.
    fn take(&mut self, step: &Step) -> Result<u32, TestCaseError> {
        match *step {
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::Commit(bytes) => self.commit(bytes),
            Step::Ask { host, millis, is_timeline_late } => self.ask(host, millis, is_timeline_late),
            Step::Hear(host) => self.hear(host),
            Step::Miss(host) => self.miss(host),
            Step::Round => self.round(),
            Step::Replay { server, bytes } => self.replay(server, bytes),
            Step::Kill(server) => self.servers[server].is_up = false,
            Step::Start { server, bytes } => self.start(server, bytes),
            Step::Recover { server, bytes } => self.recover(server, bytes),
            Step::Promote { server, bytes } => self.promote(server, bytes),
            Step::Rebuild { server, bytes } => self.rebuild(server, bytes),
            Step::Lead { host, ref servers } => self.names[host].servers.clone_from(servers),
            Step::Read { host, connection, ref asks } => return self.read(host, connection, asks).map(u32::from),
        }
        Ok(0)
    }

    fn commit(&mut self, bytes: u64) {
        let Some(primary) = self.primary() else { return };
        let server = &mut self.servers[primary];
        server.replayed += bytes;
        // No record ends within the header of a page.
        if server.replayed % 8_192 <= 40 {
            server.replayed += 48;
        }
        let end = server.replayed;
        self.commits.push(Commit { at: self.now, end, timeline: self.timeline });
        self.positions.push(Position::new(Some(SYSTEM), self.timeline, Lsn(end)));
    }

    /// The server to which a new connection of the host leads.
    fn dial(&mut self, host: usize) -> Option<Server> {
        let name = &mut self.names[host];
        let server = self.servers[name.servers[name.dials % name.servers.len()]];
        name.dials += 1;
        server.is_up.then_some(server)
    }

    fn ask(&mut self, host: usize, millis: u64, is_timeline_late: bool) {
        let asked = self.now();
        self.now += Duration::from_millis(millis);
        if self.state.is_doubted(host) {
            self.names[host].session = None;
        }
        if self.names[host].session.is_none() {
            self.names[host].session = self.dial(host).map(|server| server.life);
            self.names[host].is_new_session = true;
        }
        let Some(number) = self.names[host].session.and_then(|session| self.running(session)) else {
            return self.miss(host);
        };
        let at = self.now();
        let server = &mut self.servers[number];
        if !(is_timeline_late && server.is_replica) {
            server.shown = server.timeline;
        }
        let sighting = Sighting {
            at,
            is_in_recovery: server.is_replica,
            timeline: Some(server.shown),
            system: Some(SYSTEM),
            started: server.started,
        };
        self.names[host].answer = Some((asked, Answer { sighting, place: Some(Lsn(server.replayed)) }));
    }

    fn hear(&mut self, host: usize) {
        let now = self.now();
        let name = &mut self.names[host];
        let Some((asked, answer)) = name.answer.take() else { return };
        let is_new_session = std::mem::take(&mut name.is_new_session);
        if self.state.on_answer(now, host, asked, answer, is_new_session).flush {
            self.names[host].connections.clear();
        }
    }

    fn miss(&mut self, host: usize) {
        let (now, name) = (self.now(), &mut self.names[host]);
        (name.session, name.answer) = (None, None);
        self.state.on_failure(now, host, "no answer".to_owned());
    }

    fn round(&mut self) {
        for server in 0..SERVERS {
            self.replay(server, u64::MAX);
        }
        let first = self.primary().unwrap_or(0);
        for number in 0..SERVERS {
            let host = (first + number) % SERVERS;
            self.ask(host, 1, false);
            self.hear(host);
        }
        self.now += SECOND;
    }

    fn replay(&mut self, number: usize, bytes: u64) {
        let Some(primary) = self.primary() else { return };
        let end = self.servers[primary].replayed;
        let server = &mut self.servers[number];
        if !server.is_up || !server.is_replica {
            return;
        }
        // A server that has replayed past the fork cannot follow.
        let forks = &self.forks[server.timeline as usize - 1..];
        if forks.iter().all(|fork| server.replayed <= *fork) {
            server.timeline = self.timeline;
            server.replayed = server.replayed.saturating_add(bytes).min(end);
        }
    }

    fn start(&mut self, number: usize, bytes: u64) {
        if self.servers[number].is_up {
            return;
        }
        let is_old_primary = !self.servers[number].is_replica && self.servers[number].timeline < self.timeline;
        // No client can know of a primary that it has never seen.
        let has_seen = matches!(self.state.primacy(), Primacy::Primary { timeline, .. } if timeline == self.timeline);
        if is_old_primary && !has_seen {
            return;
        }
        let (life, timeline) = (self.new_life(), self.timeline);
        let replicas = self.servers.iter().filter(|server| server.is_replica && server.timeline == timeline);
        let kept = replicas.map(|server| server.replayed).max().unwrap_or(FIRST);
        let server = &mut self.servers[number];
        (server.started, server.life, server.is_up) = (life as i64, life, true);
        if server.is_replica {
            server.replayed = server.replayed.saturating_sub(bytes).max(FIRST);
        } else if server.timeline == timeline {
            server.replayed = server.replayed.saturating_sub(bytes).max(kept);
            let end = server.replayed;
            self.commits.retain(|commit| commit.end <= end);
        }
    }

    fn recover(&mut self, number: usize, bytes: u64) {
        let life = self.new_life();
        let server = &mut self.servers[number];
        if server.is_up && server.is_replica {
            (server.life, server.replayed) = (life, server.replayed.saturating_sub(bytes).max(FIRST));
        }
    }

    fn promote(&mut self, number: usize, bytes: u64) {
        let Some(primary) = self.primary() else { return };
        let (end, server) = (self.servers[primary].replayed, self.servers[number]);
        if !server.is_up || !server.is_replica || server.timeline < self.timeline {
            return;
        }
        let fork = server.replayed.saturating_add(bytes).min(end);
        self.servers[primary].is_up = false;
        self.commits.retain(|commit| commit.end <= fork);
        self.forks.push(fork);
        self.timeline += 1;
        self.servers[number] = Server { is_replica: false, timeline: self.timeline, replayed: fork, ..server };
    }

    fn rebuild(&mut self, number: usize, bytes: u64) {
        let Some(primary) = self.primary() else { return };
        if primary == number {
            return;
        }
        let (life, timeline) = (self.new_life(), self.timeline);
        let replayed = self.servers[primary].replayed.saturating_sub(bytes).max(FIRST);
        let (started, shown) = (life as i64, timeline);
        self.servers[number] = Server { started, life, is_up: true, is_replica: true, timeline, shown, replayed };
    }

    /// Returns whether a replica has served the read.
    fn read(&mut self, host: usize, connection: usize, asks: &Asks) -> Result<bool, TestCaseError> {
        let ago = |millis: u64| self.now.saturating_sub(Duration::from_millis(millis));
        let (need, since, position) = match asks {
            Asks::Within(millis) => (Need::Within(Duration::from_millis(*millis)), Some(ago(*millis)), None),
            Asks::Since(millis) => (Need::Since(self.begun + ago(*millis)), Some(ago(*millis)), None),
            Asks::After(_) if self.positions.is_empty() => return Ok(false),
            Asks::After(index) => {
                let position = *index.get(&self.positions);
                (Need::Position(position), None, Some(position))
            }
        };
        let life = match self.names[host].connections.get(connection) {
            Some(life) => *life,
            None => {
                let Some(server) = self.dial(host) else { return Ok(false) };
                let replayed = server.is_replica.then_some(Lsn(server.replayed));
                self.state.on_dialed(host, self.now(), server.started, replayed);
                self.names[host].connections.push(server.life);
                server.life
            }
        };
        let Some(number) = self.running(life) else {
            self.names[host].connections.retain(|connection| *connection != life);
            return Ok(false);
        };
        // The rest of a call's check: the primary has everything.
        if self.state.is_primary(host) || !self.state.is_replica(host) || !self.state.has(self.now(), host, need) {
            return Ok(false);
        }
        let server = self.servers[number];
        let is_due = |commit: &Commit| match position {
            Some(position) => commit.timeline == position.timeline && Lsn(commit.end).rounded() == position.lsn,
            None => since.is_some_and(|since| commit.at < since),
        };
        let missing = self.commits.iter().find(|commit| is_due(commit) && !server.shows(commit));
        prop_assert!(missing.is_none(), "{missing:?} is missing at {:?} for {need:?}: {server:?}", self.now);
        Ok(true)
    }
}

#[test]
fn no_read_of_a_replica_misses_what_its_bound_says() {
    const CASES: u32 = 500;
    let (served, checked) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..300);
    let result = runner.run(&steps, |steps| {
        let mut world = Random::new();
        for step in &steps {
            let is_read = matches!(step, Step::Read { .. });
            let count = world.take(step)?;
            served.set(served.get() + count);
            checked.set(checked.get() + u32::from(is_read));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    println!("{} of {} reads were served by a replica", served.get(), checked.get());
    assert!(served.get() > checked.get() / 20, "too few reads were served: {}", served.get());
}
