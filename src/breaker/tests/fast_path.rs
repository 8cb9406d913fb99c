//! Threads that share a breaker, and that the fast path counts the same as the rules count under the lock.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::policy::{Breaker, ResultKind};

// R
#[test]
fn conformance_46_parallel_recorders_are_counted_exactly() {
    const THREADS: usize = 8;
    const CALLS: u64 = 4_000;
    let breaker = CircuitBreaker::new(config().error_threshold_percentage(100).rolling_window(3_600 * SECOND)).unwrap();
    breaker.call(succeed()).now_or_never().unwrap().unwrap();
    let together = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                together.wait();
                for call in 0..CALLS {
                    let permit = breaker.try_acquire().unwrap();
                    match call % 4 {
                        0 => permit.failure(),
                        1 => permit.ignore(),
                        _ => permit.success(),
                    }
                }
            });
        }
    });
    let calls = THREADS as u64 * CALLS;
    let counts = breaker.snapshot().counts;
    assert_eq!((counts.completed, counts.failures), (1 + calls / 4 * 3, calls / 4));
}

#[test]
fn concurrent_callers_get_no_more_probes_than_permitted() {
    const THREADS: usize = 8;
    let config = config().permitted_probes(3).error_threshold_percentage(100);
    let breaker = CircuitBreaker::new(config).unwrap();
    let (most, under_way) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for round in 0..200 {
        breaker.import(&half_open());
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (breaker, most, under_way) = (&breaker, &most, &under_way);
                scope.spawn(move || {
                    // The last of three successes would close the circuit, so only two are recorded.
                    let Ok(permit) = breaker.try_acquire() else { return };
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    if (round + thread) % THREADS < 2 { permit.success() } else { permit.ignore() }
                });
            }
        });
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.probes), (State::HalfOpen, 0));
    }
    assert!((1..=3).contains(&most.into_inner()));
}

#[test]
fn a_pass_without_a_lock_ends_with_its_state() {
    let breaker = breaker();
    let order: [fn(&CircuitBreaker); 4] =
        [|b| b.force_open("a"), |b| b.record_health_check(false), |b| b.import(&half_open()), |b| b.shutdown()];
    for close in order {
        assert!(breaker.shared.pass().is_some());
        close(&breaker);
        assert!(breaker.shared.pass().is_none());
        breaker.reset("again");
    }
    assert!(opossum().shared.pass().is_none(), "opossum counts the calls that ask");
}

/// Compares the breaker with the rules alone, which record every result under the lock.
fn assert_same_as_the_rules(count_window: bool, steps: &[(u8, u64)]) {
    let by_time = || config().volume_threshold(4).slow_call(SECOND, 60);
    let config = || if count_window { by_time().count_window(12) } else { by_time() };
    let breaker = CircuitBreaker::new(config()).unwrap();
    let mut now = now();
    let mut plain = Breaker::new(now, config().finish().unwrap().settings, 0.0);
    let mut under_way = Vec::new();
    for (step, ms) in steps {
        now += Duration::from_millis(*ms);
        if *step < 3 {
            let (one, other) = (breaker.shared.admit(now), plain.admit(now));
            assert_eq!(one, other);
            under_way.extend(one);
        } else if let Some(ticket) = under_way.pop() {
            let outcome = if *step < 8 { ResultKind::Success } else { ResultKind::Failure };
            let took = if *step == 4 { 2 * SECOND } else { SECOND };
            breaker.shared.record(now, ticket, outcome, took);
            plain.record(now, ticket, outcome, took, || 0.0);
        }
    }
    let snapshot = breaker.shared.with(|breaker| breaker.snapshot(now));
    assert_eq!((snapshot.state, snapshot.counts), (plain.state(now), plain.snapshot(now).counts));
}

proptest! {
    #[test]
    fn successes_without_the_lock_count_like_those_under_it(
        count_window: bool,
        steps in prop::collection::vec((0u8..10, prop_oneof![3 => Just(0), 2 => 0u64..300, 1 => 0u64..3_000]), 1..150),
    ) {
        assert_same_as_the_rules(count_window, &steps);
    }
}

#[test]
fn most_successes_need_no_lock() {
    let breaker = breaker();
    let now = now();
    let record = |now, outcome| breaker.shared.record(now, breaker.shared.admit(now).unwrap(), outcome, Duration::ZERO);
    record(now, ResultKind::Success);
    let locked = breaker.shared.hold_lock();
    record(now, ResultKind::Success);
    drop(locked);
    // The bucket has ended, so the rest of the window may be worse.
    record(now + SECOND, ResultKind::Success);
    assert_eq!(breaker.snapshot().counts.completed, 3);
}
