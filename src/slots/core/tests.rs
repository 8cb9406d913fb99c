use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    max_size: 2,
    max_waiting: 2,
    max_connecting: 2,
};

fn core() -> Core<u32, char> {
    Core::new(LIMITS)
}

fn soon(now: Instant) -> Deadline {
    Deadline::after(now, Duration::from_secs(1))
}

/// Dials one connection and leaves it idle.
fn connect(core: &mut Core<u32, char>, now: Instant, conn: u32) {
    let Ok(Entered::Waits(id)) = core.enter(now, soon(now), || '-') else {
        panic!("expected to wait")
    };
    core.begin_dials(now);
    core.leave(id);
    assert_eq!(core.dialed(now, conn).to, Place::Idle);
}

#[test]
fn the_freshest_idle_connection_is_taken_first() {
    let (mut core, now) = (core(), Instant::now());
    assert!(matches!(core.enter(now, soon(now), || 'a'), Ok(Entered::Waits(_))));
    assert!(matches!(core.enter(now, soon(now), || 'b'), Ok(Entered::Waits(_))));
    assert_eq!(
        core.begin_dials(now),
        Dials {
            begin: 2,
            ask_again: None
        }
    );
    assert_eq!(core.dialed(now, 1).to, Place::Waiter('a', 1));
    assert_eq!(core.dialed(now, 2).to, Place::Waiter('b', 2));
    assert_eq!(core.release(now, 2).to, Place::Idle);
    assert_eq!(core.release(now, 1).to, Place::Idle);
    assert_eq!(core.enter(now, soon(now), || 'c'), Ok(Entered::Took(1)));
    assert_eq!(core.take(), Some(2));
    assert_eq!(core.take(), None);
}

#[test]
fn whichever_comes_first_serves_the_first_waiter() {
    let (mut core, now) = (core(), Instant::now());
    connect(&mut core, now, 1);
    assert_eq!(core.take(), Some(1));
    assert!(matches!(core.enter(now, soon(now), || 'a'), Ok(Entered::Waits(_))));
    assert_eq!(core.begin_dials(now).begin, 1);
    assert_eq!(core.release(now, 1).to, Place::Waiter('a', 1));
    assert_eq!(core.dialed(now, 2).to, Place::Idle);
}

#[test]
fn a_full_queue_refuses() {
    let (mut core, now) = (core(), Instant::now());
    for name in ['a', 'b'] {
        assert!(matches!(core.enter(now, soon(now), || name), Ok(Entered::Waits(_))));
    }
    assert_eq!(
        core.enter(now, soon(now), || panic!("not asked")),
        Err(Refused::QueueFull)
    );
}

#[test]
fn a_waiter_past_its_deadline_is_passed_over() {
    let (mut core, now) = (core(), Instant::now());
    let first = Deadline::after(now, Duration::from_millis(10));
    assert!(matches!(core.enter(now, first, || 'a'), Ok(Entered::Waits(_))));
    assert!(matches!(core.enter(now, soon(now), || 'b'), Ok(Entered::Waits(_))));
    core.begin_dials(now);
    let placed = core.dialed(now + Duration::from_millis(10), 1);
    assert_eq!(placed.expired, ['a']);
    assert_eq!(placed.to, Place::Waiter('b', 1));
}

#[test]
fn no_dial_is_begun_for_one_who_left() {
    let (mut core, now) = (core(), Instant::now());
    let Ok(Entered::Waits(id)) = core.enter(now, soon(now), || 'a') else {
        panic!("expected to wait")
    };
    assert_eq!(core.leave(id), Some('a'));
    assert_eq!(core.begin_dials(now).begin, 0);
}

#[test]
fn at_most_max_connecting_dials_at_once() {
    let now = Instant::now();
    let mut core: Core<u32, usize> = Core::new(Limits {
        max_size: 50,
        max_waiting: 50,
        max_connecting: 4,
    });
    for n in 0..50 {
        assert!(core.enter(now, soon(now), || n).is_ok());
    }
    assert_eq!(core.begin_dials(now).begin, 4);
    assert_eq!(core.begin_dials(now).begin, 0);
    core.dialed(now, 1);
    assert_eq!(core.begin_dials(now).begin, 1);
}

#[test]
fn a_closing_connection_keeps_its_slot_until_it_has_ended() {
    let now = Instant::now();
    let mut core: Core<u32, char> = Core::new(Limits { max_size: 1, ..LIMITS });
    connect(&mut core, now, 1);
    assert_eq!(core.take(), Some(1));
    assert!(core.enter(now, soon(now), || 'a').is_ok());
    core.retire();
    assert_eq!(core.begin_dials(now).begin, 0);
    core.closed();
    assert_eq!(core.begin_dials(now).begin, 1);
}

#[test]
fn while_nothing_connects_callers_are_refused_until_the_next_dial_is_due() {
    let (mut core, now) = (core(), Instant::now());
    assert!(core.enter(now, soon(now), || 'a').is_ok());
    assert!(core.enter(now, soon(now), || 'b').is_ok());
    assert_eq!(core.begin_dials(now).begin, 2);
    assert!(
        core.dial_failed(now, 0.0).is_empty(),
        "the other dial may still succeed"
    );
    assert_eq!(core.dial_failed(now, 0.0), ['a', 'b']);
    assert_eq!(
        core.enter(now, soon(now), || 'c'),
        Err(Refused::Unreachable(FIRST_BACKOFF))
    );

    let due = now + FIRST_BACKOFF;
    assert!(core.enter(due, soon(due), || 'c').is_ok());
    assert!(core.enter(due, soon(due), || 'd').is_ok());
    assert_eq!(core.begin_dials(due).begin, 1, "one at a time once they fail");
    assert_eq!(core.dialed(due, 1).to, Place::Waiter('c', 1));
    assert_eq!(core.begin_dials(due).begin, 1);
}

#[test]
fn the_pause_doubles_up_to_a_second_and_a_success_ends_it() {
    let (mut core, mut now) = (core(), Instant::now());
    for expected in [50, 100, 200, 400, 800, 1000, 1000] {
        assert!(core.enter(now, soon(now), || 'a').is_ok());
        assert_eq!(core.begin_dials(now).begin, 1);
        assert_eq!(core.dial_failed(now, 0.0), ['a']);
        let wait = Duration::from_millis(expected);
        assert_eq!(core.enter(now, soon(now), || 'b'), Err(Refused::Unreachable(wait)));
        now += wait;
    }
    connect(&mut core, now, 1);
    assert_eq!(core.take(), Some(1));
    assert!(core.enter(now, soon(now), || 'a').is_ok());
    assert_eq!(core.begin_dials(now).begin, 1);
}

#[test]
fn the_shell_is_told_once_to_ask_again_when_the_backoff_holds_a_dial_up() {
    let (mut core, now) = (core(), Instant::now());
    connect(&mut core, now, 1);
    assert_eq!(core.take(), Some(1));
    assert!(core.enter(now, soon(now), || 'a').is_ok());
    assert_eq!(core.begin_dials(now).begin, 1);
    assert!(
        core.dial_failed(now, 0.0).is_empty(),
        "a connection is alive: waiting may help"
    );
    let due = now + FIRST_BACKOFF;
    assert_eq!(
        core.begin_dials(now),
        Dials {
            begin: 0,
            ask_again: Some(due)
        }
    );
    assert_eq!(
        core.begin_dials(now),
        Dials {
            begin: 0,
            ask_again: None
        }
    );
    core.asking_again();
    assert_eq!(core.begin_dials(due).begin, 1);
}

#[test]
fn closing_refuses_newcomers_and_retires_what_comes_back() {
    let (mut core, now) = (core(), Instant::now());
    connect(&mut core, now, 1);
    connect_second(&mut core, now);
    assert!(core.enter(now, soon(now), || 'a').is_ok());
    assert_eq!(core.close(), (vec![], vec!['a']));
    assert_eq!(core.enter(now, soon(now), || 'b'), Err(Refused::Closed));
    assert_eq!(core.release(now, 1).to, Place::Closing(1));
    assert_eq!(core.release(now, 2).to, Place::Closing(2));
    core.closed();
    core.closed();
    assert_eq!(core.begin_dials(now).begin, 0);
    assert_eq!(core.counts().closing, 0);
}

/// With one connection idle: takes it, dials another and takes that too.
fn connect_second(core: &mut Core<u32, char>, now: Instant) {
    assert_eq!(core.take(), Some(1));
    connect(core, now, 2);
    assert_eq!(core.take(), Some(2));
}

#[derive(Debug, Clone)]
enum Step {
    Enter { patience_ms: u64 },
    Leave(usize),
    Release(usize),
    Retire(usize),
    Dialed,
    DialFailed(f64),
    Closed,
    Advance { ms: u64 },
    AskAgain,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (1u64..300).prop_map(|patience_ms| Step::Enter { patience_ms }),
        20 => any::<usize>().prop_map(Step::Leave),
        40 => any::<usize>().prop_map(Step::Release),
        10 => any::<usize>().prop_map(Step::Retire),
        40 => Just(Step::Dialed),
        10 => (0.0..1.0).prop_map(Step::DialFailed),
        10 => Just(Step::Closed),
        20 => (1u64..400).prop_map(|ms| Step::Advance { ms }),
        10 => Just(Step::AskAgain),
        1 => Just(Step::Close),
    ]
}

/// A pool as one would write it on a napkin: lists, and no cleverness.
struct Napkin {
    core: Core<u32, u32>,
    limits: Limits,
    now: Instant,
    waiters: Vec<(u32, WaiterId, Deadline)>,
    idle: Vec<u32>,
    in_use: Vec<u32>,
    dialing: usize,
    closing: usize,
    will_ask: bool,
    named: u32,
    closed: bool,
}

impl Napkin {
    fn new(limits: Limits) -> Self {
        Self {
            core: Core::new(limits),
            limits,
            now: Instant::now(),
            waiters: Vec::new(),
            idle: Vec::new(),
            in_use: Vec::new(),
            dialing: 0,
            closing: 0,
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
                assert_eq!(self.core.leave(id), Some(name));
                assert_eq!(self.core.leave(id), None);
            }
            Step::Release(index) if !self.in_use.is_empty() => {
                let conn = self.in_use.remove(index % self.in_use.len());
                let placed = self.core.release(self.now, conn);
                self.placed(placed);
            }
            Step::Retire(index) if !self.in_use.is_empty() => {
                self.in_use.remove(index % self.in_use.len());
                self.closing += 1;
                self.core.retire();
            }
            Step::Dialed if self.dialing > 0 => {
                self.dialing -= 1;
                self.named += 1;
                let placed = self.core.dialed(self.now, self.named);
                self.placed(placed);
            }
            Step::DialFailed(jitter) if self.dialing > 0 => {
                self.dialing -= 1;
                let failed = self.core.dial_failed(self.now, *jitter);
                if !failed.is_empty() {
                    assert_eq!(self.idle.len() + self.in_use.len() + self.dialing, 0);
                    assert_eq!(
                        failed,
                        self.waiters.drain(..).map(|(name, ..)| name).collect::<Vec<_>>()
                    );
                }
            }
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
                let (idle, failed) = self.core.close();
                assert_eq!(
                    failed,
                    self.waiters.drain(..).map(|(name, ..)| name).collect::<Vec<_>>()
                );
                assert_eq!(idle, self.idle);
                self.closing += idle.len();
                self.idle.clear();
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
        match self.core.enter(self.now, deadline, || name) {
            Ok(Entered::Took(conn)) => {
                assert_eq!(self.idle.pop(), Some(conn), "the freshest");
                self.in_use.push(conn);
            }
            Ok(Entered::Waits(id)) => {
                assert!(self.idle.is_empty(), "nobody waits while a connection is idle");
                self.waiters.push((name, id, deadline));
            }
            Err(Refused::QueueFull) => assert_eq!(self.waiters.len(), self.limits.max_waiting),
            Err(Refused::Unreachable(wait)) => {
                assert!(wait <= LONGEST_BACKOFF);
                assert_eq!(self.idle.len() + self.in_use.len() + self.dialing, 0);
            }
            Err(Refused::Closed) => assert!(self.closed),
        }
    }

    fn placed(&mut self, placed: Placed<u32, u32>) {
        for name in placed.expired {
            let (first, _, deadline) = self.waiters.remove(0);
            assert_eq!(name, first);
            assert!(deadline.has_passed(self.now));
        }
        match placed.to {
            Place::Waiter(name, conn) => {
                let (first, _, deadline) = self.waiters.remove(0);
                assert_eq!(name, first, "nobody overtakes");
                assert!(!deadline.has_passed(self.now));
                self.in_use.push(conn);
            }
            Place::Idle => {
                assert!(self.waiters.is_empty());
                self.idle.push(self.core.idle[self.core.idle.len() - 1]);
            }
            Place::Closing(_) => {
                assert!(self.closed);
                self.closing += 1;
            }
        }
    }

    fn dial(&mut self) {
        let dials = self.core.begin_dials(self.now);
        self.dialing += dials.begin;
        self.will_ask |= dials.ask_again.is_some();
    }

    fn check(&self) {
        let expected = Counts {
            limit: self.limits.max_size,
            dialing: self.dialing,
            idle: self.idle.len(),
            in_use: self.in_use.len(),
            closing: self.closing,
            waiting: self.waiters.len(),
            max_waiting: self.limits.max_waiting,
            closed: self.closed,
        };
        assert_eq!(self.core.counts(), expected);
        let taken = self.dialing + self.idle.len() + self.in_use.len() + self.closing;
        assert!(taken <= self.limits.max_size, "never more than the limit");
        assert!(self.dialing <= self.limits.max_connecting);
        if !self.waiters.is_empty() {
            let somebody_comes = self.dialing + self.in_use.len() + self.closing > 0 || self.will_ask;
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
        let mut napkin = Napkin::new(Limits { max_size, max_waiting, max_connecting });
        for step in &steps {
            napkin.apply(step);
        }
        napkin.apply(&Step::Close);
        while !napkin.in_use.is_empty() {
            napkin.apply(&Step::Release(0));
        }
        while napkin.dialing > 0 {
            napkin.apply(&Step::Dialed);
        }
        while napkin.closing > 0 {
            napkin.apply(&Step::Closed);
        }
        let counts = napkin.core.counts();
        prop_assert_eq!(counts.dialing + counts.idle + counts.in_use + counts.closing + counts.waiting, 0);
    }
}
