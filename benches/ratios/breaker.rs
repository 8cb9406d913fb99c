//! Asking the circuit breaker and telling it of a success, beside failsafe's state machine with its success-rate policy, as it comes.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use failfast::{BreakerConfig, CircuitBreaker};
use failsafe::{StateMachine, backoff, failure_policy};

use super::{Report, median};

const ROUNDS: usize = 101;
const CALLS: u32 = 20_000;

pub(super) fn measure(report: &mut Report) {
    if report.wants("breaker") {
        report.at_most("breaker", ask_and_record(1), 0.5);
    }
    if report.wants("breaker-all-cores") {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        report.at_most("breaker-all-cores", ask_and_record(cores), 0.5);
    }
}

/// Rounds of both take turns, and the order changes each time.
fn ask_and_record(threads: usize) -> f64 {
    let ours = CircuitBreaker::new(BreakerConfig::default()).expect("good settings");
    let backoff = backoff::equal_jittered(Duration::from_secs(10), Duration::from_secs(300));
    let policy = failure_policy::success_rate_over_time_window(0.5, 10, Duration::from_secs(10), backoff);
    let theirs = StateMachine::new(policy, ());
    let ask_ours = || black_box(&ours).try_acquire().expect("a closed circuit").success();
    let ask_theirs = || {
        assert!(black_box(&theirs).is_call_permitted());
        theirs.on_success();
    };
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            our_times.push(together(threads, ask_ours));
            their_times.push(together(threads, ask_theirs));
        } else {
            their_times.push(together(threads, ask_theirs));
            our_times.push(together(threads, ask_ours));
        }
    }
    let nanos = |times| median(times).as_secs_f64() * 1e9 / f64::from(CALLS);
    let (ours, theirs) = (nanos(our_times), nanos(their_times));
    println!("# ask and record on {threads} threads: {ours:.1} ns beside {theirs:.1} ns");
    ours / theirs
}

/// How long the slowest of so many threads takes for its calls, all at once.
fn together(threads: usize, call: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(threads);
    let work = || {
        start.wait();
        let begun = Instant::now();
        (0..CALLS).for_each(|_| call());
        begun.elapsed()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().map(|other| other.join().expect("no panic")).fold(own, Duration::max)
    })
}
