use proptest::prelude::*;

use super::*;
use crate::policy::{Deadline, Shedding};

mod simulation;

const MS: Duration = Duration::from_millis(1);
const LIMITS: Limits = Limits { max_size: 2, max_waiting: 2, max_connecting: 2, room: Duration::from_secs(1) };

type TestCore = Core<u32, char>;

fn core() -> (TestCore, Instant) {
    limited(LIMITS)
}

fn limited(limits: Limits) -> (TestCore, Instant) {
    let now = Instant::now();
    (Core::new(now, limits), now)
}

fn patient(now: Instant, millis: u64) -> Patience {
    Patience {
        deadline: Deadline::after(now, Duration::from_millis(millis)),
        includes_work: false,
        shedding: Shedding::QueueOnly,
    }
}

/// Joins the queue.
fn wait(core: &mut TestCore, now: Instant, name: char) -> WaiterId {
    match core.enter(now, patient(now, 60_000), || name) {
        Ok(Entered::Waits(id)) => id,
        other => panic!("{name} should wait: {other:?}"),
    }
}

/// How many dials are begun now.
fn begin(core: &mut TestCore, now: Instant) -> Vec<u64> {
    core.begin_dials(now).dials.collect()
}

/// Dials one connection that stays idle.
fn connect(core: &mut TestCore, now: Instant, conn: u32) {
    let id = wait(core, now, '-');
    let dial = begin(core, now)[0];
    core.leave(now, id);
    assert_eq!(core.dialed(now, dial, conn).0.to, Place::Idle);
}

/// Takes an idle connection.
fn take(core: &mut TestCore, now: Instant, expected: u32) -> Held<u32> {
    let held = core.take(now).expect("an idle connection");
    assert_eq!(held.conn, expected);
    held
}

/// Who got which connection.
fn handed(placed: Placed<u32, char>) -> (char, Held<u32>) {
    match placed.to {
        Place::Waiter(name, held) => (name, held),
        other => panic!("should be handed over: {other:?}"),
    }
}

#[test]
fn the_freshest_idle_connection_is_taken_first() {
    let (mut core, now) = core();
    wait(&mut core, now, 'a');
    wait(&mut core, now, 'b');
    let dials = begin(&mut core, now);
    let (a, one) = handed(core.dialed(now, dials[0], 1).0);
    let (b, two) = handed(core.dialed(now, dials[1], 2).0);
    assert_eq!((a, one.conn, b, two.conn), ('a', 1, 'b', 2));
    assert_eq!(core.release(now, two).to, Place::Idle);
    assert_eq!(core.release(now, one).to, Place::Idle);
    take(&mut core, now, 1);
    take(&mut core, now, 2);
    assert_eq!(core.take(now), None);
}

#[test]
fn whichever_comes_first_serves_the_first_waiter() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    let dial = begin(&mut core, now)[0];
    let (name, held) = handed(core.release(now, held));
    assert_eq!((name, held.conn), ('a', 1));
    assert_eq!(core.dialed(now, dial, 2).0.to, Place::Idle);
}

#[test]
fn a_full_queue_refuses() {
    let (mut core, now) = core();
    wait(&mut core, now, 'a');
    wait(&mut core, now, 'b');
    let refused = core.enter(now, patient(now, 1_000), || panic!("not asked"));
    assert!(matches!(refused, Err(Refused::QueueFull(_))), "{refused:?}");
    let endless = Patience { shedding: Shedding::Off, ..patient(now, 1_000) };
    assert!(core.enter(now, endless, || 'c').is_ok());
}

#[test]
fn a_waiter_past_its_deadline_is_passed_over() {
    let (mut core, now) = core();
    assert!(core.enter(now, patient(now, 10), || 'a').is_ok());
    wait(&mut core, now, 'b');
    let dial = begin(&mut core, now)[0];
    let placed = core.dialed(now + 10 * MS, dial, 1).0;
    assert_eq!(placed.refused, [('a', Refused::Expired)]);
    assert_eq!(handed(placed).0, 'b');
}

#[test]
fn no_connection_is_spent_on_a_call_that_could_not_finish() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    assert_eq!(core.release(now + 20 * MS, held).to, Place::Idle);
    let now = now + 20 * MS;
    let held = take(&mut core, now, 1);
    let call = |millis| Patience { includes_work: true, shedding: Shedding::Predictive, ..patient(now, millis) };
    assert!(core.enter(now, call(35), || 'a').is_ok());
    assert!(core.enter(now, call(41), || 'b').is_ok());
    let placed = core.release(now + 20 * MS, held);
    assert!(matches!(placed.refused[..], [('a', Refused::TooLate(_))]), "{placed:?}");
    assert_eq!(handed(placed).0, 'b');
}

#[test]
fn no_dial_is_begun_for_one_who_left() {
    let (mut core, now) = core();
    let id = wait(&mut core, now, 'a');
    assert_eq!(core.leave(now, id), Some('a'));
    assert!(begin(&mut core, now).is_empty());
}

#[test]
fn at_most_max_connecting_dials_at_once() {
    let (mut core, now) = limited(Limits { max_size: 50, max_waiting: 50, max_connecting: 4, ..LIMITS });
    for _ in 0..50 {
        wait(&mut core, now, 'a');
    }
    let dials = begin(&mut core, now);
    assert_eq!(dials.len(), 4);
    assert!(begin(&mut core, now).is_empty());
    core.dialed(now, dials[2], 1);
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn a_closing_connection_keeps_its_slot_until_it_has_ended() {
    let (mut core, now) = limited(Limits { max_size: 1, ..LIMITS });
    connect(&mut core, now, 1);
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    core.retire(now);
    assert!(begin(&mut core, now).is_empty());
    core.closed();
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn a_detached_connection_frees_its_slot_at_once() {
    let (mut core, now) = limited(Limits { max_size: 1, ..LIMITS });
    connect(&mut core, now, 1);
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    core.detach(now);
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn while_nothing_connects_callers_are_refused_until_the_next_dial_is_due() {
    let (mut core, now) = core();
    wait(&mut core, now, 'a');
    wait(&mut core, now, 'b');
    let dials = begin(&mut core, now);
    assert!(core.dial_failed(now, dials[0], 0.0).is_empty(), "the other dial may still succeed");
    assert_eq!(core.dial_failed(now, dials[1], 0.0), ['a', 'b']);
    assert_eq!(core.enter(now, patient(now, 1_000), || 'c'), Err(Refused::Unreachable(50 * MS)));

    let due = now + 50 * MS;
    wait(&mut core, due, 'c');
    wait(&mut core, due, 'd');
    let dials = begin(&mut core, due);
    assert_eq!(dials.len(), 1, "one at a time once they fail");
    assert_eq!(handed(core.dialed(due, dials[0], 1).0).0, 'c');
    assert_eq!(begin(&mut core, due).len(), 1);
}

#[test]
fn the_pause_doubles_up_to_a_second_and_a_success_ends_it() {
    let (mut core, mut now) = core();
    for expected in [50, 100, 200, 400, 800, 1000, 1000] {
        wait(&mut core, now, 'a');
        let dial = begin(&mut core, now)[0];
        assert_eq!(core.dial_failed(now, dial, 0.0), ['a']);
        let pause = Duration::from_millis(expected);
        assert_eq!(core.enter(now, patient(now, 1_000), || 'b'), Err(Refused::Unreachable(pause)));
        now += pause;
    }
    connect(&mut core, now, 1);
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn the_shell_is_told_once_to_ask_again_when_a_pause_holds_a_dial_up() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    core.asking_again();
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    let dial = begin(&mut core, now)[0];
    assert!(core.dial_failed(now, dial, 0.0).is_empty(), "a connection is alive: waiting may help");
    let due = now + 50 * MS;
    assert_eq!(core.begin_dials(now).ask_again, Some(due));
    assert_eq!(core.begin_dials(now).ask_again, None);
    core.asking_again();
    assert_eq!(begin(&mut core, due).len(), 1);
}

#[test]
fn a_dial_that_is_stuck_is_replaced_by_the_first_that_succeeds() {
    let (mut core, now) = limited(Limits { max_size: 3, ..LIMITS });
    wait(&mut core, now, 'a');
    let Begin { dials, ask_again } = core.begin_dials(now);
    assert_eq!((dials, ask_again), (0..1, Some(now + 1_000 * MS)));
    core.asking_again();
    let later = now + 1_000 * MS;
    assert_eq!(begin(&mut core, later), [1], "another beside it");
    let (placed, stuck) = core.dialed(later, 1, 7);
    assert_eq!((handed(placed).0, stuck), ('a', vec![0]));
    assert!(core.is_given_up(0));
    core.dial_abandoned(0);
    assert_eq!(core.counts().dialing, 0);
}

#[test]
fn a_smaller_limit_drains_and_a_larger_one_dials() {
    let (mut core, now) = limited(Limits { max_size: 4, max_waiting: 9, max_connecting: 9, ..LIMITS });
    core.want(4);
    let dials = begin(&mut core, now);
    assert_eq!(dials.len(), 4);
    core.want(0);
    for dial in dials {
        assert_eq!(core.dialed(now, dial, dial as u32).0.to, Place::Idle);
    }
    let mut held: Vec<_> = (0..3).map(|_| core.take(now).expect("idle")).collect();
    assert_eq!(core.resize(now, 2), [0], "idle ones beyond the limit end now");
    assert_eq!(core.release(now, held.pop().expect("held")).to, Place::Closing(1), "leases when they are given back");
    assert_eq!(core.release(now, held.pop().expect("held")).to, Place::Idle);
    wait_behind_everything(&mut core, now, &mut held);
    assert!(begin(&mut core, now).is_empty());
    core.resize(now, 5);
    assert_eq!(begin(&mut core, now).len(), 1, "two are still closing");
}

/// Takes what is idle, and waits.
fn wait_behind_everything(core: &mut TestCore, now: Instant, held: &mut Vec<Held<u32>>) {
    held.extend(std::iter::from_fn(|| core.take(now)));
    wait(core, now, 'a');
}

#[test]
fn a_flush_retires_all_that_is_older() {
    let (mut core, now) = limited(Limits { max_size: 3, ..LIMITS });
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    connect(&mut core, now, 2);
    let idle = take(&mut core, now, 2);
    assert_eq!(core.release(now, idle).to, Place::Idle);
    core.want(3);
    let dial = begin(&mut core, now)[0];
    assert_eq!(core.flush(now), [2]);
    assert_eq!(core.release(now, held).to, Place::Closing(1));
    assert_eq!(core.dialed(now, dial, 3).0.to, Place::Closing(3), "it was begun before");
    core.closed();
    let dial = begin(&mut core, now)[0];
    assert_eq!(core.dialed(now, dial, 4).0.to, Place::Idle);
}

#[test]
fn draining_serves_those_who_wait_already() {
    let (mut core, now) = limited(Limits { max_size: 1, ..LIMITS });
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    core.drain();
    assert_eq!(core.enter(now, patient(now, 1_000), || 'b'), Err(Refused::Closed));
    let (name, held) = handed(core.release(now, held));
    assert_eq!(name, 'a');
    assert_eq!(core.release(now, held).to, Place::Closing(1));
}

#[test]
fn closing_refuses_newcomers_and_retires_what_comes_back() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    let one = take(&mut core, now, 1);
    connect(&mut core, now, 2);
    let two = take(&mut core, now, 2);
    wait(&mut core, now, 'a');
    assert_eq!(core.close(now), (vec![], vec!['a'], vec![]));
    assert_eq!(core.enter(now, patient(now, 1_000), || 'b'), Err(Refused::Closed));
    assert_eq!(core.release(now, one).to, Place::Closing(1));
    assert_eq!(core.release(now, two).to, Place::Closing(2));
    core.closed();
    core.closed();
    assert!(begin(&mut core, now).is_empty());
    assert_eq!(core.counts().closing, 0);
}

#[derive(Debug, Clone)]
enum Step {
    Enter { patience_ms: u64 },
    Leave(usize),
    Release(usize),
    Prove(usize),
    Retire(usize, f64),
    Dialed(usize),
    DialFailed(f64),
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
        60 => (1u64..300).prop_map(|patience_ms| Step::Enter { patience_ms }),
        20 => any::<usize>().prop_map(Step::Leave),
        40 => any::<usize>().prop_map(Step::Release),
        20 => any::<usize>().prop_map(Step::Prove),
        10 => (any::<usize>(), 0.0..1.0).prop_map(|(index, jitter)| Step::Retire(index, jitter)),
        40 => any::<usize>().prop_map(Step::Dialed),
        10 => (0.0..1.0).prop_map(Step::DialFailed),
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

/// A pool as one would write it on a napkin: lists, and no cleverness.
struct Napkin {
    core: Core<u32, u32>,
    limits: Limits,
    now: Instant,
    waiters: Vec<(u32, WaiterId, Deadline)>,
    /// Each with its generation.
    idle: Vec<(u32, u64)>,
    in_use: Vec<Held<u32>>,
    dials: Vec<(u64, u64)>,
    closing: usize,
    generation: u64,
    /// Slots taken before the limit was lowered.
    most: usize,
    will_ask: bool,
    named: u32,
    closed: bool,
}

impl Napkin {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            core: Core::new(now, limits),
            limits,
            now,
            waiters: Vec::new(),
            idle: Vec::new(),
            in_use: Vec::new(),
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
            Step::Enter { patience_ms } => self.enter(Duration::from_millis(*patience_ms)),
            Step::Leave(index) if !self.waiters.is_empty() => {
                let (name, id, _) = self.waiters.remove(index % self.waiters.len());
                assert_eq!(self.core.leave(self.now, id), Some(name));
                assert_eq!(self.core.leave(self.now, id), None);
            }
            Step::Release(index) if !self.in_use.is_empty() => {
                let held = self.in_use.remove(index % self.in_use.len());
                let generation = held.generation;
                let placed = self.core.release(self.now, held);
                self.placed(placed, generation);
            }
            Step::Prove(index) if !self.in_use.is_empty() => {
                let index = index % self.in_use.len();
                self.core.prove(&mut self.in_use[index]);
            }
            Step::Retire(index, jitter) if !self.in_use.is_empty() => {
                let held = self.in_use.remove(index % self.in_use.len());
                self.closing += 1;
                self.core.retire(self.now);
                if held.is_unproven() {
                    let failed = self.core.stillborn(self.now, *jitter);
                    self.failed(failed);
                }
            }
            Step::Detach(index) if !self.in_use.is_empty() => {
                self.in_use.remove(index % self.in_use.len());
                self.core.detach(self.now);
            }
            Step::Dialed(index) if !self.dials.is_empty() => {
                let (number, generation) = self.dials.remove(index % self.dials.len());
                self.named += 1;
                let (placed, stuck) = self.core.dialed(self.now, number, self.named);
                assert!(stuck.iter().all(|stuck| self.dials.iter().any(|(dial, _)| dial == stuck)));
                self.placed(placed, generation);
            }
            Step::DialFailed(jitter) if !self.dials.is_empty() => {
                let (number, _) = self.dials.remove(0);
                let failed = self.core.dial_failed(self.now, number, *jitter);
                self.failed(failed);
            }
            Step::Resize(max_size) => {
                self.most = self.taken().max(*max_size);
                self.limits.max_size = *max_size;
                let ended = self.core.resize(self.now, *max_size);
                let surplus = (self.idle.len() + self.in_use.len()).saturating_sub(*max_size).min(self.idle.len());
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
            Step::Want(connections) => self.core.want(*connections),
            Step::Closed if self.closing > 0 => {
                self.closing -= 1;
                self.core.closed();
            }
            Step::Advance { ms } => self.now += Duration::from_millis(*ms),
            Step::AskAgain if self.will_ask => {
                self.will_ask = false;
                self.core.asking_again();
            }
            Step::Close => {
                let (idle, failed, _) = self.core.close(self.now);
                assert_eq!(failed, self.waiters.drain(..).map(|(name, ..)| name).collect::<Vec<_>>());
                assert_eq!(idle, self.idle.drain(..).map(|(conn, _)| conn).collect::<Vec<_>>());
                self.closing += idle.len();
                self.closed = true;
            }
            _ => {}
        }
        self.dial();
        self.check();
    }

    fn enter(&mut self, patience: Duration) {
        self.named += 1;
        let (name, deadline) = (self.named, Deadline::after(self.now, patience));
        let patience = Patience { deadline, ..patient(self.now, 0) };
        match self.core.enter(self.now, patience, || name) {
            Ok(Entered::Took(held)) => {
                assert_eq!(self.idle.pop(), Some((held.conn, held.generation)), "the freshest");
                self.in_use.push(held);
            }
            Ok(Entered::Waits(id)) => {
                assert!(self.idle.is_empty(), "nobody waits while a connection is idle");
                self.waiters.push((name, id, deadline));
            }
            Err(Refused::QueueFull(_)) => assert_eq!(self.waiters.len(), self.limits.max_waiting),
            Err(Refused::Unreachable(wait)) => {
                assert!(wait <= 1_000 * MS);
                assert_eq!(self.idle.len() + self.in_use.len() + self.dials.len(), 0);
            }
            Err(Refused::Closed) => assert!(self.closed),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn failed(&mut self, failed: Vec<u32>) {
        if !failed.is_empty() {
            assert_eq!(self.idle.len() + self.in_use.len() + self.dials.len(), 0);
            assert_eq!(failed, self.waiters.drain(..).map(|(name, ..)| name).collect::<Vec<_>>());
        }
    }

    fn placed(&mut self, placed: Placed<u32, u32>, generation: u64) {
        for (name, why) in placed.refused {
            let (first, _, deadline) = self.waiters.remove(0);
            assert_eq!((name, why), (first, Refused::Expired));
            assert!(deadline.has_passed(self.now));
        }
        let live = self.idle.len() + self.in_use.len() + self.dials.len();
        let is_surplus = self.closed || live >= self.limits.max_size || generation != self.generation;
        match placed.to {
            Place::Waiter(name, held) => {
                let (first, _, deadline) = self.waiters.remove(0);
                assert_eq!(name, first, "nobody overtakes");
                assert!(!deadline.has_passed(self.now) && !is_surplus);
                self.in_use.push(held);
            }
            Place::Idle => {
                assert!(self.waiters.is_empty() && !is_surplus);
                self.idle.push(*self.core.idle.last().expect("just placed"));
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

    fn taken(&self) -> usize {
        self.dials.len() + self.idle.len() + self.in_use.len() + self.closing
    }

    fn check(&mut self) {
        let expected = Counts {
            limit: self.limits.max_size,
            dialing: self.dials.len(),
            idle: self.idle.len(),
            in_use: self.in_use.len(),
            closing: self.closing,
            waiting: self.waiters.len(),
            max_waiting: self.limits.max_waiting,
            is_open: !self.closed,
        };
        assert_eq!(self.core.counts(), expected);
        self.most = self.most.min(self.taken().max(self.limits.max_size));
        assert!(self.taken() <= self.most, "never more than the limit; after it was lowered, never more than before");
        if !self.waiters.is_empty() {
            let somebody_comes = self.dials.len() + self.in_use.len() + self.closing > 0 || self.will_ask;
            assert!(somebody_comes, "no wake-up is lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens in whatever order, the core agrees with the napkin, and in the end the slots add up.
    #[test]
    fn agrees_with_the_napkin(
        max_size in 1usize..6,
        max_waiting in 0usize..8,
        max_connecting in 1usize..4,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut napkin = Napkin::new(Limits { max_size, max_waiting, max_connecting, room: 100 * MS });
        for step in &steps {
            napkin.apply(step);
        }
        napkin.apply(&Step::Close);
        while !napkin.in_use.is_empty() {
            napkin.apply(&Step::Release(0));
        }
        while !napkin.dials.is_empty() {
            napkin.apply(&Step::Dialed(0));
        }
        while napkin.closing > 0 {
            napkin.apply(&Step::Closed);
        }
        let counts = napkin.core.counts();
        prop_assert_eq!(counts.dialing + counts.idle + counts.in_use + counts.closing + counts.waiting, 0);
    }
}
