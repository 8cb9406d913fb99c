use std::time::Duration;

use super::*;

const MS: Duration = Duration::from_millis(1);
const CONNECTIONS: usize = 10;
/// The wait budget, in seconds.
const BUDGET: f64 = 1.0;
/// The time from one release to the next, in seconds.
const GAP: f64 = 0.001;
/// How many callers are served within one wait budget.
const FITS: f64 = 1_000.0;

/// A pool that applies the rule, with one release each millisecond while callers wait.
struct Pool {
    shadows: ShadowQueues,
    now: Time,
    waiting: usize,
    idle: usize,
    /// With this many waiters the pool refuses every caller, whatever the rule says.
    limit: usize,
}

impl Pool {
    fn new() -> Self {
        Self { shadows: ShadowQueues::new(), now: Time::BEGIN, waiting: 0, idle: 0, limit: usize::MAX }
    }

    fn depth(&mut self) -> Option<usize> {
        let is_overloaded = self.shadows.is_overloaded(self.now, BUDGET);
        self.shadows.depth(self.now, BUDGET, GAP, CONNECTIONS).filter(|_| is_overloaded)
    }

    fn arrive(&mut self, callers: usize) {
        for _ in 0..callers {
            if self.idle > 0 {
                self.idle -= 1;
                self.shadows.on_idle(self.now, self.idle, || Some(GAP * CONNECTIONS as f64));
                continue;
            }
            let is_admitted =
                self.waiting < self.depth().unwrap_or(usize::MAX).min(self.limit) && self.waiting as f64 <= FITS;
            let is_overloaded = self.shadows.is_overloaded(self.now, BUDGET);
            let arrival = Arrival {
                is_overloaded,
                waiting: self.waiting,
                fits_behind: FITS,
                is_admitted,
                connections: CONNECTIONS,
                wait_budget: BUDGET,
            };
            self.shadows.on_arrival(self.now, arrival);
            self.waiting += usize::from(is_admitted);
        }
    }

    /// Runs for `millis` milliseconds, with `callers` callers in each.
    fn run(&mut self, millis: usize, callers: usize) {
        for _ in 0..millis {
            self.now += MS;
            self.arrive(callers);
            self.release();
        }
    }

    fn leave(&mut self, callers: usize) {
        self.waiting -= callers;
        self.shadows.on_left(callers);
    }

    fn release(&mut self) {
        if self.waiting > 0 {
            self.shadows.on_served(self.waiting, CONNECTIONS);
            self.waiting -= 1;
        } else if self.idle < CONNECTIONS {
            self.shadows.on_served(0, CONNECTIONS);
            self.idle += 1;
        }
        self.shadows.on_idle(self.now, self.idle, || Some(GAP * CONNECTIONS as f64));
    }
}

#[test]
fn depth_is_no_reason_to_refuse_while_the_plain_queue_serves_everybody() {
    let mut pool = Pool::new();
    for _ in 0..20 {
        pool.arrive(900);
        pool.run(1_000, 0);
        assert_eq!(pool.depth(), None);
    }
}

#[test]
fn a_batch_is_no_overload() {
    let mut pool = Pool::new();
    pool.arrive(5_000);
    assert_eq!(pool.waiting, 1_001, "the pool admits the callers that it can serve in time");
    for _ in 0..200 {
        assert_eq!(pool.depth(), None);
        pool.run(10, 0);
    }
}

#[test]
fn callers_that_come_evenly_get_the_shallowest_queue_within_half_a_wait_budget() {
    let mut pool = Pool::new();
    pool.run(500, 3);
    assert_eq!(pool.depth(), None, "the plain queue is full only now");
    pool.run(451, 3);
    assert_eq!(pool.depth(), Some(5));
    pool.run(1_000, 3);
    assert_eq!(pool.waiting, 4, "the pool has just served one of five");
}

#[test]
fn callers_that_come_in_bursts_get_the_depth_that_their_bursts_need() {
    let mut pool = Pool::new();
    for _ in 0..500 {
        pool.arrive(300);
        pool.run(100, 0);
    }
    assert_eq!(pool.depth(), Some(120), "a burst each 100 ms, and 10 connections become idle at its end");
}

#[test]
fn the_depth_for_bursts_is_known_before_the_old_queue_is_served() {
    let mut pool = Pool::new();
    for _ in 0..13 {
        pool.arrive(300);
        pool.run(100, 0);
    }
    assert!(pool.waiting > 600, "{}", pool.waiting);
    assert_eq!(pool.depth(), Some(120), "the same depth as after many bursts");
}

#[test]
fn callers_that_leave_a_deep_queue_were_not_in_a_shallow_one() {
    let mut pool = Pool::new();
    pool.run(960, 3);
    pool.leave(900);
    pool.run(1_000, 3);
    assert_eq!(pool.depth(), Some(5));
}

#[test]
fn losses_decay_over_the_work_of_many_wait_budgets() {
    let mut pool = Pool::new();
    for _ in 0..100 {
        pool.arrive(300);
        pool.run(100, 0);
    }
    pool.run(20_000, 3);
    assert_ne!(pool.depth(), Some(5), "20 wait budgets are too few");
    pool.run(400_000, 3);
    assert_eq!(pool.depth(), Some(5));
}

#[test]
fn an_overload_ends_half_a_wait_budget_after_the_last_refusal_of_the_plain_queue() {
    let mut pool = Pool::new();
    pool.run(2_000, 3);
    assert!(pool.depth().is_some());
    pool.run(499, 0);
    assert!(pool.shadows.is_overloaded(pool.now, BUDGET));
    pool.run(2, 0);
    assert_eq!(pool.depth(), None);
}

/// The same callers come to a pool that applies the rule and to a pool that refuses nearly all of them.
#[test]
fn refusals_do_not_change_the_shadow_queues() {
    let (mut rule, mut strict) = (Pool::new(), Pool { limit: 2, ..Pool::new() });
    for _ in 0..200 {
        for pool in [&mut rule, &mut strict] {
            pool.arrive(150);
            pool.run(50, 1);
        }
    }
    assert!(strict.waiting < rule.waiting);
    assert_eq!(rule.depth(), strict.depth());
    for (queue, (one, other)) in rule.shadows.more.iter().zip(strict.shadows.more).enumerate() {
        let (one, other) = (rule.waiting as f32 + one, strict.waiting as f32 - strict.idle as f32 + other);
        assert!((one - other).abs() <= CONNECTIONS as f32, "queue {queue}: {one} and {other}");
    }
}
