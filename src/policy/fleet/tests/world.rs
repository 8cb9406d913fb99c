//! The world of the simulation. Time is virtual and moves in steps. Everything random comes from one seed.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::policy::fleet::beacon::Beacon;
use crate::policy::fleet::reading::default_headroom;
use crate::policy::fleet::shares::{Wish, shares};
use crate::policy::fleet::{Member, Own, Peer, Reading, Scope, Terms};

/// After this time without an answer, the server's keepalives end a connection.
const KEEPALIVE: f64 = 19.0;
/// A reading without an answer fails after this.
const LATE: f64 = 1.0;
/// A lease lasts about so long.
const LEASE: f64 = 0.3;

#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    any: bool,
}

impl Faults {
    pub(super) const ALL: Self = Self { any: true };
    pub(super) const NONE: Self = Self { any: false };
}

/// A connection for beacons, as the server has it.
#[derive(Debug)]
struct Scout {
    process: u32,
    shown: Option<Beacon>,
}

/// What is on its way between a member and the server.
#[derive(Debug)]
enum Talk {
    Nothing,
    Answer(f64, Reading),
    Announcing(f64, Beacon),
    Confirming(f64, Reading),
    Failing(f64),
}

#[derive(Debug)]
struct Process {
    member: Member,
    scout: Option<Scout>,
    talk: Talk,
    next: f64,
    /// When the beacon may change again.
    next_change: f64,
    /// The connection for beacons is silent until then.
    silent_until: f64,
    silent_since: f64,
    held: usize,
    busy: usize,
    load: usize,
    /// The network of the whole process is gone since then: the server's keepalives find out.
    cut: Option<f64>,
    is_draining: bool,
}

pub(super) struct World {
    rng: Rng,
    faults: Faults,
    begun: Instant,
    time: f64,
    step: f64,
    limit: usize,
    minimum: usize,
    most: usize,
    processes: Vec<Process>,
    next_process: u32,
    /// When members joined lately, each with what it takes at once.
    joins: Vec<(f64, usize)>,
    pub(super) strangers: usize,
    stranger_wants: usize,
    next_event: f64,
    /// The server is down until then.
    down_until: f64,
    pub(super) violations: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, members: usize, faults: Faults) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (each, minimum) = (rng.usize(3..15), rng.usize(1..3));
        let usable = members * (1 + minimum + each);
        let mut world = Self {
            rng,
            faults,
            begun: Instant::now(),
            time: 0.0,
            step: if members > 100 { 0.25 } else { 0.05 },
            limit: usable + (usable / 9).max(5),
            minimum,
            most: each * 4,
            processes: Vec::new(),
            next_process: 1_000,
            joins: Vec::new(),
            strangers: 0,
            stranger_wants: 0,
            next_event: 0.0,
            down_until: 0.0,
            violations: Vec::new(),
        };
        for _ in 0..members {
            world.join();
        }
        // Those that begin the fleet take no headroom.
        world.joins.clear();
        world.change_loads();
        world
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs_f64(self.time)
    }

    /// The longest round of this fleet, in seconds.
    pub(super) fn round(&self) -> f64 {
        (self.processes.len() as f64 / 50.0).max(2.0) * 1.25
    }

    fn join(&mut self) {
        let id = format!("{:06}", self.rng.u32(..1_000_000));
        let terms = Terms { id, minimum: self.minimum, most: self.most };
        let member = Member::new(self.now(), terms);
        let (next, load) = (self.time + self.rng.f64() * 2.0, self.rng.usize(..=self.most));
        self.processes.push(Process {
            member,
            scout: None,
            talk: Talk::Nothing,
            next,
            next_change: 0.0,
            silent_until: 0.0,
            silent_since: 0.0,
            held: 0,
            busy: 0,
            load,
            cut: None,
            is_draining: false,
        });
        self.joins.push((self.time, 1 + self.minimum));
    }

    pub(super) fn change_loads(&mut self) {
        for process in &mut self.processes {
            process.load = if self.rng.u8(..3) == 0 { self.rng.usize(..=self.most) } else { self.rng.usize(..3) };
        }
    }

    pub(super) fn load_all(&mut self) {
        for process in &mut self.processes {
            process.load = self.most;
        }
    }

    pub(super) fn want_stranger(&mut self, connections: usize) {
        self.stranger_wants = connections;
    }

    pub(super) fn has_stranger(&self) -> bool {
        self.strangers == self.stranger_wants
    }

    pub(super) fn end_stranger(&mut self) {
        (self.strangers, self.stranger_wants) = (0, 0);
    }

    /// The process ends, and the server notices at once.
    pub(super) fn kill(&mut self, process: usize) {
        self.processes.remove(process);
    }

    /// The network of the process is gone.
    pub(super) fn cut(&mut self, process: usize) {
        let process = &mut self.processes[process];
        if process.cut.is_none() {
            (process.cut, process.silent_since) = (Some(self.time), self.time);
        }
    }

    /// The server ends all connections. For so many seconds it takes no new ones.
    pub(super) fn restart(&mut self, seconds: f64) {
        self.down_until = self.time + seconds;
        for process in 0..self.processes.len() {
            (self.processes[process].held, self.processes[process].busy) = (0, 0);
        }
        self.lose_all();
    }

    pub(super) fn held(&self) -> usize {
        self.processes.iter().map(|process| process.held).sum()
    }

    fn taken(&self) -> usize {
        let scouts = self.processes.iter().filter(|process| process.scout.is_some()).count();
        self.held() + scouts + self.strangers
    }

    /// What the members may divide.
    pub(super) fn capacity(&self) -> usize {
        self.limit - default_headroom(self.limit) - self.processes.len() - self.strangers
    }

    /// The members whose limit is not what is fair.
    pub(super) fn unfair(&self) -> Vec<String> {
        let mut order: Vec<_> = self.processes.iter().collect();
        let key = |process: &Process| (process.member.beacon().id, process.scout.as_ref().map(|scout| scout.process));
        order.sort_by_key(|process| key(process));
        let wish = |process: &&Process| Wish { minimum: self.minimum, wanted: process.member.wanted() };
        let fair = shares(self.capacity(), &order.iter().map(wish).collect::<Vec<_>>());
        let pairs = order.iter().zip(fair);
        let unfair = pairs
            .filter(|(process, fair)| process.member.limit().abs_diff((*fair).min(self.most)) > (*fair / 10).max(1));
        unfair
            .map(|(process, fair)| {
                let (limit, load, held) = (process.member.limit(), process.load, process.held);
                format!("limit {limit}, fair {fair}, load {load}, held {held}, wanted {}", process.member.wanted())
            })
            .collect()
    }

    pub(super) fn run(&mut self, seconds: f64) {
        let end = self.time + seconds;
        while self.time < end {
            self.time += self.step;
            if self.faults.any && self.time >= self.next_event {
                self.happen();
                let pause = if self.processes.len() > 100 { 0.5 } else { 2.0 };
                self.next_event = self.time + self.rng.f64() * pause;
            }
            self.strangers = self.stranger_wants.min(self.strangers + self.limit.saturating_sub(self.taken()));
            for process in 0..self.processes.len() {
                self.live(process);
                self.talk(process);
            }
            self.end_cut();
            self.check();
        }
    }

    /// Something happens to somebody.
    fn happen(&mut self) {
        let (count, time) = (self.processes.len(), self.time);
        let who = self.rng.usize(..count.max(1));
        match self.rng.u8(..12) {
            0 if count > 2 => self.kill(who),
            1 if count > 2 && self.rng.bool() && self.processes[who].silent_until <= time => self.cut(who),
            2 if count > 2 => {
                self.processes[who].member.drain();
                self.processes[who].is_draining = true;
            }
            3 | 4 => {
                // As many may join in two rounds as half of the headroom has room for. The rest is for races.
                let round = self.round();
                // A blind member cannot give way to those that join.
                let is_blind = |process: &Process| {
                    process.cut.is_some() || process.silent_until > 0.0 && process.silent_until + KEEPALIVE > time
                };
                if !self.processes.iter().any(is_blind) {
                    self.joins.retain(|(at, _)| time - at < round * 2.0 + 1.0);
                }
                let joining: usize = self.joins.iter().map(|(_, takes)| takes).sum();
                let is_small = self.capacity() > (self.minimum + 1) * (count + 1);
                if is_small && 2 * (joining + 1 + self.minimum) <= default_headroom(self.limit) {
                    self.join();
                }
            }
            _ if count == 0 => {}
            5 => {
                // Silence of the connection for beacons alone, short or long.
                let long = if self.rng.bool() { 90.0 } else { 5.0 };
                let until = time + self.rng.f64() * long;
                let process = &mut self.processes[who];
                if process.silent_until <= time && process.cut.is_none() {
                    (process.silent_since, process.silent_until) = (time, until);
                }
            }
            // A connection that is silent cannot be reset.
            6 if self.processes[who].silent_until <= time && self.processes[who].cut.is_none() => self.lose(who),
            7 if self.rng.u8(..10) == 0 => {
                let seconds = self.rng.f64() * 3.0;
                self.restart(seconds);
            }
            _ => self.processes[who].load = self.rng.usize(..=self.most),
        }
    }

    /// All members lose their connections for beacons at the same time.
    pub(super) fn lose_all(&mut self) {
        for process in 0..self.processes.len() {
            self.lose(process);
        }
    }

    /// The connection for beacons is lost.
    fn lose(&mut self, process: usize) {
        let again = self.time + self.rng.f64() * 0.5;
        let process = &mut self.processes[process];
        (process.scout, process.talk, process.next) = (None, Talk::Nothing, again);
        process.member.on_lost();
    }

    /// One step of a pool: it dials, its leases end, and it closes what it may not keep.
    fn live(&mut self, process: usize) {
        let now = self.now();
        let is_down = self.time < self.down_until;
        // Among members alone, a dial beyond the limit is a violation.
        let mut free = if self.strangers == 0 { usize::MAX } else { self.limit.saturating_sub(self.taken()) };
        let Self { rng, step, .. } = self;
        let process = &mut self.processes[process];
        if process.cut.is_some() {
            return;
        }
        let limit = process.member.limit();
        let ending = (0..process.busy).filter(|_| rng.f64() < *step / LEASE).count();
        process.busy -= ending;
        if process.held > limit {
            process.held = limit.max(process.busy);
        }
        let wanted = if process.is_draining { 0 } else { process.load };
        while !is_down && process.busy < wanted.min(limit) {
            if process.busy == process.held {
                if free == 0 {
                    process.member.on_refused(now, process.held);
                    break;
                }
                process.held += 1;
                free -= 1;
            }
            process.busy += 1;
        }
        if process.is_draining {
            process.held = process.busy;
        }
        let (held, in_use, is_short) = (process.held, process.busy, process.busy >= limit && wanted >= limit);
        process.member.tick(
            now,
            &Own { held, in_use, waiting: wanted.saturating_sub(in_use), is_short, demand: None, ..Own::default() },
        );
    }

    /// One step of the conversation of a member with the server.
    fn talk(&mut self, index: usize) {
        let (now, time) = (self.now(), self.time);
        let delay = if self.faults.any && self.rng.u8(..20) == 0 { self.rng.f64() * 0.9 } else { 0.002 };
        let is_silent = self.processes[index].silent_until > time || self.processes[index].cut.is_some();
        if is_silent && time - self.processes[index].silent_since > KEEPALIVE {
            self.processes[index].scout = None;
        }
        match std::mem::replace(&mut self.processes[index].talk, Talk::Nothing) {
            Talk::Nothing if time < self.processes[index].next => self.change(index, delay),
            Talk::Nothing if time < self.down_until => {
                let again = time + self.rng.f64() * 2.0;
                self.processes[index].member.on_lost();
                self.processes[index].next = again;
            }
            Talk::Nothing if is_silent => self.processes[index].talk = Talk::Failing(time + LATE),
            Talk::Nothing
                if self.processes[index].scout.is_none() && self.strangers > 0 && self.taken() >= self.limit =>
            {
                let again = time + self.rng.f64() * 2.0;
                let process = &mut self.processes[index];
                process.member.on_lost();
                process.member.on_beacon_refused(now);
                process.next = again;
            }
            Talk::Nothing => {
                if self.processes[index].scout.is_none() {
                    self.processes[index].scout = Some(Scout { process: self.next_process, shown: None });
                    self.next_process += 1;
                }
                let process = &mut self.processes[index];
                let beacon = process.member.beacon();
                let granted = beacon.granted;
                if let Some(scout) = &mut process.scout {
                    scout.shown = Some(beacon);
                }
                process.member.on_shown(granted);
                let reading = self.reading(index);
                self.processes[index].talk = Talk::Answer(time + delay, reading);
            }
            Talk::Answer(at, reading) if time >= at => {
                let process = &mut self.processes[index];
                process.member.on_reading(now, reading);
                let pause = process.member.pause(now, self.rng.f64()).as_secs_f64();
                process.next = time + pause;
                process.talk = Talk::Announcing(time + delay, process.member.beacon());
            }
            Talk::Announcing(_, _) if is_silent => self.processes[index].talk = Talk::Failing(time + LATE),
            Talk::Announcing(at, beacon) if time >= at => {
                let process = &mut self.processes[index];
                process.member.on_shown(beacon.granted);
                if let Some(scout) = &mut process.scout {
                    scout.shown = Some(beacon);
                }
                if process.member.is_claiming() {
                    let reading = self.reading(index);
                    self.processes[index].talk = Talk::Confirming(time + delay, reading);
                }
            }
            Talk::Confirming(at, reading) if time >= at => {
                self.processes[index].member.on_second_reading(now, &reading);
            }
            // The answer did not come. The member gives the connection up, and the server keeps it for a while.
            Talk::Failing(at) if time >= at => {
                let pause = self.rng.f64() * 2.0;
                let process = &mut self.processes[index];
                process.member.on_lost();
                process.next = time + pause;
                if !is_silent {
                    process.scout = None;
                }
            }
            talk => self.processes[index].talk = talk,
        }
    }

    /// Changes the beacon between two readings if something has changed.
    fn change(&mut self, index: usize, delay: f64) {
        let time = self.time;
        let process = &mut self.processes[index];
        let beacon = process.member.beacon();
        let is_other = process.scout.as_ref().is_some_and(|scout| scout.shown.as_ref() != Some(&beacon));
        if is_other && time >= process.next_change {
            process.next_change = time + process.member.change_pause().as_secs_f64();
            process.talk = Talk::Announcing(time + delay, beacon);
        }
    }

    fn reading(&self, index: usize) -> Reading {
        let scouts = self.processes.iter().filter_map(|process| process.scout.as_ref());
        let peers = scouts.filter_map(|scout| {
            let beacon = scout.shown.clone()?;
            Some(Peer { process: scout.process, beacon, is_within: [true; 2] })
        });
        let scope = Scope { limit: self.limit, headroom: None, connections: self.taken() };
        let own = self.processes[index].scout.as_ref().map_or(0, |scout| scout.process);
        Reading { process: own, peers: peers.collect(), scopes: [Some(scope), None, None] }
    }

    /// The server's keepalives end what is left of processes without a network. Drained processes end.
    fn end_cut(&mut self) {
        let time = self.time;
        self.processes.retain(|process| {
            let is_over = process.cut.is_some_and(|since| time - since > KEEPALIVE);
            let is_drained = process.is_draining && process.held == 0;
            !is_over && !is_drained
        });
    }

    fn check(&mut self) {
        let (taken, time) = (self.taken(), self.time);
        if taken > self.limit && self.strangers == 0 {
            let limit = self.limit;
            self.violations.push(format!("at {time:.2} s, {taken} of {limit} connections are taken"));
        }
        for process in self.processes.iter().filter(|process| !process.is_draining) {
            let limit = process.member.limit();
            if limit < self.minimum {
                self.violations.push(format!("at {time:.2} s, a member may use {limit}"));
            }
        }
        self.violations.truncate(5);
    }
}
