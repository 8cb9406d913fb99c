//! A pool, its callers and its server in virtual time. The same seed makes the same path.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::{AdaptiveFinding, AdviceReason, Controller, Pooled, SizeTerms, Wait};
use crate::operation::Operation;
use crate::policy::{EndedLease, Lane};

/// A kind of call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Calls per second.
    pub(super) rate: f64,
    /// The mean seconds of work on the server, and between statements.
    pub(super) server: f64,
    pub(super) client: f64,
    /// Whether its duration is always the same.
    pub(super) is_fixed: bool,
}

impl Kind {
    pub(super) fn new(name: &'static str, rate: f64, server: f64) -> Self {
        Self { name, rate, server, client: 0.0, is_fixed: false }
    }
}

/// The server: how many sessions can work at once, and how sessions that compute beside the pool slow it down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub(super) processors: f64,
    pub(super) burners: f64,
    /// How much each session beyond the processors costs all of them, as a part.
    pub(super) contention: f64,
    /// Seconds that the network adds to each call.
    pub(super) network: f64,
    /// Calls of this name wait for a lock.
    pub(super) locked: Option<&'static str>,
}

impl Server {
    pub(super) fn of(processors: f64) -> Self {
        Self { processors, burners: 0.0, contention: 0.0, network: 0.0, locked: None }
    }

    /// How fast one of so many sessions works.
    fn speed(&self, sessions: f64) -> f64 {
        let all = sessions + self.burners;
        let beyond = (all - self.processors).max(0.0);
        (self.processors / all.max(1e-9)).min(1.0) / (1.0 + self.contention * beyond)
    }
}

#[derive(Debug)]
struct Lease {
    name: &'static str,
    begun: f64,
    server: f64,
    client: f64,
}

pub(super) struct World {
    rng: fastrand::Rng,
    begun: Instant,
    step: f64,
    pub(super) now: f64,
    pub(super) kinds: Vec<Kind>,
    pub(super) server: Server,
    pub(super) controller: Controller,
    pub(super) max_size: usize,
    pub(super) budget: usize,
    /// Without it the pool has all of `max_size`.
    pub(super) is_controlled: bool,
    pub(super) query_timeout: f64,
    acquire_timeout: f64,
    waiting: VecDeque<(f64, &'static str)>,
    leases: Vec<Lease>,
    arrivals: u64,
    left: u64,
    ended: Vec<EndedLease>,
    next_look: f64,
    next_sample: f64,
    caps: Vec<(&'static str, usize)>,
    /// Callers that a cap has refused.
    pub(super) capped: u64,
    pub(super) done: u64,
    /// From arrival to the end, of calls that ended, by name.
    pub(super) took: HashMap<&'static str, Vec<f64>>,
    /// The limit after each change.
    pub(super) limits: Vec<(f64, usize)>,
    pub(super) findings: Vec<(f64, AdaptiveFinding)>,
}

impl World {
    pub(super) fn new(seed: u64, start: usize, max_size: usize, server: Server, kinds: &[Kind]) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            begun: Instant::now(),
            step: 0.002,
            now: 0.0,
            kinds: kinds.to_vec(),
            server,
            controller: Controller::new(true, SizeTerms { max_size, min_idle: 0, start }),
            max_size,
            budget: usize::MAX,
            is_controlled: true,
            query_timeout: 10.0,
            acquire_timeout: 1.0,
            waiting: VecDeque::new(),
            leases: Vec::new(),
            arrivals: 0,
            left: 0,
            ended: Vec::new(),
            next_look: 0.0,
            next_sample: 0.0,
            caps: Vec::new(),
            capped: 0,
            done: 0,
            took: HashMap::new(),
            limits: vec![(0.0, start)],
            findings: Vec::new(),
        }
    }

    /// With longer steps, for a long time.
    pub(super) fn coarse(mut self) -> Self {
        self.step = 0.01;
        self
    }

    /// Only gives advice.
    pub(super) fn advising(mut self) -> Self {
        let (max_size, min_idle, start) = (self.max_size, 0, self.max_size);
        self.controller = Controller::new(false, SizeTerms { max_size, min_idle, start });
        self
    }

    pub(super) fn fixed(mut self) -> Self {
        self.is_controlled = false;
        self
    }

    pub(super) fn limit(&self) -> usize {
        let adaptive = self.controller.limit().filter(|_| self.is_controlled);
        self.max_size.min(self.budget).min(adaptive.unwrap_or(usize::MAX))
    }

    pub(super) fn instant(&self) -> Instant {
        self.begun + Duration::from_secs_f64(self.now)
    }

    pub(super) fn run(&mut self, seconds: f64) {
        let until = self.now + seconds;
        while self.now < until {
            self.now += self.step;
            self.arrive();
            self.work();
            self.hand_out();
            if self.now >= self.next_look {
                self.next_look = self.now + 0.25;
                self.look();
            }
            if self.now >= self.next_sample && self.controller.wants_waits() {
                self.next_sample = self.now + 1.0;
                self.sample();
            }
        }
    }

    fn arrive(&mut self) {
        let mut arrived = Vec::new();
        for Kind { name, rate, .. } in &self.kinds {
            let mut expected = rate * self.step;
            while expected > 0.0 {
                if self.rng.f64() < expected {
                    arrived.push(*name);
                }
                expected -= 1.0;
            }
        }
        // Those that come in the same step come in any order.
        self.rng.shuffle(&mut arrived);
        for name in arrived {
            if self.is_controlled && self.is_refused(name) {
                self.capped += 1;
            } else {
                self.arrivals += 1;
                self.waiting.push_back((self.now, name));
            }
        }
    }

    /// Whether as many calls of this name are under way as its cap allows.
    fn is_refused(&self, name: &str) -> bool {
        let cap = self.caps.iter().find(|(operation, _)| *operation == name);
        cap.is_some_and(|(_, most)| {
            let held = self.leases.iter().filter(|lease| lease.name == name).count();
            held + self.waiting.iter().filter(|(_, waiter)| *waiter == name).count() >= *most
        })
    }

    fn work(&mut self) {
        let is_locked = |lease: &Lease| self.server.locked == Some(lease.name);
        let working = self.leases.iter().filter(|lease| lease.server > 0.0 && !is_locked(lease)).count();
        let done = self.step * self.server.speed(working as f64);
        for lease in &mut self.leases {
            if self.server.locked == Some(lease.name) {
                continue;
            }
            if lease.server > 0.0 {
                lease.server -= done;
            } else {
                lease.client -= self.step;
            }
        }
        let (now, timeout) = (self.now, self.query_timeout);
        let (took, ended, completed) = (&mut self.took, &mut self.ended, &mut self.done);
        self.leases.retain(|lease| {
            let (is_done, lasted) = (lease.server <= 0.0 && lease.client <= 0.0, now - lease.begun);
            let is_cut = !is_done && lasted >= timeout;
            if is_done || is_cut {
                let operation = Operation::Named(lease.name);
                let lasted = Duration::from_secs_f64(lasted);
                ended.push(EndedLease { operation, lane: Lane::Normal, lasted, is_cut });
            }
            if is_done {
                *completed += 1;
                took.entry(lease.name).or_default().push(now - lease.begun);
            }
            !(is_done || is_cut)
        });
    }

    fn hand_out(&mut self) {
        let before = self.waiting.len();
        let (now, timeout) = (self.now, self.acquire_timeout);
        self.waiting.retain(|(asked, _)| now - asked < timeout);
        self.left += (before - self.waiting.len()) as u64;
        while self.leases.len() < self.limit() {
            let Some((_, name)) = self.waiting.pop_front() else { break };
            let kind = self.kinds.iter().find(|kind| kind.name == name).copied().expect("a known kind");
            let factor = if kind.is_fixed { 1.0 } else { -(1.0 - self.rng.f64()).ln() };
            let (server, client) = (kind.server * factor, kind.client + self.server.network);
            self.leases.push(Lease { name, begun: self.now, server, client });
        }
    }

    fn look(&mut self) {
        let now = self.instant();
        let age = |lease: &Lease| Duration::from_secs_f64(self.now - lease.begun);
        let held: Vec<_> = self.leases.iter().map(|lease| (Operation::Named(lease.name), age(lease))).collect();
        let pooled = Pooled {
            in_use: self.leases.len(),
            waiting: self.waiting.len(),
            limit: self.limit(),
            arrivals: self.arrivals,
            left: self.left,
            ended: &self.ended,
            held: &held,
        };
        let before = self.limit();
        let findings = self.controller.look(now, &pooled);
        self.findings.extend(findings.into_iter().map(|finding| (self.now, finding)));
        self.ended.clear();
        let name_of = |operation| match operation {
            Operation::Named(name) => name,
            Operation::At(place) => place.file(),
        };
        self.caps = self.controller.caps().into_iter().map(|(operation, most)| (name_of(operation), most)).collect();
        let limit = self.limit();
        if limit != before {
            self.limits.push((self.now, limit));
        }
        assert!(limit <= self.max_size && limit <= self.budget && limit >= 1);
    }

    fn sample(&mut self) {
        let wait = |lease: &Lease| match lease {
            _ if self.server.locked == Some(lease.name) => Wait::Lock,
            _ if lease.server > 0.0 => Wait::Server,
            _ => Wait::Client,
        };
        let sample = self.leases.iter().map(|lease| (Operation::Named(lease.name), wait(lease))).collect();
        self.controller.on_waits(self.instant(), sample);
    }

    /// Calls per second that ended within the next so many seconds.
    pub(super) fn goodput(&mut self, seconds: f64) -> f64 {
        let before = self.done;
        self.run(seconds);
        (self.done - before) as f64 / seconds
    }

    /// Changes with this reason.
    pub(super) fn changes(&self, reason: AdviceReason) -> usize {
        let is_one = |finding: &AdaptiveFinding| matches!(finding, AdaptiveFinding::Changed { advice } if advice.reason == reason);
        self.findings.iter().filter(|(_, finding)| is_one(finding)).count()
    }

    /// The 99th percentile of what calls took that ended since the last call of this.
    pub(super) fn p99(&mut self, name: &str) -> f64 {
        let mut took = self.took.remove(name).unwrap_or_default();
        took.sort_by(f64::total_cmp);
        took.get(took.len() * 99 / 100).copied().unwrap_or_default()
    }
}
