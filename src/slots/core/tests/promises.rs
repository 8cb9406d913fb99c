//! `retry_after` is true. The promises of a pool that has worked for a while to a refused caller, as long as calls take
//! as long as before:
//!
//! - `QueueFull`, `Hopeless`, `Overloaded`: a caller that comes back at that moment, when no other has come
//!   meanwhile, may wait, and is served in time. Where all connections are given back at once rather than evenly, the
//!   promise holds one lease and one release (and 5%) later, for callers whose budget is two leases.
//! - When no other caller was refused, a caller that comes back more than a lease and two releases (and 5%) earlier is
//!   refused again.
//! - `Unreachable`: until then the answer is the same, less the time that has passed; at that moment a dial begins, and
//!   one caller may wait for it.
//!
//! A promise is an estimate, and may be wrong by 5% and one release. `traces` tests that all callers may obey.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// What callers in a surge have.
const BUDGET: Duration = Duration::from_secs(1);
/// By how much an estimate may be wrong.
const ERROR: f64 = 0.05;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Me,
    Another,
}

#[derive(Debug, Clone, Copy)]
enum Crowd {
    /// So many wait, and are replaced when they have been served.
    Waits { callers: usize, max_waiting: usize, my_budget: Duration },
    /// After one has waited all the time, so many times more come than can be served, for so long.
    Surges { times: f64, lasts: Duration, max_waiting: usize },
}

#[derive(Debug, Clone, Copy)]
struct Scene {
    connections: u32,
    hold: Duration,
    /// All connections are given back at once, not evenly.
    in_step: bool,
    crowd: Crowd,
    /// When I come, between two releases.
    phase: f64,
}

fn scene() -> impl Strategy<Value = Scene> {
    let waits = (1usize..200, 0usize..3, 20u64..2_000).prop_map(|(callers, places, my_budget)| Crowd::Waits {
        callers,
        max_waiting: if places == 0 { callers } else { 1_000 },
        my_budget: Duration::from_millis(my_budget),
    });
    let surges = (1.5..10.0, 300u64..8_000, 1usize..400).prop_map(|(times, lasts, max_waiting)| Crowd::Surges {
        times,
        lasts: Duration::from_millis(lasts),
        max_waiting,
    });
    let crowd = prop_oneof![(waits, any::<bool>()), (surges, Just(false))];
    (1u32..9, 4u64..100, crowd, 0.0..1.0).prop_map(|(connections, hold, (crowd, in_step), phase)| {
        let hold = Duration::from_millis(hold);
        Scene { connections, hold, in_step, crowd, phase }
    })
}

impl Scene {
    /// From one release to the next.
    fn gap(&self) -> Duration {
        self.hold / self.connections
    }

    fn my_budget(&self) -> Duration {
        match self.crowd {
            Crowd::Waits { my_budget, .. } if self.in_step => my_budget + 2 * self.hold,
            Crowd::Waits { my_budget, .. } => my_budget,
            Crowd::Surges { .. } => BUDGET,
        }
    }

    /// Plays up to the moment at which I have been refused. `None` if I am not.
    fn play(&self) -> Option<(Pool, Refusal, Duration)> {
        let mut pool = Pool::busy(self);
        pool.run(pool.now + 4 * pool.kept.1);
        if let Crowd::Surges { times, lasts, .. } = self.crowd {
            pool.kept.0 = 0;
            pool.next = Some((pool.now, self.gap().div_f64(times)));
            pool.run(pool.now + lasts);
        }
        pool.run(pool.now + self.gap().mul_f64(self.phase));
        let refused = pool.ask(Who::Me, self.my_budget()).err()?;
        let Refusal::Shed(ShedReason::QueueFull | ShedReason::Hopeless | ShedReason::Overloaded, wait) = refused else {
            panic!("{refused:?}")
        };
        Some((pool, refused, wait))
    }
}

impl Scene {
    fn comes_back_when_told(&self) -> Result<(), TestCaseError> {
        let Some((mut pool, refused, wait)) = self.play() else { return Ok(()) };
        pool.the_others_stay_away();
        let late = if self.in_step { self.hold + self.gap() + wait.mul_f64(ERROR) } else { Duration::ZERO };
        pool.run(pool.now + wait + late);
        let came = pool.now;
        let again = pool.ask(Who::Me, self.my_budget());
        prop_assert!(again.is_ok(), "first {refused:?}, then {again:?}");
        pool.run(came + self.my_budget() + late);
        let served = pool.served_me.map(|served| served - came);
        prop_assert!(served.is_some(), "{refused:?}, let in, and not served within {:?}", self.my_budget());
        Ok(())
    }
}

/// Found by chance: one release more was needed than the estimate allows for.
#[test]
fn the_promise_of_a_full_queue_in_step_is_true() {
    let crowd = Crowd::Waits { callers: 176, max_waiting: 176, my_budget: Duration::from_millis(1_364) };
    let scene = Scene { connections: 8, hold: 91 * MS, in_step: true, crowd, phase: 0.433_934_887_379_759_7 };
    assert_eq!(scene.my_budget(), Duration::from_millis(1_546));
    scene.comes_back_when_told().expect("a true promise");
}

/// A core whose connections are all at work.
struct Pool {
    core: Core<u32, Who>,
    now: Instant,
    hold: Duration,
    releases: BinaryHeap<Reverse<(Instant, u32)>>,
    held: HashMap<u32, Held<u32>>,
    /// So many are kept waiting, with so much room.
    kept: (usize, Duration),
    /// When the next single caller comes, and the time from one to the next.
    next: Option<(Instant, Duration)>,
    served_me: Option<Instant>,
}

impl Pool {
    fn busy(scene: &Scene) -> Self {
        let now = Instant::now();
        let connections = scene.connections as usize;
        let (max_waiting, kept) = match scene.crowd {
            Crowd::Waits { callers, max_waiting, .. } => (max_waiting, callers),
            Crowd::Surges { max_waiting, .. } => (max_waiting, 1),
        };
        let limits = Limits {
            max_size: connections,
            max_waiting,
            max_connecting: connections,
            wait_budget: BUDGET,
            ages: Ages::default(),
            lanes: Lane::ALL.map(LaneLimits::of),
        };
        let mut pool = Self {
            core: Core::new(now, limits),
            now,
            hold: scene.hold,
            releases: BinaryHeap::new(),
            held: HashMap::new(),
            kept: (kept, BUDGET + 2 * scene.gap() * kept as u32),
            next: None,
            served_me: None,
        };
        pool.core.set_target(connections);
        for dial in pool.core.begin_dials(now).dials {
            pool.core.on_dialed(now, dial, dial as u32);
        }
        pool.core.set_target(0);
        for n in 1..=scene.connections {
            let held = pool.core.take(now, Lane::Normal).expect("idle");
            pool.hold(held, if scene.in_step { scene.hold } else { scene.gap() * n });
        }
        pool.keep();
        pool
    }

    fn hold(&mut self, held: Held<u32>, lasts: Duration) {
        self.releases.push(Reverse((self.now + lasts, held.conn)));
        self.held.insert(held.conn, held);
    }

    fn ask(&mut self, who: Who, wait_budget: Duration) -> Result<(), Refusal> {
        let shedding = if self.kept.0 > 0 && who == Who::Another { Shedding::Off } else { Shedding::Predictive };
        let wait_policy = WaitPolicy {
            deadline: Deadline::after(self.now, wait_budget),
            includes_work: false,
            shedding,
            lane: Lane::Normal,
        };
        if let Entered::Took(held) = self.core.enter(self.now, wait_policy, || who)? {
            self.serve(who, held);
        }
        Ok(())
    }

    fn serve(&mut self, who: Who, held: Held<u32>) {
        if who == Who::Me {
            self.served_me = Some(self.now);
        }
        self.hold(held, self.hold);
    }

    fn keep(&mut self) {
        while self.core.counts().waiting < self.kept.0 {
            self.ask(Who::Another, self.kept.1).expect("not to be refused");
        }
    }

    fn run(&mut self, until: Instant) {
        loop {
            let release = self.releases.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= until);
            let arrival = self.next.filter(|(at, _)| *at <= until && release.is_none_or(|release| *at < release));
            if let Some((at, every)) = arrival {
                self.now = at;
                self.next = Some((at + every, every));
                let _ = self.ask(Who::Another, BUDGET);
            } else if let Some(at) = release {
                self.now = at;
                self.release();
            } else {
                break;
            }
        }
        self.now = until;
    }

    fn release(&mut self) {
        let Some(Reverse((_, conn))) = self.releases.pop() else { return };
        let placed = release(&mut self.core, self.now, self.held.remove(&conn).expect("held"));
        if let Place::Waiter(_, who, held) = placed.to {
            self.serve(who, held);
        }
        self.keep();
    }

    fn the_others_stay_away(&mut self) {
        self.kept.0 = 0;
        self.next = None;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_comes_back_when_told_is_served_in_time(scene in scene()) {
        scene.comes_back_when_told()?;
    }

    #[test]
    fn whoever_comes_back_much_earlier_is_refused_again(scene in scene()) {
        let Some((mut pool, refused, wait)) = scene.play() else { return Ok(()) };
        let Crowd::Waits { .. } = scene.crowd else { return Ok(()) };
        pool.the_others_stay_away();
        let two = 2 * if scene.in_step { scene.hold } else { scene.gap() };
        let early = wait.mul_f64(1.0 - ERROR).saturating_sub(scene.hold + two);
        pool.run(pool.now + early);
        let again = pool.ask(Who::Me, scene.my_budget());
        prop_assert!(again.is_err(), "{refused:?}, yet let in after {early:?}");
    }

    #[test]
    fn until_the_next_dial_the_answer_is_the_same(jitters in prop::collection::vec(0.0..1.0, 1..12), part in 0.0..1.0) {
        let mut now = Instant::now();
        let limits = Limits { max_size: 4, max_waiting: 4, max_connecting: 4, wait_budget: BUDGET, ages: Ages::default(), lanes: Lane::ALL.map(LaneLimits::of) };
        let mut core = Core::<u32, Who>::new(now, limits);
        for jitter in jitters {
            let waits = core.enter(now, patient(now, 1_000), || Who::Me);
            prop_assert!(matches!(waits, Ok(Entered::Waits(_))), "a dial is due: {waits:?}");
            let dials: Vec<_> = core.begin_dials(now).dials.collect();
            prop_assert!(!dials.is_empty(), "a dial begins");
            now += MS;
            dials.into_iter().for_each(|dial| _ = core.on_dial_failed(now, dial, Trouble::Passing, jitter));
            let Err(Refusal::Unreachable((), wait)) = core.enter(now, patient(now, 1_000), || Who::Me) else {
                panic!("nothing is connected");
            };
            prop_assert!(!wait.is_zero() && wait <= 1_000 * MS);
            let passed = wait.mul_f64(part);
            let again = core.enter(now + passed, patient(now, 1_000), || Who::Me);
            prop_assert_eq!(again, Err(Refusal::Unreachable((), wait - passed)));
            prop_assert!(core.begin_dials(now + passed).dials.is_empty());
            now += wait;
        }
    }
}
