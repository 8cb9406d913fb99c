//! How many instructions a transition takes: `./dev costs` runs this under valgrind, with many turns and with twice as many.
//!
//! Without the variable that names one, each runs once, so that it stays true.

use std::collections::VecDeque;
use std::hint::black_box;

use super::*;

const CONNECTIONS: usize = 20;
const BUDGET: Duration = Duration::from_millis(250);

struct Pool {
    core: Core<u32, ()>,
    now: Instant,
    held: VecDeque<Held<u32>>,
    refused: usize,
}

impl Pool {
    /// All in use.
    fn busy() -> Self {
        let now = Instant::now();
        let (max_size, max_waiting) = (CONNECTIONS, 10_000);
        let limits =
            Limits { max_size, max_waiting, max_connecting: CONNECTIONS, wait_budget: BUDGET, ages: Ages::default() };
        let mut pool = Self { core: Core::new(now, limits), now, held: VecDeque::new(), refused: 0 };
        (0..CONNECTIONS).for_each(|_| pool.enter());
        for dial in pool.core.begin_dials(now).dials {
            let placed = pool.core.dialed(now, dial, 0);
            pool.placed(placed);
        }
        pool
    }

    fn enter(&mut self) {
        let deadline = Deadline::after(self.now, BUDGET);
        let wait_policy = WaitPolicy { deadline, includes_work: true, shedding: Shedding::Predictive };
        match self.core.enter(self.now, wait_policy, || ()) {
            Ok(Entered::Waits(_)) => {}
            Ok(Entered::Took(held)) => self.held.push_back(held),
            Err(_) => self.refused += 1,
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.held.pop_front() {
            let placed = release(&mut self.core, self.now, held);
            self.placed(placed);
        }
    }

    fn placed(&mut self, placed: Placed<u32, ()>) {
        if let Place::Waiter(_, (), held) = black_box(placed).to {
            self.held.push_back(held);
        }
    }

    /// One release each millisecond, and so many callers.
    fn turn(&mut self, callers: u32) {
        self.now += MS;
        (0..callers).for_each(|_| self.enter());
        self.release();
    }
}

/// Takes an idle connection while others are idle, and gives it back.
fn take(turns: usize) {
    let mut pool = Pool::busy();
    (0..CONNECTIONS).for_each(|_| pool.release());
    for _ in 0..turns {
        pool.now += MS;
        pool.held.extend(pool.core.take(pool.now));
        pool.now += MS;
        pool.release();
    }
    assert_eq!(pool.core.counts().idle, CONNECTIONS);
}

/// A caller joins the queue, and the first of those who wait is served.
fn hand_over(turns: usize) {
    let mut pool = Pool::busy();
    (0..10).for_each(|_| pool.enter());
    (0..turns).for_each(|_| pool.turn(1));
    assert_eq!((pool.refused, pool.core.counts().waiting), (0, 10));
}

/// The same in an overload: of three callers, two are refused.
fn refuse(turns: usize) {
    let mut pool = Pool::busy();
    (0..turns).for_each(|_| pool.turn(3));
    assert!(turns < 1_000 || pool.refused * 10 > turns * 18, "{} refused", pool.refused);
}

#[test]
fn each_transition() {
    let turns = std::env::var("FAILFAST_COST_TURNS").map_or(1, |turns| turns.parse().expect("a number"));
    let asked = std::env::var("FAILFAST_COST").ok();
    for (name, transition) in [("take", take as fn(usize)), ("hand-over", hand_over), ("refuse", refuse)] {
        if asked.as_deref().is_none_or(|asked| asked == name) {
            transition(turns);
        }
    }
}
