//! The core against a model. After any steps in any order, both agree on which caller got which connection, and on the
//! number of slots in each state.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Enter { wait_ms: u64 },
    Leave(usize),
    Release(usize),
    Prove(usize),
    Settle(usize),
    Settled(usize),
    NotSettled(usize),
    Retire(usize, f64),
    Dialed(usize),
    DialFailed(f64),
    DialIsQuiet(usize),
    CheckServer,
    Closed,
    Advance { ms: u64 },
    AskAgain,
    Detach(usize),
    Resize(usize),
    Flush,
    Want(usize),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (1u64..300).prop_map(|wait_ms| Step::Enter { wait_ms }),
        20 => any::<usize>().prop_map(Step::Leave),
        40 => any::<usize>().prop_map(Step::Release),
        20 => any::<usize>().prop_map(Step::Prove),
        10 => any::<usize>().prop_map(Step::Settle),
        10 => any::<usize>().prop_map(Step::Settled),
        3 => any::<usize>().prop_map(Step::NotSettled),
        10 => (any::<usize>(), 0.0..1.0).prop_map(|(index, jitter)| Step::Retire(index, jitter)),
        40 => any::<usize>().prop_map(Step::Dialed),
        10 => (0.0..1.0).prop_map(Step::DialFailed),
        20 => any::<usize>().prop_map(Step::DialIsQuiet),
        5 => Just(Step::CheckServer),
        10 => Just(Step::Closed),
        20 => (1u64..400).prop_map(|ms| Step::Advance { ms }),
        10 => Just(Step::AskAgain),
        4 => any::<usize>().prop_map(Step::Detach),
        5 => (1usize..8).prop_map(Step::Resize),
        3 => Just(Step::Flush),
        5 => (0usize..5).prop_map(Step::Want),
        1 => Just(Step::Close),
    ]
}

/// The simplest pool that follows the rules: lists only.
struct ReferenceModel {
    core: Core<u32, u32>,
    limits: Limits,
    now: Instant,
    waiters: Vec<(u32, WaiterId, Deadline)>,
    /// Each with its generation.
    idle: Vec<(u32, u32)>,
    in_use: Vec<Held<u32>>,
    settling: Vec<Held<u32>>,
    dials: Vec<(u64, u32)>,
    closing: usize,
    generation: u32,
    /// Slots taken before the limit was lowered.
    most: usize,
    will_ask: bool,
    named: u32,
    closed: bool,
}

impl ReferenceModel {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            core: Core::new(now, limits),
            limits,
            now,
            waiters: Vec::new(),
            idle: Vec::new(),
            in_use: Vec::new(),
            settling: Vec::new(),
            dials: Vec::new(),
            closing: 0,
            generation: 0,
            most: limits.max_size,
            will_ask: false,
            named: 0,
            closed: false,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Enter { wait_ms } => self.enter(Duration::from_millis(*wait_ms)),
            Step::Leave(index) if !self.waiters.is_empty() => {
                let (name, id, _) = self.waiters.remove(index % self.waiters.len());
                assert_eq!(self.core.leave(id), Some(name));
                assert_eq!(self.core.leave(id), None);
            }
            Step::Release(index) if !self.in_use.is_empty() => {
                let held = self.in_use.remove(index % self.in_use.len());
                let generation = held.birth.generation;
                let placed = release(&mut self.core, self.now, held);
                self.placed(placed, generation);
            }
            Step::Prove(index) if !self.in_use.is_empty() => {
                let index = index % self.in_use.len();
                self.core.prove(&mut self.in_use[index]);
            }
            Step::Settle(index) if !self.in_use.is_empty() => {
                self.settling.push(self.in_use.remove(index % self.in_use.len()));
                self.core.settle();
            }
            Step::Settled(index) if !self.settling.is_empty() => {
                let held = self.settling.remove(index % self.settling.len());
                let generation = held.birth.generation;
                self.core.on_settled();
                let placed = release(&mut self.core, self.now, held);
                self.placed(placed, generation);
            }
            Step::NotSettled(index) if !self.settling.is_empty() => {
                self.settling.remove(index % self.settling.len());
                self.closing += 1;
                self.core.on_settled();
                self.core.retire(self.now, ENDED);
            }
            Step::Retire(index, jitter) if !self.in_use.is_empty() => {
                let held = self.in_use.remove(index % self.in_use.len());
                self.closing += 1;
                self.core.retire(self.now, ENDED);
                if held.is_unproven() {
                    let failed = self.core.on_failed_before_first_use(self.now, *jitter);
                    self.failed(failed);
                }
            }
            Step::Detach(index) if !self.in_use.is_empty() => {
                self.in_use.remove(index % self.in_use.len());
                self.core.detach(self.now, ENDED);
            }
            Step::Dialed(index) if !self.dials.is_empty() => {
                let (number, generation) = self.dials.remove(index % self.dials.len());
                self.named += 1;
                let placed = self.core.on_dialed(self.now, number, self.named);
                self.placed(placed, generation);
            }
            Step::DialIsQuiet(index) if !self.dials.is_empty() => {
                let (number, _) = self.dials[index % self.dials.len()];
                self.core.on_dial_quiet(number);
            }
            Step::CheckServer => {
                let check = self.core.begin_check(self.now);
                self.dials.extend(check.map(|number| (number, self.generation)));
            }
            Step::DialFailed(jitter) if !self.dials.is_empty() => {
                let (number, _) = self.dials.remove(0);
                let failed = self.core.on_dial_failed(self.now, number, Trouble::Passing, *jitter);
                self.failed(failed);
            }
            Step::Resize(max_size) => {
                self.most = self.taken().max(*max_size);
                self.limits.max_size = *max_size;
                let ended = self.core.resize(self.now, *max_size);
                let surplus = (self.idle.len() + self.held()).saturating_sub(*max_size).min(self.idle.len());
                let expected: Vec<_> = self.idle.drain(..surplus).map(|(conn, _)| conn).collect();
                assert_eq!(ended, expected, "the oldest");
                self.closing += surplus;
            }
            Step::Flush => {
                self.generation += 1;
                let expected: Vec<_> = self.idle.drain(..).map(|(conn, _)| conn).collect();
                self.closing += expected.len();
                assert_eq!(self.core.flush(self.now), expected);
            }
            Step::Want(connections) => self.core.set_target(*connections),
            Step::Closed if self.closing > 0 => {
                self.closing -= 1;
                self.core.on_closed();
            }
            Step::Advance { ms } => self.now += Duration::from_millis(*ms),
            Step::AskAgain if self.will_ask => {
                self.will_ask = false;
                self.core.on_asked_again();
            }
            Step::Close => {
                let (idle, failed, _) = self.core.close(self.now);
                assert_eq!(failed, self.waiters.drain(..).map(|(name, id, _)| (id, name)).collect::<Vec<_>>());
                assert_eq!(idle, self.idle.drain(..).map(|(conn, _)| conn).collect::<Vec<_>>());
                self.closing += idle.len();
                self.closed = true;
            }
            _ => {}
        }
        self.dial();
        self.check();
    }

    fn enter(&mut self, wait_policy: Duration) {
        self.named += 1;
        let (name, deadline) = (self.named, Deadline::after(self.now, wait_policy));
        let wait_policy = WaitPolicy { deadline, ..patient(self.now, 0) };
        let entered = match self.core.take_fast(0) {
            Some(held) => Ok(Entered::Took(held)),
            None => self.core.enter(self.now, wait_policy, || name),
        };
        match entered {
            Ok(Entered::Took(held)) => {
                assert_eq!(self.idle.pop(), Some((held.conn, held.birth.generation)), "the freshest");
                self.in_use.push(held);
            }
            Ok(Entered::Waits(id)) => {
                assert!(self.idle.is_empty(), "a caller waits while a connection is idle");
                self.waiters.push((name, id, deadline));
            }
            Err(Refusal::Shed(ShedReason::QueueFull, _)) => assert_eq!(self.waiters.len(), self.limits.max_waiting),
            Err(Refusal::Unreachable((), wait)) => {
                assert!(wait <= 1_000 * MS);
                assert_eq!(self.idle.len() + self.held() + self.dials.len(), 0);
            }
            Err(Refusal::Closed) => assert!(self.closed),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn failed(&mut self, failed: Vec<(WaiterId, u32)>) {
        if !failed.is_empty() {
            assert_eq!(self.idle.len() + self.held() + self.dials.len(), 0);
            assert_eq!(failed, self.waiters.drain(..).map(|(name, id, _)| (id, name)).collect::<Vec<_>>());
        }
    }

    fn placed(&mut self, placed: Placed<u32, u32>, generation: u32) {
        for (id, name, why) in placed.refused {
            let (first, place, deadline) = self.waiters.remove(0);
            assert_eq!((id, name, why), (place, first, Refusal::TimedOut));
            assert!(deadline.has_passed(self.now));
        }
        let live = self.idle.len() + self.held() + self.dials.len();
        let is_surplus = self.closed || live >= self.limits.max_size || generation != self.generation;
        match placed.to {
            Place::Waiter(id, name, held) => {
                let (first, place, deadline) = self.waiters.remove(0);
                assert_eq!((id, name), (place, first), "a caller overtook another");
                assert!(!deadline.has_passed(self.now) && !is_surplus);
                self.in_use.push(held);
            }
            Place::Idle => {
                assert!(self.waiters.is_empty() && !is_surplus);
                let idle = self.core.idle.last().expect("just placed");
                self.idle.push((idle.conn, idle.birth.generation));
            }
            Place::Closing(_) => {
                assert!(is_surplus);
                self.closing += 1;
            }
        }
    }

    fn dial(&mut self) {
        let begin = self.core.begin_dials(self.now);
        self.dials.extend(begin.dials.map(|number| (number, self.generation)));
        self.will_ask |= begin.ask_again.is_some();
    }

    /// Connections in use, also those that are being settled or checked.
    fn held(&self) -> usize {
        self.in_use.len() + self.settling.len()
    }

    fn taken(&self) -> usize {
        self.dials.len() + self.idle.len() + self.held() + self.closing
    }

    fn check(&mut self) {
        let expected = SlotCounts {
            arrivals: self.core.counts().arrivals,
            served_at_once: self.core.counts().served_at_once,
            limit: self.limits.max_size,
            dialing: self.dials.len(),
            idle: self.idle.len(),
            in_use: self.in_use.len(),
            settling: self.settling.len(),
            closing: self.closing,
            waiting: self.waiters.len(),
            max_waiting: self.limits.max_waiting,
            is_open: !self.closed,
        };
        assert_eq!(self.core.counts(), expected);
        self.most = self.most.min(self.taken().max(self.limits.max_size));
        assert!(self.dials.len() <= self.limits.max_connecting);
        assert!(self.taken() <= self.most, "never more than the limit; after it was lowered, never more than before");
        if !self.waiters.is_empty() {
            let somebody_comes = self.dials.len() + self.held() + self.closing > 0 || self.will_ask;
            assert!(somebody_comes, "no wake-up is lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// After any steps in any order, the core agrees with the model. In the end the slots add up.
    #[test]
    fn agrees_with_the_reference_model(
        max_size in 1usize..6,
        max_waiting in 0usize..8,
        max_connecting in 1usize..4,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut model = ReferenceModel::new(Limits { max_size, max_waiting, max_connecting, wait_budget: 100 * MS, ages: Ages::default(), lanes: Lane::ALL.map(LaneLimits::of) });
        for step in &steps {
            model.apply(step);
        }
        model.apply(&Step::Close);
        while !model.in_use.is_empty() {
            model.apply(&Step::Release(0));
        }
        while !model.settling.is_empty() {
            model.apply(&Step::Settled(0));
        }
        while !model.dials.is_empty() {
            model.apply(&Step::Dialed(0));
        }
        while model.closing > 0 {
            model.apply(&Step::Closed);
        }
        let counts = model.core.counts();
        let taken = counts.dialing + counts.idle + counts.in_use + counts.settling + counts.closing;
        prop_assert_eq!(taken + counts.waiting, 0);
    }
}
