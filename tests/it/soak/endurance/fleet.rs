//! Processes that share a server go through every kind of fault, in random order, round after round: members that come,
//! die, leave or freeze, strangers, lost beacons, a restart, and another limit of the role. After each round, no member
//! was refused a connection, no call failed that the fault spares, the members use no more than there is, and what one
//! of them does not use any more is used by the others.
//!
//! The normal run has the faults that are over within seconds, `./dev soak` has all of them.

use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::{SECOND, seed, setting};
use crate::fleet::processes::url;
use crate::fleet::worker::{Kind, Report, Worker};
use crate::fleet::{as_app, refusals, small_server};
use crate::support::server::Server;

/// At most so many connections for ordinary roles: 3 of 50 are reserved.
const USABLE: usize = 47;
const STRANGERS: usize = 20;
/// The role's limit in a round.
const ROLE_LIMIT: usize = 30;
const MEMBERS: usize = 5;
/// The callers of a busy member, of which there are two, and those of the others.
const BUSY: usize = 30;
const QUIET: usize = 1;
/// How many seconds a call takes.
const CALL: &str = "0.1";
/// All processes and both other soaks share the processors.
const BUSY_MACHINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Two members join.
    Join,
    /// A busy member is killed.
    Kill,
    /// A busy member leaves properly.
    Drain,
    /// Other members are busy.
    Move,
    /// A busy member is frozen, and goes on.
    Freeze,
    /// An administrator ends the connections that show beacons.
    Beacons,
    /// Clients that are no members take connections, and leave.
    Strangers,
    /// The server is stopped and started again.
    Restart,
    /// The role gets a limit, and loses it again.
    RoleLimit,
}

const ALL: [Fault; 9] = [
    Fault::Join,
    Fault::Kill,
    Fault::Drain,
    Fault::Move,
    Fault::Freeze,
    Fault::Beacons,
    Fault::Strangers,
    Fault::Restart,
    Fault::RoleLimit,
];

const SHORT: [Fault; 6] = [Fault::Join, Fault::Kill, Fault::Drain, Fault::Move, Fault::Freeze, Fault::Beacons];

impl Fault {
    /// Within this time the members use what there is, as docs/fleet.md says.
    fn documented(self) -> Duration {
        match self {
            Fault::Join | Fault::Kill | Fault::Drain | Fault::Move | Fault::Freeze => 5 * SECOND,
            Fault::Beacons | Fault::Restart => 15 * SECOND,
            // A refused member does not grow for 30 s, and then by half steps. Strangers count for a minute.
            Fault::Strangers | Fault::RoleLimit => 100 * SECOND,
        }
    }

    /// Whether no call fails, except those of a frozen member.
    fn spares_calls(self) -> bool {
        !matches!(self, Fault::Strangers | Fault::Restart | Fault::RoleLimit)
    }

    /// Whether others than members cause the server to refuse connections.
    fn provokes_refusals(self) -> bool {
        matches!(self, Fault::Strangers | Fault::RoleLimit)
    }
}

/// The result of a round.
#[derive(Debug)]
struct Round {
    fault: Fault,
    members: usize,
    served: u64,
    failed: u64,
    /// Connections that the server refused to members because of the fault.
    provoked: usize,
    granted: Vec<usize>,
    capacity: usize,
    used_again: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, members, served, failed, provoked, granted, capacity, used_again } = self;
        write!(
            f,
            "{fault:?}: {members} members, {served} calls, {failed} failed; refused (53300): 0 because of members, "
        )?;
        write!(
            f,
            "{provoked} because of others; {granted:?} of {capacity} in use after {:.1} s",
            used_again.as_secs_f64()
        )
    }
}

/// Whether a member sees all others, reckons with no more than there is, and has its minimum.
fn is_well(report: &Report, members: usize, capacity: usize) -> bool {
    report.members == members && report.capacity <= capacity && report.granted >= 1
}

/// A process, and what it had done before the round.
struct Member {
    worker: Worker,
    before: Report,
    is_busy: bool,
}

struct World {
    server: Server,
    members: Vec<Member>,
    /// How often strangers were refused.
    refused_strangers: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_survives_every_fault() {
    let (seed, minutes) = (seed(), setting("FAILFAST_SOAK_MINUTES", 0));
    let mut rng = Rng::with_seed(seed);
    let mut world = World { server: small_server("50").await, members: Vec::new(), refused_strangers: 0 };
    for _ in 0..MEMBERS {
        world.join();
        sleep(SECOND / 2).await;
    }
    let mut faults = if minutes == 0 { SHORT.to_vec() } else { ALL.to_vec() };
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let (mut rounds, mut served, mut failed, mut provoked, mut slowest) = (0, 0, 0, 0, Duration::ZERO);
    while rounds == 0 || Instant::now() < end {
        rng.shuffle(&mut faults);
        for fault in &faults {
            if rounds >= faults.len() && Instant::now() >= end {
                break;
            }
            rounds += 1;
            let round = world.round(*fault, &mut rng).await;
            println!("fleet, round {rounds}: {round}");
            (served, failed, provoked) = (served + round.served, failed + round.failed, provoked + round.provoked);
            if fault.spares_calls() {
                slowest = slowest.max(round.used_again);
            }
        }
    }
    println!(
        "fleet: {rounds} rounds, {served} calls, {failed} failed in rounds that spare none, refused (53300): 0 because of \
         members, {provoked} because of others; slots used again after {:.1} s at most, without strangers, restarts and \
         limits",
        slowest.as_secs_f64()
    );
}

impl World {
    fn join(&mut self) {
        let mut worker = Worker::start_with_calls(&url(&self.server), Kind::Fleet, CALL);
        worker.is_up();
        worker.load(QUIET);
        self.members.push(Member { worker, before: Report::default(), is_busy: false });
    }

    /// These two members are busy.
    fn share_load(&mut self, busy: [usize; 2]) {
        for (number, member) in self.members.iter_mut().enumerate() {
            member.is_busy = busy.contains(&number);
            member.worker.load(if member.is_busy { BUSY } else { QUIET });
        }
    }

    fn others_are_busy(&mut self, rng: &mut Rng) {
        let quiet: Vec<_> = (0..self.members.len()).filter(|number| !self.members[*number].is_busy).collect();
        // With three members, one of them stays busy.
        let busy = (0..self.members.len()).filter(|number| self.members[*number].is_busy);
        let mut next = quiet;
        rng.shuffle(&mut next);
        next.extend(busy);
        self.share_load([next[0], next[1]]);
    }

    fn reports(&mut self) -> Vec<Report> {
        self.members.iter_mut().map(|member| member.worker.report()).collect()
    }

    async fn round(&mut self, fault: Fault, rng: &mut Rng) -> Round {
        self.others_are_busy(rng);
        self.is_settled(fault, 0, USABLE, 2 * BUSY_MACHINE).await;
        for member in &mut self.members {
            member.before = member.worker.report();
        }
        let (mut gone, refused) = (None, self.refused_members().await);
        let lasting = Duration::from_millis(rng.u64(1_000..4_000));
        let victim = self.members.iter().position(|member| member.is_busy).expect("two are busy");
        match fault {
            Fault::Join => {
                self.join();
                sleep(SECOND / 2).await;
                self.join();
            }
            Fault::Kill => self.members.swap_remove(victim).worker.kill(),
            Fault::Drain => {
                let leaving = self.members.swap_remove(victim);
                let report = leaving.worker.drain();
                gone = Some((report.ok - leaving.before.ok, report.failed - leaving.before.failed));
            }
            Fault::Move => self.others_are_busy(rng),
            Fault::Freeze => {
                self.members[victim].worker.freeze();
                sleep(lasting).await;
                self.members[victim].worker.thaw();
            }
            Fault::Beacons => {
                let end =
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ff1 shop %'";
                self.server.execute(end).await;
            }
            Fault::Strangers => {
                let strangers = self.strangers_come().await;
                self.is_settled(fault, STRANGERS, USABLE, 60 * SECOND).await;
                sleep(lasting).await;
                drop(strangers);
                self.have_forgotten(fault.documented()).await;
            }
            Fault::Restart => {
                self.server.stop().await;
                self.server.start().await;
            }
            Fault::RoleLimit => {
                self.server.execute(&format!("ALTER ROLE app CONNECTION LIMIT {ROLE_LIMIT}")).await;
                self.is_settled(fault, 0, ROLE_LIMIT, 60 * SECOND).await;
                let settled = self.refused_members().await;
                sleep(lasting).await;
                assert_eq!(self.refused_members().await, settled, "{fault:?}: refused below the limit of the role");
                self.server.execute("ALTER ROLE app CONNECTION LIMIT -1").await;
            }
        }
        let (granted, capacity, used_again) =
            self.is_settled(fault, 0, USABLE, fault.documented() + BUSY_MACHINE).await;
        let provoked = self.refused_members().await - refused;
        assert!(provoked == 0 || fault.provokes_refusals(), "{fault:?}: members were refused {provoked} connections");
        let (mut served, mut failed) = gone.unwrap_or_default();
        for (number, member) in self.members.iter_mut().enumerate() {
            let report = member.worker.report();
            served += report.ok - member.before.ok;
            // Its own timeouts went on while it was frozen.
            if fault != Fault::Freeze || number != victim {
                failed += report.failed - member.before.failed;
            }
        }
        assert!(failed == 0 || !fault.spares_calls(), "{fault:?}: {failed} calls failed");
        Round { fault, members: self.members.len(), served, failed, provoked, granted, capacity, used_again }
    }

    /// Waits until every member sees all others and has its minimum, all together use no more than there is, and those
    /// that are busy use most of it. Returns what each may use, what there is, and how long it took.
    async fn is_settled(
        &mut self,
        fault: Fault,
        strangers: usize,
        limit: usize,
        within: Duration,
    ) -> (Vec<usize>, usize, Duration) {
        let begun = Instant::now();
        loop {
            let count = self.members.len();
            let capacity = limit.saturating_sub((limit / 10).max(5) + strangers + count);
            let reports = self.reports();
            let granted: Vec<_> = reports.iter().map(|report| report.granted).collect();
            let sum = granted.iter().sum::<usize>();
            let busy = self.members.iter().zip(&granted).filter(|(member, _)| member.is_busy);
            let busy = busy.map(|(_, granted)| *granted).sum::<usize>();
            // A quiet member wants two.
            let quiet = self.members.iter().filter(|member| !member.is_busy).count();
            let is_settled = reports.iter().all(|report| is_well(report, count, capacity))
                && sum <= capacity
                && 10 * sum >= 8 * capacity
                && 10 * busy >= 6 * capacity.saturating_sub(2 * quiet);
            if is_settled {
                return (granted, capacity, begun.elapsed());
            }
            assert!(begun.elapsed() < within, "{fault:?}: not within {within:?}: {capacity} of {limit}, {reports:?}");
            sleep(SECOND / 10).await;
        }
    }

    /// Waits until no member counts the strangers any more. Those that have seen them for long do so for a minute, so
    /// the next fault would find members with different views.
    async fn have_forgotten(&mut self, within: Duration) {
        let begun = Instant::now();
        loop {
            let capacity = USABLE - (USABLE / 10).max(5) - self.members.len();
            let reports = self.reports();
            if reports.iter().all(|report| report.capacity == capacity) {
                return;
            }
            assert!(begun.elapsed() < within, "{capacity} after {within:?}: {reports:?}");
            sleep(SECOND / 10).await;
        }
    }

    /// How often the server has refused a member.
    async fn refused_members(&self) -> usize {
        refusals(&self.server).await - self.refused_strangers
    }

    /// Clients that are no members take connections as they become free.
    async fn strangers_come(&mut self) -> Vec<Client> {
        let (begun, mut strangers) = (Instant::now(), Vec::new());
        while strangers.len() < STRANGERS {
            match as_app(&self.server).connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    strangers.push(client);
                }
                Err(error) => {
                    assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{error}");
                    assert!(begun.elapsed() < 60 * SECOND, "{} strangers have a connection", strangers.len());
                    self.refused_strangers += 1;
                    sleep(SECOND / 10).await;
                }
            }
        }
        strangers
    }
}
