//! A virtual clock over the real core, and over the plain queue that it is compared with.
//!
//! Both see the same callers, leases, dials and stalls. The plain queue serves in order of arrival and refuses no
//! caller. Its callers know how long a lease takes on average. Each leaves once its time left is shorter than that.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

/// Nanoseconds since the beginning of a trace.
pub(super) type Nanos = u64;

pub(super) fn nanos(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

pub(super) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

/// One caller: when it comes, how long its lease takes, and how long it has, from its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) arrives: Nanos,
    pub(super) lease: Nanos,
    pub(super) budget: Nanos,
    /// The caller was refused before, and came back after `retry_after`.
    pub(super) is_return: bool,
    pub(super) lane: Lane,
}

impl Caller {
    /// All in seconds.
    pub(super) fn new(arrives: f64, lease: f64, budget: f64) -> Self {
        Self {
            arrives: nanos(arrives),
            lease: nanos(lease),
            budget: nanos(budget),
            is_return: false,
            lane: Lane::Normal,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) connections: usize,
    /// The acquire timeout, in seconds: what the pool expects callers to have until it has seen some.
    pub(super) budget: f64,
    /// Whether the budget of a caller includes its work, as with `call().deadline(...)`, unlike `get()`.
    pub(super) includes_work: bool,
    pub(super) shedding: Shedding,
    /// How long a dial takes, in seconds; 0 if all connections are there from the beginning.
    pub(super) dial: f64,
    /// When the process is stopped. All events of such a time happen at its end.
    pub(super) stalls: Vec<(Nanos, Nanos)>,
    /// The mean of the leases, in seconds.
    pub(super) lease: f64,
    /// A lease among busy ones takes longer: by this much of its length if all others are in use.
    pub(super) slowdown: f64,
    /// Whether each refused caller comes back after `retry_after`.
    pub(super) returns: bool,
    /// If set, a lease ends at its caller's deadline, and its work is cancelled. The clean-up takes so many seconds.
    /// The callers of the plain queue then know how long their own lease takes, so that none of them begins in vain.
    pub(super) gives_up: Option<f64>,
}

impl World {
    pub(super) fn new(connections: usize, lease: f64, budget: f64) -> Self {
        Self {
            connections,
            budget,
            includes_work: true,
            shedding: Shedding::Predictive,
            dial: 0.0,
            stalls: Vec::new(),
            lease,
            slowdown: 0.0,
            returns: false,
            gives_up: None,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_size: self.connections,
            max_waiting: default_max_waiting(self.connections),
            max_connecting: 4,
            wait_budget: Duration::from_secs_f64(self.budget),
            ages: Ages::default(),
            lanes: Lane::ALL.map(LaneLimits::of),
        }
    }
}

/// What became of a caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// When the lease begins, and how long it takes.
    Served { begins: Nanos, lease: Nanos },
    /// When the caller knew.
    Refused { at: Nanos },
}

/// A caller that asked: it has a connection, waits, or is refused and may come back after so long.
enum Asked {
    Begins(u32),
    Waits,
    Refused(Option<Duration>),
}

/// Connections that went to callers, and the callers refused on the way.
#[derive(Default)]
struct Handed {
    to: Vec<(usize, u32)>,
    refused: Vec<(usize, Option<Duration>)>,
}

trait Queueing {
    fn ask(&mut self, now: Nanos, index: usize, caller: &Caller) -> Asked;
    fn release(&mut self, now: Nanos, conn: u32) -> Handed;
    /// The work was cancelled, and the connection has been cleaned up.
    fn given_up(&mut self, now: Nanos, conn: u32) -> Handed;
    fn on_dialed(&mut self, now: Nanos, dial: u64) -> Handed;
    fn begin_dials(&mut self, now: Nanos) -> Vec<u64>;
    /// When the waiting caller will leave.
    fn leaves(&self, now: Nanos, caller: &Caller) -> Nanos;
    /// Removes a waiter. Returns whether it was still waiting.
    fn leave(&mut self, index: usize) -> bool;
    /// Makes all connections before the first caller comes.
    fn connect(&mut self, connections: usize);
}

/// Runs a trace on the pool. Returns all callers, including those that came back, and the outcome of each.
pub(super) fn simulate(world: &World, callers: &[Caller]) -> (Vec<Caller>, Vec<Outcome>) {
    Simulation::run(world, callers, Real::new(world))
}

/// Runs a trace on a plain queue. No caller comes back, because none is refused.
pub(super) fn plain_queue(world: &World, callers: &[Caller]) -> Vec<Outcome> {
    let plain = PlainQueue { world: world.clone(), dialed: 0, dialing: 0, idle: Vec::new(), waiting: VecDeque::new() };
    Simulation::run(world, callers, plain).1
}

impl Outcome {
    /// Whether the caller had its answer in time.
    pub(super) fn is_in_time(self, world: &World, caller: &Caller) -> bool {
        let Self::Served { begins, lease } = self else { return false };
        let work = if world.includes_work { lease } else { 0 };
        begins + work <= caller.arrives + caller.budget
    }
}

struct Real {
    core: Core<u32, usize>,
    world: World,
    begun: Instant,
    held: Vec<Option<Held<u32>>>,
    places: Vec<Option<WaiterId>>,
}

impl Real {
    fn new(world: &World) -> Self {
        let begun = Instant::now();
        let core = Core::new(begun, world.limits());
        Self { core, world: world.clone(), begun, held: Vec::new(), places: Vec::new() }
    }

    fn at(&self, now: Nanos) -> Instant {
        self.begun + Duration::from_nanos(now)
    }

    fn hold(&mut self, mut held: Held<u32>) -> u32 {
        held.mark_used();
        let conn = held.conn;
        if self.held.len() <= conn as usize {
            self.held.resize_with(conn as usize + 1, || None);
        }
        self.held[conn as usize] = Some(held);
        conn
    }

    fn placed(&mut self, now: Instant, placed: Placed<u32, usize>) -> Handed {
        let (mut handed, mut next) = (Handed::default(), Some(placed));
        while let Some(placed) = next {
            for (_, index, why) in placed.refused {
                self.places[index] = None;
                handed.refused.push((index, retry_after(&why)));
            }
            if let Place::Waiter(_, index, held) = placed.to {
                self.places[index] = None;
                handed.to.push((index, self.hold(held)));
            }
            next = self.core.hand_idle(now);
        }
        handed
    }
}

impl Queueing for Real {
    fn ask(&mut self, now: Nanos, index: usize, caller: &Caller) -> Asked {
        let now = self.at(now);
        let fast = if caller.lane == Lane::Normal { self.core.take_fast(0) } else { None };
        if let Some(held) = fast {
            return Asked::Begins(self.hold(held));
        }
        let wait_policy = WaitPolicy {
            deadline: Deadline::after(now, Duration::from_nanos(caller.budget)),
            includes_work: self.world.includes_work,
            shedding: self.world.shedding,
            lane: caller.lane,
        };
        match self.core.enter(now, wait_policy, || index) {
            Ok(Entered::Took(held)) => Asked::Begins(self.hold(held)),
            Ok(Entered::Waits(id)) => {
                if self.places.len() <= index {
                    self.places.resize(index + 1, None);
                }
                self.places[index] = Some(id);
                Asked::Waits
            }
            Err(why) => Asked::Refused(retry_after(&why)),
        }
    }

    fn release(&mut self, now: Nanos, conn: u32) -> Handed {
        let held = self.held[conn as usize].take().expect("held");
        let now = self.at(now);
        let placed = release(&mut self.core, now, held);
        self.placed(now, placed)
    }

    fn given_up(&mut self, now: Nanos, conn: u32) -> Handed {
        let mut held = self.held[conn as usize].take().expect("held");
        held.mark_cancelled();
        let now = self.at(now);
        let placed = self.core.release(now, self.core.time(now), held);
        self.placed(now, placed)
    }

    fn on_dialed(&mut self, now: Nanos, dial: u64) -> Handed {
        let now = self.at(now);
        let placed = self.core.on_dialed(now, dial, dial as u32);
        self.placed(now, placed)
    }

    fn begin_dials(&mut self, now: Nanos) -> Vec<u64> {
        if !self.core.has_free_slot() {
            return Vec::new();
        }
        self.core.begin_dials(self.at(now)).dials.collect()
    }

    fn leaves(&self, now: Nanos, caller: &Caller) -> Nanos {
        now + caller.budget
    }

    fn leave(&mut self, index: usize) -> bool {
        let Some(id) = self.places[index].take() else { return false };
        self.core.leave(id).is_some()
    }

    fn connect(&mut self, connections: usize) {
        self.core.set_target(connections);
        while self.core.counts().idle < connections {
            for dial in self.core.begin_dials(self.begun).dials {
                self.core.on_dialed(self.begun, dial, dial as u32);
            }
        }
        self.core.set_target(0);
    }
}

/// When a refused caller may come back, if that is known.
fn retry_after(why: &Refusal) -> Option<Duration> {
    match *why {
        Refusal::Shed(_, wait) | Refusal::Unreachable((), wait) => Some(wait),
        Refusal::Closed | Refusal::TimedOut | Refusal::CircuitOpen => None,
    }
}

struct PlainQueue {
    world: World,
    dialed: u32,
    dialing: usize,
    idle: Vec<u32>,
    waiting: VecDeque<usize>,
}

impl PlainQueue {
    fn place(&mut self, conn: u32) -> Handed {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.idle.push(conn);
        }
        Handed { to: next.map(|index| (index, conn)).into_iter().collect(), refused: Vec::new() }
    }
}

impl Queueing for PlainQueue {
    fn ask(&mut self, _: Nanos, index: usize, _: &Caller) -> Asked {
        if let Some(conn) = self.idle.pop() {
            return Asked::Begins(conn);
        }
        self.waiting.push_back(index);
        Asked::Waits
    }

    fn release(&mut self, _: Nanos, conn: u32) -> Handed {
        self.place(conn)
    }

    fn given_up(&mut self, _: Nanos, conn: u32) -> Handed {
        self.place(conn)
    }

    fn on_dialed(&mut self, _: Nanos, _: u64) -> Handed {
        self.dialing -= 1;
        self.dialed += 1;
        self.place(self.dialed)
    }

    fn begin_dials(&mut self, _: Nanos) -> Vec<u64> {
        let free = self.world.connections - self.dialed as usize - self.dialing;
        let more = self.waiting.len().min(free + self.dialing).min(4).saturating_sub(self.dialing);
        self.dialing += more;
        vec![0; more]
    }

    fn leaves(&self, now: Nanos, caller: &Caller) -> Nanos {
        // A waiter's lease begins among busy connections. The extra nanosecond serves a caller that can just finish.
        let lease = match self.world.gives_up {
            Some(_) => caller.lease,
            None => nanos(self.world.lease * (1.0 + self.world.slowdown)),
        };
        let work = if self.world.includes_work { lease } else { 0 };
        now + caller.budget.saturating_sub(work) + 1
    }

    fn leave(&mut self, index: usize) -> bool {
        // Waiters are in ascending order.
        let place = self.waiting.binary_search(&index);
        place.is_ok_and(|place| self.waiting.remove(place).is_some())
    }

    fn connect(&mut self, connections: usize) {
        self.dialed = connections as u32;
        self.idle = (1..=connections as u32).collect();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Released(u32),
    GivenUp(u32),
    Dialed(u64),
    Returns(usize),
    Leaves(usize),
}

struct Simulation<'a, Q> {
    world: &'a World,
    pool: Q,
    callers: Vec<Caller>,
    outcomes: Vec<Option<Outcome>>,
    events: BinaryHeap<Reverse<(Nanos, Event)>>,
    now: Nanos,
    in_use: usize,
}

impl<'a, Q: Queueing> Simulation<'a, Q> {
    fn run(world: &'a World, callers: &[Caller], pool: Q) -> (Vec<Caller>, Vec<Outcome>) {
        let mut simulation = Self {
            world,
            pool,
            callers: callers.to_vec(),
            outcomes: vec![None; callers.len()],
            events: BinaryHeap::new(),
            now: 0,
            in_use: 0,
        };
        if world.dial == 0.0 {
            simulation.pool.connect(world.connections);
        }
        let mut next = 0;
        loop {
            let event = simulation.events.peek().map(|Reverse((at, _))| *at);
            let arrival = callers.get(next).map(|caller| caller.arrives);
            match (event, arrival) {
                (Some(at), arrival) if arrival.is_none_or(|arrival| at <= arrival) => simulation.event(),
                (_, Some(at)) => {
                    simulation.now = simulation.awake(at);
                    simulation.ask(next);
                    next += 1;
                }
                (_, None) => break,
            }
            if simulation.world.dial > 0.0 {
                for dial in simulation.pool.begin_dials(simulation.now) {
                    simulation.at(simulation.now + nanos(world.dial), Event::Dialed(dial));
                }
            }
        }
        let outcomes =
            simulation.outcomes.into_iter().map(|outcome| outcome.expect("every caller is answered")).collect();
        (simulation.callers, outcomes)
    }

    /// When the process handles an event that is due at `at`: at once, or at the end of a stall.
    fn awake(&self, at: Nanos) -> Nanos {
        self.world.stalls.iter().find(|(from, until)| (*from..*until).contains(&at)).map_or(at, |(_, until)| *until)
    }

    fn event(&mut self) {
        let Some(Reverse((at, event))) = self.events.pop() else { return };
        self.now = self.awake(at);
        match event {
            Event::Released(conn) => {
                self.in_use -= 1;
                let handed = self.pool.release(self.now, conn);
                self.handed(handed);
            }
            Event::GivenUp(conn) => {
                self.in_use -= 1;
                let handed = self.pool.given_up(self.now, conn);
                self.handed(handed);
            }
            Event::Dialed(dial) => {
                let handed = self.pool.on_dialed(self.now, dial);
                self.handed(handed);
            }
            Event::Leaves(index) => {
                if self.pool.leave(index) {
                    self.outcomes[index] = Some(Outcome::Refused { at: self.now });
                }
            }
            Event::Returns(index) => {
                self.callers.push(Caller { arrives: self.now, is_return: true, ..self.callers[index] });
                self.outcomes.push(None);
                self.ask(self.callers.len() - 1);
            }
        }
    }

    fn ask(&mut self, index: usize) {
        self.callers[index].arrives = self.now;
        let caller = self.callers[index];
        match self.pool.ask(self.now, index, &caller) {
            Asked::Begins(conn) => self.serve(index, conn),
            Asked::Waits => self.at(self.pool.leaves(self.now, &caller), Event::Leaves(index)),
            Asked::Refused(retry_after) => self.refused(index, retry_after),
        }
    }

    fn handed(&mut self, handed: Handed) {
        handed.refused.into_iter().for_each(|(index, retry_after)| self.refused(index, retry_after));
        handed.to.into_iter().for_each(|(index, conn)| self.serve(index, conn));
    }

    fn serve(&mut self, index: usize, conn: u32) {
        let busy = self.in_use as f64 / self.world.connections as f64;
        let lease = (self.callers[index].lease as f64 * (1.0 + self.world.slowdown * busy)) as Nanos;
        self.in_use += 1;
        self.outcomes[index] = Some(Outcome::Served { begins: self.now, lease });
        let deadline = self.callers[index].arrives + self.callers[index].budget;
        match self.world.gives_up {
            Some(clean_up) if self.now + lease > deadline => {
                self.at(deadline.max(self.now) + nanos(clean_up), Event::GivenUp(conn));
            }
            _ => self.at(self.now + lease, Event::Released(conn)),
        }
    }

    fn refused(&mut self, index: usize, retry_after: Option<Duration>) {
        self.outcomes[index] = Some(Outcome::Refused { at: self.now });
        if let Some(wait) = retry_after.filter(|_| self.world.returns) {
            self.at(self.now + wait.as_nanos() as Nanos, Event::Returns(index));
        }
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.events.push(Reverse((at, event)));
    }
}
