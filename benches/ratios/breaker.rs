//! Times one permission and one recorded success of the circuit breaker, beside failsafe's state machine with its
//! success-rate policy and its defaults.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use failfast::{BreakerConfig, CircuitBreaker};

use super::turns::{self, Plan, Ratio, Side};
use super::{Report, peers};

const PLAN: Plan = Plan { sets: 3, rounds: 36 };
const CALLS: u32 = 20_000;

pub(super) async fn measure(report: &mut Report) {
    if report.wants("breaker") {
        ask_and_record(1).await.at_most(report, "breaker", 0.5);
    }
    if report.wants("breaker-all-cores") {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        ask_and_record(cores).await.at_most(report, "breaker-all-cores", 0.5);
    }
}

async fn ask_and_record(threads: usize) -> Ratio {
    let prepare = async || {
        let ours = CircuitBreaker::new(BreakerConfig::default()).expect("good settings");
        (ours, peers::failsafe())
    };
    let what = format!("{CALLS} times permission and success on {threads} threads");
    turns::measure(&what, PLAN, prepare, async |(ours, theirs), side| match side {
        Side::Ours => together(threads, || black_box(ours).try_acquire().expect("a closed circuit").success()),
        Side::Theirs => together(threads, || {
            assert!(black_box(theirs).is_call_permitted());
            theirs.on_success();
        }),
    })
    .await
}

/// Runs the calls on all threads at once, and returns the time of the slowest thread.
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
