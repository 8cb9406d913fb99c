//! The shell: calls, permits, hooks, threads; and the conformance cases that need them.

mod by_hand;
mod count_window;
mod events;
mod fallback;
#[cfg(feature = "metrics")]
mod metered;
mod opossum;
mod timer;
mod verdicts;

use std::cell::Cell;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::policy::{Breaker, Outcome, Ticket};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> BreakerConfig {
    BreakerConfig::default().volume_threshold(1).reset_timeout(5 * SECOND).reset_timeout_jitter(0)
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new(config()).unwrap()
}

fn soon(now: Instant) -> Deadline {
    Deadline::after(now, SECOND)
}

fn opossum() -> CircuitBreaker {
    CircuitBreaker::new(BreakerConfig::opossum()).unwrap()
}

async fn succeed() -> Result<u32, &'static str> {
    Ok(7)
}

async fn fail() -> Result<u32, &'static str> {
    Err("broken")
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_01_a_rejected_call_is_not_begun() {
    for breaker in [breaker(), opossum()] {
        assert_eq!(breaker.call(fail()).await, Err(CallError::Failed("broken")));
        let begun = Cell::new(false);
        let call = async {
            begun.set(true);
            succeed().await
        };
        assert!(matches!(breaker.call(call).await, Err(CallError::Open { .. })));
        assert!(!begun.get());
    }
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_14_later_a_success_passes() {
    let breaker = breaker();
    let _ = breaker.call(fail()).await;
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.call(succeed()).await, Ok(7));
    assert_eq!(breaker.state(), State::Closed);
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_17_a_filtered_error_on_the_probe_closes() {
    let breaker = breaker();
    let _ = breaker.call(fail()).await;
    tokio::time::advance(5 * SECOND).await;
    let answer = breaker.call_with(|error| *error != "broken", fail()).await;
    assert_eq!(answer, Err(CallError::Failed("broken")));
    assert_eq!(breaker.state(), State::Closed);
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_37_a_filtered_error_is_the_callers_and_counts_as_a_success() {
    for breaker in [breaker(), opossum()] {
        let answer = breaker.call_with(|_| false, fail()).await;
        assert_eq!(answer, Err(CallError::Failed("broken")));
        let counts = breaker.snapshot().counts;
        assert_eq!((counts.failures, counts.successes()), (0, 1));
    }
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_38_a_timeout_is_a_failure_says_how_long_and_gives_the_place_back() {
    for breaker in [breaker(), opossum()] {
        let breaker = breaker.with_timeout(SECOND).with_capacity(1);
        let begun = now();
        let hangs = std::future::pending::<Result<u32, &str>>();
        assert_eq!(breaker.call(hangs).await, Err(CallError::Timeout { name: None, after: SECOND }));
        assert_eq!(now() - begun, SECOND);
        assert_eq!(breaker.snapshot().counts.failures, 1);
        assert_eq!(breaker.state(), State::Open);
        tokio::time::advance(31 * SECOND).await;
        assert_eq!(breaker.call(succeed()).await, Ok(7));
    }
}

// O: refused and counted once. To us it says nothing of the dependency.
#[tokio::test(start_paused = true)]
async fn conformance_39_when_all_places_are_taken_a_call_is_refused_and_counted_once() {
    let breaker = breaker().with_capacity(1);
    let mut first = Box::pin(breaker.call(std::future::pending::<Result<u32, &str>>()));
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(breaker.clone().call(succeed()).await, Err(CallError::Busy { name: None }));
    assert_eq!(breaker.snapshot().counts, counts(|counts| counts.busy = 1));
    drop(first);
    assert_eq!(breaker.call(succeed()).await, Ok(7));
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_39_when_all_places_are_taken_it_is_a_failure_as_opossum() {
    let breaker =
        CircuitBreaker::new(BreakerConfig::opossum().error_threshold_percentage(60)).unwrap().with_capacity(1);
    let mut first = Box::pin(breaker.call(std::future::pending::<Result<u32, &str>>()));
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(breaker.call(succeed()).await, Err(CallError::Busy { name: None }));
    let expected = counts(|counts| (counts.fires, counts.busy, counts.completed, counts.failures) = (2, 1, 1, 1));
    assert_eq!(breaker.snapshot().counts, expected);
}

fn counts(set: impl FnOnce(&mut Counts)) -> Counts {
    let mut counts = Counts::default();
    set(&mut counts);
    counts
}

// R
#[tokio::test(start_paused = true)]
async fn conformance_42_a_call_that_is_dropped_records_nothing_and_gives_everything_back() {
    let breaker = breaker().with_capacity(1);
    let _ = breaker.call(fail()).await;
    tokio::time::advance(5 * SECOND).await;
    let before = breaker.snapshot().counts;
    let mut probe = Box::pin(breaker.call(std::future::pending::<Result<u32, &str>>()));
    assert!(probe.as_mut().now_or_never().is_none());
    assert_eq!(breaker.snapshot().probes, 1);
    drop(probe);
    let after = breaker.snapshot();
    assert_eq!((after.counts, after.probes, after.state), (before, 0, State::HalfOpen));
    assert_eq!(breaker.call(succeed()).await, Ok(7));
}

// O
#[test]
fn conformance_43_a_failing_health_check_opens() {
    for breaker in [breaker(), opossum()] {
        breaker.record_health_check(true);
        assert_eq!(breaker.state(), State::Closed);
        breaker.record_health_check(false);
        assert_eq!(breaker.state(), State::Open);
    }
}

// O
#[tokio::test]
async fn conformance_44_after_shutdown_calls_fail() {
    let breaker = breaker();
    breaker.shutdown();
    assert_eq!(breaker.call(succeed()).await, Err(CallError::ShutDown { name: None }));
    assert_eq!(breaker.state(), State::ShutDown);
}

// O
#[tokio::test(start_paused = true)]
async fn conformance_44_export_and_import_round_trip() {
    let (one, other) = (breaker(), breaker());
    let _ = one.call(fail()).await;
    tokio::time::advance(2 * SECOND).await;
    other.import(&one.export());
    assert_eq!(other.export(), one.export());
    assert_eq!(other.call(succeed()).await, Err(CallError::Open { name: None, retry_after: 3 * SECOND }));
}

// R
#[test]
fn conformance_45_what_cannot_be_used_is_refused_by_name() {
    let day = 24 * 3600 * SECOND;
    let bad = [
        (config().error_threshold_percentage(0), "error_threshold_percentage = 0: must be 1 to 100"),
        (config().error_threshold_percentage(101), "error_threshold_percentage = 101: must be 1 to 100"),
        (config().name(""), "name = \"\": must be 1 to 63 printable ASCII characters"),
        (config().name("a\nb"), "name = \"a\\nb\": must be 1 to 63 printable ASCII characters"),
        (config().count_window(0), "count_window = 0: must be 1 to 10000"),
        (config().count_window(10_001), "count_window = 10001: must be 1 to 10000"),
        (
            config().volume_threshold(6).count_window(5),
            "count_window = 5: must be at least volume_threshold, or nothing would open the circuit",
        ),
        (
            BreakerConfig::opossum().count_window(5),
            "count_window = 5: is not for BreakerConfig::opossum, which judges by the calls that asked within a time",
        ),
        (config().rolling_window(Duration::ZERO), "rolling_window = 0ns: must be more than 0 and at most 24 hours"),
        (config().rolling_window(2 * day), "rolling_window = 172800s: must be more than 0 and at most 24 hours"),
        (
            config().rolling_window(SECOND / 200),
            "rolling_window = 5ms: must be at least 1 ms for each of rolling_buckets",
        ),
        (config().rolling_buckets(0), "rolling_buckets = 0: must be 1 to 1000"),
        (config().rolling_buckets(1_001), "rolling_buckets = 1001: must be 1 to 1000"),
        (config().reset_timeout(Duration::ZERO), "reset_timeout = 0ns: must be more than 0 and at most 24 hours"),
        (config().reset_timeout_jitter(101), "reset_timeout_jitter = 101: must be 0 to 100"),
        (config().reset_timeout_growth(0.5, day), "reset_timeout_growth = 0.5: must be 1 to 100"),
        (config().reset_timeout_growth(f64::NAN, day), "reset_timeout_growth = NaN: must be 1 to 100"),
        (
            config().reset_timeout_growth(2.0, SECOND),
            "reset_timeout_growth = 1s: must be from reset_timeout to 24 hours",
        ),
        (config().permitted_probes(0), "permitted_probes = 0: must be 1 to 1000"),
        (config().probe_timeout(Duration::ZERO), "probe_timeout = 0ns: must be more than 0 and at most 24 hours"),
        (config().slow_call(Duration::ZERO, 50), "slow_call = 0ns: must be more than 0 and at most 24 hours"),
        (config().slow_call(SECOND, 0), "slow_call = 0: must be 1 to 100"),
        (config().slow_call(SECOND, 101), "slow_call = 101: must be 1 to 100"),
    ];
    for (config, expected) in bad {
        assert_eq!(CircuitBreaker::new(config).unwrap_err().to_string(), expected);
    }
    let bounds = config().error_threshold_percentage(100).rolling_window(day).volume_threshold(0);
    assert!(CircuitBreaker::new(bounds.reset_timeout_growth(1.0, day).slow_call(day, 100)).is_ok());
    assert!(CircuitBreaker::new(BreakerConfig::default()).is_ok());
}

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
fn never_more_probes_than_permitted_whoever_asks() {
    const THREADS: usize = 8;
    let config = config().permitted_probes(3).error_threshold_percentage(100);
    let breaker = CircuitBreaker::new(config).unwrap();
    let (most, out) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for round in 0..200 {
        breaker.import(&half_open());
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (breaker, most, out) = (&breaker, &most, &out);
                scope.spawn(move || {
                    // The last of three successes closes the circuit: only two are said.
                    let Ok(permit) = breaker.try_acquire() else { return };
                    most.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    out.fetch_sub(1, Ordering::SeqCst);
                    if (round + thread) % THREADS < 2 { permit.success() } else { permit.ignore() }
                });
            }
        });
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.probes), (State::HalfOpen, 0));
    }
    assert!((1..=3).contains(&most.into_inner()));
}

fn half_open() -> Export {
    Export { state: State::HalfOpen, ..Export::default() }
}

/// A timeout longer than the probe timeout: a dependency that is back but slow is found.
#[tokio::test(start_paused = true)]
async fn a_slow_probe_within_its_own_timeout_closes() {
    for config in [config(), BreakerConfig::opossum()] {
        let config = config.probe_timeout(Duration::from_secs(1));
        let breaker = CircuitBreaker::new(config).unwrap().with_timeout(Duration::from_secs(30));
        breaker.import(&half_open());
        let slow = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            succeed().await
        };
        breaker.call(slow).await.unwrap();
        assert_eq!(breaker.state(), State::Closed);
    }
}

async fn takes(time: Duration) -> Result<u32, &'static str> {
    tokio::time::sleep(time).await;
    succeed().await
}

/// The same whoever says how the call went, and however many probes there are.
#[tokio::test(start_paused = true)]
async fn a_timeout_longer_than_the_probe_timeout_is_waited_for() {
    for config in [BreakerConfig::default(), BreakerConfig::opossum()] {
        for permitted in [1, 3] {
            let breaker = CircuitBreaker::new(config.clone().permitted_probes(permitted)).unwrap();
            let breaker = breaker.with_timeout(20 * SECOND);
            breaker.import(&half_open());
            for _ in 0..permitted {
                breaker.call(takes(16 * SECOND)).await.unwrap();
            }
            assert_eq!(breaker.state(), State::Closed);
            breaker.import(&half_open());
            let permits: Vec<_> = (0..permitted).map(|_| breaker.try_acquire().unwrap()).collect();
            tokio::time::advance(20 * SECOND).await;
            assert_eq!(breaker.state(), State::HalfOpen);
            permits.into_iter().for_each(Permit::success);
            assert_eq!(breaker.state(), State::Closed);
        }
    }
}

/// The timeout is a bound: a probe that says nothing by then opens the circuit.
#[tokio::test(start_paused = true)]
async fn a_probe_that_outlives_its_timeout_is_not_waited_for() {
    let breaker = CircuitBreaker::new(config()).unwrap().with_timeout(20 * SECOND);
    breaker.import(&half_open());
    let permit = breaker.try_acquire().unwrap();
    tokio::time::advance(21 * SECOND).await;
    assert_eq!(breaker.state(), State::Open);
    permit.success();
    assert_eq!(breaker.state(), State::Open);
}

/// Each statement of a pool may take as long, and a probe is nobody's whose time is not known.
#[tokio::test(start_paused = true)]
async fn where_calls_may_take_longer_than_a_probe_a_probe_has_their_time() {
    let config = config().probe_timeout(Duration::from_secs(1)).calls_may_take(Duration::from_secs(30));
    let breaker = CircuitBreaker::for_pool(config, None).unwrap();
    breaker.import(&half_open());
    let permit = breaker.try_acquire().unwrap();
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    permit.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_dropped_permit_lets_another_probe_out() {
    let breaker = breaker();
    breaker.import(&half_open());
    let permit = breaker.try_acquire().unwrap();
    assert_eq!(breaker.try_acquire().unwrap_err().state, State::HalfOpen);
    drop(permit);
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_measured() {
    let breaker = CircuitBreaker::new(config().slow_call(SECOND, 50)).unwrap();
    let slow = async {
        tokio::time::sleep(2 * SECOND).await;
        succeed().await
    };
    assert_eq!(breaker.call(slow).await, Ok(7));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn hooks_are_told_after_unlock_and_may_ask_the_breaker() {
    let own: Arc<Mutex<Option<CircuitBreaker>>> = Arc::default();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let hook = {
        let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
        move |transition: &Transition| {
            let breaker = own.lock().unwrap().clone().unwrap();
            seen.lock().unwrap().push(format!("{transition}, now {}", breaker.state()));
        }
    };
    let breaker = CircuitBreaker::new(config().on_transition(hook)).unwrap();
    *own.lock().unwrap() = Some(breaker.clone());
    breaker.try_acquire().unwrap().failure();
    breaker.reset("enough");
    *own.lock().unwrap() = None;
    let expected =
        ["closed -> open: too many calls failed (1 of 1 call failed), now open", "open -> closed: enough, now closed"];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn the_pool_asks_by_its_own_clock() {
    let breaker = breaker();
    let mut now = Instant::now();
    let record = |now, ticket: Ticket, outcome| breaker.record(now, ticket, outcome, Duration::ZERO);
    breaker.check(|| now).unwrap();
    record(now, breaker.admit(|| now, soon).unwrap(), Outcome::Unreachable);
    assert_eq!(breaker.check(|| now).unwrap_err().retry_after, 5 * SECOND);
    breaker.server_answers(now);
    breaker.check(|| now).unwrap();
    let probe = breaker.admit(|| now, soon).unwrap();
    breaker.check(|| now).unwrap_err();
    breaker.release(now, probe);
    now += SECOND;
    record(now, breaker.admit(|| now, soon).unwrap(), Outcome::Success);
    breaker.check(|| now).unwrap();
}

#[test]
fn a_free_pass_ends_with_its_state() {
    let breaker = breaker();
    let order: [fn(&CircuitBreaker); 4] =
        [|b| b.force_open("a"), |b| b.record_health_check(false), |b| b.import(&half_open()), |b| b.shutdown()];
    for close in order {
        assert!(breaker.shared.pass().is_some());
        close(&breaker);
        assert!(breaker.shared.pass().is_none());
        breaker.reset("again");
    }
    assert!(opossum().shared.pass().is_none(), "opossum counts who asks");
}

/// The tally changes nothing but the speed: beside the plain rules, which take every result under the lock.
fn is_as_the_plain_rules(count_window: bool, steps: &[(u8, u64)]) {
    let by_time = || config().volume_threshold(4).slow_call(SECOND, 60);
    let config = || if count_window { by_time().count_window(12) } else { by_time() };
    let breaker = CircuitBreaker::new(config()).unwrap();
    let mut now = now();
    let mut plain = Breaker::new(now, config().finish().unwrap().settings, 0.0);
    let mut under_way = Vec::new();
    for (step, ms) in steps {
        now += Duration::from_millis(*ms);
        if *step < 3 {
            let (one, other) = (breaker.admit(|| now, soon), plain.admit(now));
            assert_eq!(one, other);
            under_way.extend(one);
        } else if let Some(ticket) = under_way.pop() {
            let outcome = if *step < 8 { Outcome::Success } else { Outcome::Failure };
            let took = if *step == 4 { 2 * SECOND } else { SECOND };
            breaker.record(now, ticket, outcome, took);
            plain.record(now, ticket, outcome, took, || 0.0);
        }
    }
    let snapshot = breaker.shared.with(|breaker| breaker.snapshot(now));
    assert_eq!((snapshot.state, snapshot.counts), (plain.state(now), plain.snapshot(now).counts));
}

proptest! {
    #[test]
    fn successes_beside_the_lock_count_as_those_under_it(
        count_window: bool,
        steps in prop::collection::vec((0u8..10, prop_oneof![3 => Just(0), 2 => 0u64..300, 1 => 0u64..3_000]), 1..150),
    ) {
        is_as_the_plain_rules(count_window, &steps);
    }
}

#[test]
fn most_successes_need_no_lock() {
    let breaker = breaker();
    let now = now();
    let record = |now, outcome| breaker.record(now, breaker.admit(|| now, soon).unwrap(), outcome, Duration::ZERO);
    record(now, Outcome::Success);
    let locked = breaker.shared.hold_lock();
    record(now, Outcome::Success);
    drop(locked);
    // The bucket has ended: somebody has to look whether the rest of the window is worse.
    record(now + SECOND, Outcome::Success);
    assert_eq!(breaker.snapshot().counts.completed, 3);
}

#[test]
fn errors_read_well_and_keep_their_source() {
    let error = CallError::Failed(io::Error::other("broken"));
    assert_eq!(error.to_string(), "broken");
    let open: CallError<io::Error> = CallError::Open { name: None, retry_after: SECOND };
    assert_eq!(open.to_string(), "the circuit is open; come back in 1s");
    let breaker = breaker();
    breaker.force_open("maintenance");
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.to_string(), "the circuit is forced open; come back in 5s");
}

#[test]
fn goes_anywhere() {
    fn is_send_and_sync<T: Send + Sync + Clone + std::fmt::Debug + 'static>(_: &T) {}
    fn is_send<T: Send>(_: T) {}
    let breaker = breaker();
    is_send_and_sync(&breaker);
    is_send(breaker.call(succeed()));
    is_send(breaker.try_acquire());
}

#[test]
fn a_hook_that_panics_harms_nobody() {
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let config = BreakerConfig::default().on_transition(|_| panic!("a test")).on_transition(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let breaker = CircuitBreaker::new(config).unwrap();
    breaker.force_open("a test");
    assert_eq!((breaker.state(), told.load(Ordering::SeqCst)), (State::ForcedOpen, 1));
}
