//! Lanes: what each is promised, after any steps in any order, and under load in virtual time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::world::{Caller, Outcome, World, seconds, simulate};
use super::*;
use crate::policy::PerLane;

#[derive(Debug, Clone)]
enum Step {
    Enter { lane: usize, wait_ms: u64 },
    Leave(usize),
    Release(usize),
    Retire(usize),
    Dialed,
    DialFailed,
    Closed,
    Advance { ms: u64 },
    Resize(usize),
    Throttle(f64),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0usize..3, 1u64..300).prop_map(|(lane, wait_ms)| Step::Enter { lane, wait_ms }),
        10 => any::<usize>().prop_map(Step::Leave),
        50 => any::<usize>().prop_map(Step::Release),
        5 => any::<usize>().prop_map(Step::Retire),
        40 => Just(Step::Dialed),
        3 => Just(Step::DialFailed),
        5 => Just(Step::Closed),
        20 => (1u64..100).prop_map(|ms| Step::Advance { ms }),
        2 => (1usize..12).prop_map(Step::Resize),
        2 => (0.0..1.0).prop_map(Step::Throttle),
        1 => Just(Step::Flush),
    ]
}

struct Model {
    core: Core<u32, u32>,
    now: Instant,
    waiters: PerLane<Vec<(u32, WaiterId)>>,
    in_use: Vec<Held<u32>>,
    dials: Vec<u64>,
    closing: usize,
    named: u32,
}

impl Model {
    fn new(max_size: usize) -> Self {
        let now = Instant::now();
        let (max_waiting, max_connecting, wait_budget) = (8, 3, 100 * MS);
        let lanes = Lane::ALL.map(LaneLimits::of);
        let limits = Limits { max_size, max_waiting, max_connecting, wait_budget, ages: Ages::default(), lanes };
        let mut core = Core::new(now, limits);
        core.open_lanes();
        let waiters = [Vec::new(), Vec::new(), Vec::new()];
        Self { core, now, waiters, in_use: Vec::new(), dials: Vec::new(), closing: 0, named: 0 }
    }

    fn shares(&self) -> &shares::Shares {
        &self.core.lanes.as_ref().expect("open").shares
    }

    fn used(&self, lane: Lane) -> usize {
        self.in_use.iter().filter(|held| held.lane == Some(lane)).count()
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Enter { lane, wait_ms } => self.enter(Lane::ALL[lane], wait_ms),
            Step::Leave(index) => {
                let all: Vec<_> = self.waiters.iter().flatten().copied().collect();
                if let Some((name, id)) = all.get(index % all.len().max(1)) {
                    self.waiters[id.lane() as usize].retain(|(_, other)| other != id);
                    assert_eq!(self.core.leave(*id), Some(*name));
                }
            }
            Step::Release(index) if !self.in_use.is_empty() => {
                let held = self.in_use.remove(index % self.in_use.len());
                let placed = release(&mut self.core, self.now, held);
                self.placed(placed);
            }
            Step::Retire(index) if !self.in_use.is_empty() => {
                let held = self.in_use.remove(index % self.in_use.len());
                self.core.retire(self.now, held.ended());
                self.closing += 1;
            }
            Step::Dialed if !self.dials.is_empty() => {
                self.named += 1;
                let placed = self.core.on_dialed(self.now, self.dials.remove(0), self.named);
                self.placed(placed);
            }
            Step::DialFailed if !self.dials.is_empty() => {
                let refused = self.core.on_dial_failed(self.now, self.dials.remove(0), Trouble::Passing, 0.5);
                self.dismissed(&refused);
            }
            Step::Closed if self.closing > 0 => {
                self.closing -= 1;
                self.core.on_closed();
            }
            Step::Advance { ms } => self.now += Duration::from_millis(ms),
            Step::Resize(size) => self.closing += self.core.resize(self.now, size).len(),
            Step::Throttle(share) => self.core.set_background_share(share),
            Step::Flush => self.closing += self.core.flush(self.now).len(),
            _ => {}
        }
        while let Some(placed) = self.core.hand_idle(self.now) {
            self.placed(placed);
        }
        let begin = self.core.begin_dials(self.now);
        self.dials.extend(begin.dials);
        if begin.ask_again.is_some() {
            self.core.on_asked_again();
        }
        self.check();
    }

    fn enter(&mut self, lane: Lane, wait_ms: u64) {
        self.named += 1;
        let (name, available) = (self.named, self.core.available_to(lane));
        let wait_policy = WaitPolicy { lane, ..patient(self.now, wait_ms) };
        match self.core.enter(self.now, wait_policy, || name) {
            Ok(Entered::Took(held)) => {
                assert!(available > 0 && self.waiters[lane as usize].is_empty(), "{lane} took what it may not");
                self.in_use.push(held);
            }
            Ok(Entered::Waits(id)) => self.waiters[lane as usize].push((name, id)),
            Err(Refusal::Shed(ShedReason::QueueFull, _)) => assert_eq!(self.waiters[lane as usize].len(), 8),
            Err(Refusal::Unreachable(..)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    fn placed(&mut self, placed: Placed<u32, u32>) {
        for (id, name, why) in placed.refused {
            assert_eq!((self.waiters[id.lane() as usize].remove(0), why), ((name, id), Refusal::TimedOut));
        }
        match placed.to {
            Place::Waiter(id, name, held) => {
                let lane = id.lane();
                assert_eq!(held.lane, Some(lane));
                assert_eq!(self.waiters[lane as usize].remove(0), (name, id), "in order within a lane");
                self.in_use.push(held);
                for higher in Lane::ALL.into_iter().take(lane as usize) {
                    let may = self.shares().in_use(higher) < self.shares().at_most(higher);
                    let was_passed = may && !self.waiters[higher as usize].is_empty();
                    let is_guarantee = self.used(lane) <= self.shares().guaranteed(lane);
                    let is_kept = Lane::ALL.into_iter().any(|lane| self.shares().owed(lane) > 0);
                    assert!(!was_passed || is_guarantee || is_kept, "{lane} passed {higher}");
                }
            }
            Place::Idle => {}
            Place::Closing(_) => self.closing += 1,
        }
    }

    fn dismissed(&mut self, refused: &[(WaiterId, u32)]) {
        for (id, _) in refused {
            self.waiters[id.lane() as usize].retain(|(_, other)| other != id);
        }
    }

    fn check(&mut self) {
        for lane in Lane::ALL {
            assert_eq!(self.used(lane), self.shares().in_use(lane), "{lane}");
            assert_eq!(self.waiters[lane as usize].len(), self.core.line(lane).queue.len(), "{lane}");
        }
        assert!(self.core.idle.is_empty() || self.core.next_lane(self.now).is_none(), "a caller waits for nothing");
        let is_waiting = self.core.next_lane(self.now).is_some();
        let somebody_comes = !self.dials.is_empty() || self.closing > 0 || self.core.dials_are_failing();
        assert!(
            !is_waiting || somebody_comes || !self.core.has_free_slot(),
            "no dial for a waiter that may have a slot"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn promises_are_kept_after_any_steps(max_size in 1usize..12, steps in prop::collection::vec(step(), 0..300)) {
        let mut model = Model::new(max_size);
        for step in &steps {
            model.apply(step);
        }
        while let Some(held) = model.in_use.pop() {
            let placed = release(&mut model.core, model.now, held);
            model.placed(placed);
        }
    }
}

/// A core with so many idle connections, whose lanes are open.
fn idle(max_size: usize) -> (Core<u32, u32>, Instant) {
    let mut model = Model::new(max_size);
    connect(&mut model.core, model.now, max_size);
    (model.core, model.now)
}

/// Dials until so many connections are idle or in use.
fn connect(core: &mut Core<u32, u32>, now: Instant, connections: usize) {
    core.set_target(connections);
    while core.counts().idle + core.counts().in_use < connections {
        for dial in core.begin_dials(now).dials {
            core.on_dialed(now, dial, dial as u32);
        }
    }
    core.set_target(0);
}

/// Critical and Normal use all that they may: Critical its four connections, for `lease` each, and Normal one after the
/// other of its fifteen, one each 10 ms. Callers of both wait.
struct Crowd {
    core: Core<u32, u32>,
    now: Instant,
    held: PerLane<VecDeque<Held<u32>>>,
}

impl Crowd {
    fn new() -> Self {
        let (mut core, now) = idle(20);
        let held = [Lane::Critical, Lane::Normal, Lane::Background].map(|lane| match lane {
            Lane::Critical => (0..4).map(|_| core.take(now, lane).unwrap()).collect(),
            Lane::Normal => std::iter::from_fn(|| core.take(now, lane)).collect(),
            Lane::Background => VecDeque::new(),
        });
        assert_eq!(held.each_ref().map(VecDeque::len), [4, 15, 0]);
        Self { core, now, held }
    }

    /// The oldest lease of a lane ends, and a caller that waits gets the connection.
    fn hand_over(&mut self, lane: Lane) {
        let wait_policy = WaitPolicy { lane, shedding: Shedding::Off, ..patient(self.now, 100) };
        assert!(matches!(self.core.enter(self.now, wait_policy, || 0), Ok(Entered::Waits(_))));
        let mut held = self.held[lane as usize].pop_front().unwrap();
        held.mark_used();
        let Place::Waiter(_, _, next) = release(&mut self.core, self.now, held).to else { panic!("it waits") };
        self.held[lane as usize].push_back(next);
    }

    fn run(&mut self, lasts: Duration, lease: Option<Duration>) {
        let until = self.now + lasts;
        let mut next = lease.map(|lease| self.now + lease);
        while self.now < until {
            self.now += 10 * MS;
            self.hand_over(Lane::Normal);
            if next.is_some_and(|next| self.now >= next) {
                (0..4).for_each(|_| self.hand_over(Lane::Critical));
                next = lease.map(|lease| self.now + lease);
            }
        }
    }

    /// How many newcomers of Critical may wait that have 100 ms.
    fn admitted(&mut self) -> usize {
        let hurried = WaitPolicy { lane: Lane::Critical, shedding: Shedding::Predictive, ..patient(self.now, 100) };
        (0..8).take_while(|_| self.core.enter(self.now, hurried, || 9).is_ok()).count()
    }
}

/// By its own leases of 160 ms alone, Critical would have room for a few waiters.
#[test]
fn a_lane_counts_on_what_lower_lanes_give_back() {
    let mut crowd = Crowd::new();
    crowd.run(1_600 * MS, Some(160 * MS));
    assert_eq!(crowd.admitted(), 8);
}

#[test]
fn a_lane_that_lower_lanes_give_way_to_is_not_stalled() {
    let mut crowd = Crowd::new();
    crowd.run(800 * MS, Some(40 * MS));
    crowd.run(120 * MS, None);
    assert_eq!(crowd.admitted(), 8);
}

/// Background had leases of 10 s. It has none of the two connections that it is guaranteed, so it gets the next two.
#[test]
fn a_caller_whose_lane_is_owed_a_connection_waits_whatever_is_predicted() {
    let (mut core, begun) = idle(10);
    let mut limits = Lane::ALL.map(LaneLimits::of);
    limits[Lane::Background as usize].guaranteed = Some(0.2);
    core.lanes.as_mut().expect("open").shares = shares::Shares::new(limits, 10);
    for _ in 0..100 {
        let mut held = core.take(begun, Lane::Normal).unwrap();
        held.mark_used();
        release(&mut core, begun + MS, held);
    }
    let background = WaitPolicy { lane: Lane::Background, shedding: Shedding::Off, ..patient(begun, 100_000) };
    let reports: Vec<_> = std::iter::from_fn(|| core.take(begun, Lane::Background)).collect();
    assert_eq!(reports.len(), 5);
    for n in 0..5 {
        assert!(matches!(core.enter(begun, background, || n), Ok(Entered::Waits(_))));
    }
    let now = begun + 10_000 * MS;
    let next = reports.into_iter().map(|mut held| {
        held.mark_used();
        let placed = release(&mut core, now, held);
        let Place::Waiter(_, _, next) = placed.to else { panic!("{placed:?}") };
        next
    });
    for held in next.collect::<Vec<_>>() {
        core.retire(now, held.ended());
        core.on_closed();
    }
    connect(&mut core, now, 10);
    let mut normal: Vec<_> = std::iter::from_fn(|| core.take(now, Lane::Normal)).collect();
    assert_eq!(normal.len(), 9, "all but one of Critical's are lent");
    let hurried = WaitPolicy { shedding: Shedding::Predictive, ..background };
    let hurried = WaitPolicy { deadline: Deadline::after(now, 100 * MS), ..hurried };
    let predicted = core.predicted_seconds(Lane::Background, core.time(now)).unwrap();
    assert!(predicted > 1.0, "{predicted} s");
    for n in [7, 8] {
        assert!(matches!(core.enter(now, hurried, || n), Ok(Entered::Waits(_))));
    }
    assert!(matches!(core.enter(now, hurried, || 9), Err(Refusal::Shed(ShedReason::Hopeless, _))));
    for n in [7, 8] {
        let placed = release(&mut core, now + MS, normal.remove(0));
        assert!(matches!(placed.to, Place::Waiter(_, waiter, _) if waiter == n), "{placed:?}");
    }
}

/// Callers wait beside idle connections that are kept for other lanes. That is no reason to check these.
#[test]
fn connections_kept_for_others_are_not_checked_for_a_waiter() {
    let (mut core, now) = idle(10);
    let _normal: Vec<_> = std::iter::from_fn(|| core.take(now, Lane::Normal)).collect();
    assert!(matches!(core.enter(now, patient(now, 1_000), || 7), Ok(Entered::Waits(_))));
    assert!(core.begin_due_check(now).is_none());
    assert_eq!(core.counts().idle, 3);
}

/// What the pool itself uses is in no lane, also if lanes are opened meanwhile.
#[test]
fn the_pool_looks_at_the_server_whatever_lanes_may_use() {
    let (mut core, now) = idle(10);
    let _normal: Vec<_> = std::iter::from_fn(|| core.take(now, Lane::Normal)).collect();
    assert_eq!(core.counts().idle, 3, "kept for the others");
    let borrowed = core.borrow(now).unwrap();
    assert_eq!(core.in_use_of(Lane::Normal), 7);
    release(&mut core, now, borrowed);
    assert_eq!((core.counts().idle, core.used_by_pool), (3, 0));
}

/// A lease that was dropped before its caller had it says nothing about the leases of its lane.
#[test]
fn leases_without_a_caller_are_no_evidence_for_lending() {
    let (mut core, now) = idle(20);
    for _ in 0..200 {
        let held = core.take(now, Lane::Background).unwrap();
        release(&mut core, now, held);
    }
    let _background: Vec<_> = std::iter::from_fn(|| core.take(now, Lane::Background)).collect();
    core.take(now, Lane::Normal).unwrap();
    assert!(!core.lanes.as_ref().unwrap().shares.may_borrow[Lane::Background as usize]);
}

/// Callers of a lane: how many come in a second, how long their leases take and how long they can wait, in seconds.
#[derive(Clone, Copy)]
struct Traffic {
    lane: Lane,
    rate: f64,
    lease: f64,
    budget: f64,
    from: f64,
    until: f64,
}

/// Callers come at random, and leases vary by a third.
fn callers(traffic: &[Traffic], seed: u64) -> Vec<Caller> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut callers = Vec::new();
    for Traffic { lane, rate, lease, budget, from, until } in traffic.iter().copied() {
        let mut at = from;
        loop {
            at -= (1.0 - random.f64()).ln() / rate;
            if at > until {
                break;
            }
            callers.push(Caller { lane, ..Caller::new(at, lease * (0.67 + 0.66 * random.f64()), budget) });
        }
    }
    callers.sort_by_key(|caller| caller.arrives);
    callers
}

/// The part of a lane's callers that was served, and the 99th percentile of their waits in seconds.
fn result(callers: &[Caller], outcomes: &[Outcome], lane: Lane) -> (f64, f64) {
    let of_lane = callers.iter().zip(outcomes).filter(|(caller, _)| caller.lane == lane);
    let waits = of_lane.clone().filter_map(|(caller, outcome)| match outcome {
        Outcome::Served { begins, .. } => Some(begins - caller.arrives),
        Outcome::Refused { .. } => None,
    });
    let mut waits: Vec<_> = waits.collect();
    waits.sort_unstable();
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or_default();
    (waits.len() as f64 / of_lane.count() as f64, seconds(p99))
}

fn world(lease: f64) -> World {
    World { includes_work: false, ..World::new(20, lease, 1.0) }
}

const SOME: Traffic = Traffic { lane: Lane::Normal, rate: 100.0, lease: 0.02, budget: 1.0, from: 0.0, until: 20.0 };
/// Nearly a third of a pool of 20.
const LOGINS: Traffic = Traffic { lane: Lane::Critical, rate: 300.0, ..SOME };

#[test]
fn a_flood_in_a_lower_lane_does_not_touch_critical() {
    let floods = [
        (Lane::Background, 0.05, 0.01),
        (Lane::Background, 2.0, 0.01),
        (Lane::Normal, 0.05, 0.02),
        (Lane::Normal, 0.2, 0.04), // Critical has a fifth of the pool, and waits for more
    ];
    for (lane, lease, longest) in floods {
        let flood = Traffic { lane, rate: 20.0 * 20.0 / lease, lease, from: 5.0, until: 15.0, ..SOME };
        let callers = callers(&[LOGINS, flood], 7);
        let (all, outcomes) = simulate(&world(0.02), &callers);
        let (served, p99) = result(&all, &outcomes, Lane::Critical);
        let (flooded, _) = result(&all, &outcomes, lane);
        println!("{lane} {lease}: critical {served:.4}, p99 {:.1} ms; flood {flooded:.3}", p99 * 1e3);
        assert_eq!(served, 1.0, "{lane} {lease}");
        assert!(p99 < longest, "{lane} {lease}: {p99}");
    }
}

#[test]
fn a_spike_of_twelve_times_leaves_critical_alone() {
    let calm = Traffic { lane: Lane::Background, rate: 80.0, lease: 0.05, ..SOME };
    let spike = Traffic { rate: 12.0 * 80.0, from: 8.0, until: 12.0, ..calm };
    let (all, outcomes) = simulate(&world(0.02), &callers(&[LOGINS, SOME, calm, spike], 7));
    assert!(result(&all, &outcomes, Lane::Critical).0 >= 0.999);
    assert!(result(&all, &outcomes, Lane::Normal).0 >= 0.999);
}

/// What a lane does alone, when the pool knows of others, beside a pool without lanes.
#[test]
fn one_lane_alone_gets_what_a_pool_without_lanes_gives() {
    let touch = Traffic { lane: Lane::Critical, rate: 1.0, lease: 0.001, until: 3.0, ..SOME };
    for (load, least) in [(0.7, 0.999), (0.9, 0.97), (1.5, 0.93)] {
        let alone = Traffic { rate: load * 20.0 / 0.02, ..SOME };
        let served = |traffic: &[Traffic]| {
            let (all, outcomes) = simulate(&world(0.02), &callers(traffic, 7));
            result(&all, &outcomes, Lane::Normal).0
        };
        let (with, without) = (served(&[touch, alone]), served(&[alone]));
        println!("load {load}: {with:.3} with lanes, {without:.3} without");
        assert!(with >= least * without, "load {load}: {with} of {without}");
    }
}

#[test]
fn long_leases_never_have_a_slot_that_is_critical_s() {
    let reports = Traffic { lane: Lane::Background, rate: 20.0, lease: 10.0, ..SOME };
    let slow = Traffic { lane: Lane::Normal, rate: 20.0, lease: 10.0, ..SOME };
    let logins = Traffic { from: 5.0, rate: 100.0, ..LOGINS };
    let (all, outcomes) = simulate(&world(10.0), &callers(&[reports, slow, logins], 7));
    assert_eq!(result(&all, &outcomes, Lane::Critical).0, 1.0);
    let mut changes: Vec<(u64, i32)> = Vec::new();
    for (caller, outcome) in all.iter().zip(&outcomes) {
        if let (true, Outcome::Served { begins, lease }) = (caller.lane != Lane::Critical, outcome) {
            changes.extend([(*begins, 1), (begins + lease, -1)]);
        }
    }
    changes.sort_unstable();
    let mut held = 0;
    let most = changes.into_iter().map(|(_, change)| {
        held += change;
        held
    });
    assert_eq!(most.max(), Some(16), "4 of 20 are Critical's");
}
