//! Connections that were idle for long, or are too old.

use super::*;
use crate::policy::Lifetimes;

const SECOND: Duration = Duration::from_secs(1);

/// A core with so many idle connections, given back one second apart. Returns the instant of the last.
fn with_idle(size: usize, ages: Ages) -> (Core<u32, u32>, Instant) {
    let mut now = Instant::now();
    let limits = Limits {
        max_size: 10,
        max_waiting: 10,
        max_connecting: 10,
        wait_budget: SECOND,
        ages,
        lanes: Lane::ALL.map(LaneLimits::of),
    };
    let mut core = Core::new(now, limits);
    core.set_target(size);
    let begin = core.begin_dials(now);
    core.set_target(0);
    for number in begin.dials {
        let conn = u32::try_from(number).unwrap();
        until(&mut core, now);
        assert_eq!(core.on_dialed(now, number, conn).to, Place::Idle);
        now += SECOND;
    }
    assert_eq!(core.counts().idle, size);
    (core, now - SECOND)
}

/// Maintenance reads the time and finds nothing to do.
fn until(core: &mut Core<u32, u32>, now: Instant) {
    assert_eq!(core.reap(now), [] as [u32; 0]);
}

fn after(seconds: u32) -> Option<Duration> {
    Some(seconds * SECOND)
}

/// How long the pool has lived by then.
fn life(core: &Core<u32, u32>, now: Instant) -> u64 {
    u64::try_from((now - core.begun).as_millis()).unwrap()
}

#[test]
fn connections_beyond_min_idle_are_closed_after_the_idle_timeout() {
    let (mut core, now) = with_idle(5, Ages { min_idle: 2, idle_timeout: after(60), ..Ages::default() });
    assert_eq!(core.reap(now + 55 * SECOND), [] as [u32; 0]);
    assert_eq!(core.reap(now + 57 * SECOND), [0, 1], "given back four and three seconds before the last");
    assert_eq!(core.reap(now + 90 * SECOND), [2], "two are kept");
    assert_eq!(core.counts().closing, 3);
}

#[test]
fn the_pool_dials_up_to_min_idle_within_the_limit() {
    let (mut core, now) = with_idle(4, Ages { min_idle: 4, ..Ages::default() });
    assert!(core.begin_dials(now).dials.is_empty());
    let held: Vec<_> = (0..3).map_while(|_| core.take(now, Lane::Normal)).collect();
    assert_eq!(core.begin_dials(now).dials.count(), 3, "those in use do not count");
    assert_eq!(held.len(), 3);
    assert_eq!(core.resize(now, 7), [] as [u32; 0]);
    assert!(core.begin_dials(now).dials.is_empty(), "no slot is free");
}

#[test]
fn a_connection_that_is_too_old_is_not_used_again() {
    let ages = Ages { lifetimes: Lifetimes::new(after(100), 0.0), ..Ages::default() };
    let (mut core, now) = with_idle(2, ages);
    let begun = now - SECOND;
    // The first may live for 100 s, the second, a second younger, for 98.
    until(&mut core, begun + 98 * SECOND);
    let (second, first) = (core.take(now, Lane::Normal).unwrap(), core.take(now, Lane::Normal).unwrap());
    assert!(!second.is_expired() && !first.is_expired());
    assert_eq!(release(&mut core, begun + 98 * SECOND, first).to, Place::Idle);
    until(&mut core, begun + 99 * SECOND);
    assert_eq!(release(&mut core, begun + 99 * SECOND, second).to, Place::Closing(1), "too old when given back");
    let first = core.take(begun + 99 * SECOND, Lane::Normal).unwrap();
    assert!(!first.is_expired());
    until(&mut core, begun + 100 * SECOND);
    assert_eq!(release(&mut core, begun + 100 * SECOND, first).to, Place::Closing(0));
}

#[test]
fn connections_that_are_too_old_are_closed_in_spite_of_min_idle() {
    let ages = Ages { min_idle: 2, lifetimes: Lifetimes::new(after(100), 0.0), ..Ages::default() };
    let (mut core, now) = with_idle(2, ages);
    assert_eq!(core.reap(now + 100 * SECOND), [0, 1]);
    assert_eq!(core.begin_dials(now + 100 * SECOND).dials.count(), 2);
}

#[test]
fn the_fast_path_hands_out_no_connection_that_is_too_old() {
    let ages = Ages { lifetimes: Lifetimes::new(after(100), 0.0), ..Ages::default() };
    let (mut core, now) = with_idle(4, ages);
    let held = core.take_fast(life(&core, now + 50 * SECOND)).unwrap();
    assert!(core.take_fast(life(&core, now + 100 * SECOND)).is_none());
    assert_eq!(
        core.release_fast(held).map(|held| held.conn),
        Some(3),
        "the fast path leaves this one to the slow path"
    );
}

#[test]
fn a_connection_that_was_idle_for_long_is_checked_and_keeps_its_age() {
    let ages = Ages { idle_timeout: after(100), check_after: after(30), ..Ages::default() };
    let (mut core, now) = with_idle(4, ages);
    until(&mut core, now + 18 * SECOND);
    assert!(core.begin_checks(now + 18 * SECOND).is_empty(), "three quarters of 30 s, less 3 s");
    until(&mut core, now + 30 * SECOND);
    let mut checks = core.begin_checks(now + 30 * SECOND);
    assert_eq!(checks.iter().map(|check| check.held.conn).collect::<Vec<_>>(), [0, 1], "half of those idle");
    assert_eq!((core.counts().idle, core.counts().settling, core.counts().in_use), (2, 2, 0));
    assert_eq!(core.on_checked(now + 30 * SECOND, checks.remove(0)).to, Place::Idle);
    assert_eq!(core.on_checked(now + 30 * SECOND, checks.remove(0)).to, Place::Idle);
    until(&mut core, now + 31 * SECOND);
    let again = core.begin_checks(now + 31 * SECOND);
    assert_eq!(again.iter().map(|check| check.held.conn).collect::<Vec<_>>(), [2, 3], "the others");
    for check in again {
        let _ = core.on_checked(now + 31 * SECOND, check);
    }
    assert_eq!(core.reap(now + 99 * SECOND), [0, 1, 2], "a check does not make a connection younger");
    let last = core.begin_due_check(now + 99 * SECOND).unwrap();
    assert_eq!(core.on_checked(now + 99 * SECOND, last).to, Place::Idle);
    assert_eq!(core.take(now + 99 * SECOND, Lane::Normal).unwrap().conn, 3, "the most recently used");
}

/// Maintenance did not run meanwhile: the process was stopped.
#[test]
fn a_connection_overdue_at_hand_out_is_checked_while_its_caller_waits() {
    for ages in
        [Ages { check_after: after(30), ..Ages::default() }, Ages { idle_timeout: after(30), ..Ages::default() }]
    {
        let (mut core, now) = with_idle(2, ages);
        assert!(core.take(now + 29 * SECOND, Lane::Normal).is_some_and(|held| held.conn == 1), "not yet");
        let later = now + 60 * SECOND;
        assert!(core.take_fast(life(&core, later)).is_none() && core.take(later, Lane::Normal).is_none());
        assert!(matches!(core.enter(later, patient(later, 100), || 7), Ok(Entered::Waits(_))));
        let check = core.begin_due_check(later).unwrap();
        assert_eq!((check.held.conn, core.counts().idle), (0, 0));
        assert!(matches!(core.on_checked(later, check).to, Place::Waiter(_, 7, _)));
    }
}

/// The process was stopped while callers had connections. They give them back while another waits for a check.
#[test]
fn a_connection_given_back_goes_to_a_caller_that_waits_for_a_check() {
    let (mut core, now) = with_idle(4, Ages { check_after: after(30), ..Ages::default() });
    let held = core.take_fast(life(&core, now)).or_else(|| core.take_fast(life(&core, now))).unwrap();
    let later = now + 60 * SECOND;
    assert!(core.take(later, Lane::Normal).is_none(), "all are overdue");
    assert!(matches!(core.enter(later, patient(later, 100), || 7), Ok(Entered::Waits(_))));
    let check = core.begin_due_check(later).unwrap();
    let held = core.release_fast(held).expect("somebody waits");
    assert!(matches!(release(&mut core, later, held).to, Place::Waiter(_, 7, _)));
    assert_eq!(core.on_checked(later, check).to, Place::Idle);
}

/// The rule of refusal does not apply to a caller for which a connection is checked. There are at most as many of them
/// as connections, because the shell begins a check for each.
#[test]
fn while_overdue_connections_are_checked_the_queue_is_bounded() {
    for (max_waiting, longest) in [(0, 4), (2, 4), (10, 10)] {
        let (mut core, now) = with_idle(4, Ages { check_after: after(30), ..Ages::default() });
        core.limits.max_waiting = max_waiting;
        let later = now + 60 * SECOND;
        let mut checks = Vec::new();
        let refused = loop {
            match core.enter(later, patient(later, 100), || 7) {
                Ok(Entered::Waits(_)) => checks.extend(core.begin_due_check(later)),
                Ok(Entered::Took(_)) => panic!("all are overdue"),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, Refusal::Shed(ShedReason::QueueFull, _)), "{refused:?}");
        assert_eq!((core.counts().waiting, checks.len()), (longest, 4), "max_waiting {max_waiting}");
    }
}

#[test]
fn a_connection_that_is_too_old_at_hand_out_is_not_used() {
    let ages = Ages { lifetimes: Lifetimes::new(after(100), 0.0), ..Ages::default() };
    let (mut core, now) = with_idle(3, ages);
    let later = now + 100 * SECOND;
    assert!(core.take_fast(life(&core, later)).is_none());
    assert!(core.take(later, Lane::Normal).is_some_and(|held| held.is_expired()));
}

#[test]
fn a_recently_checked_connection_is_handed_out_before_an_overdue_one() {
    let (mut core, now) = with_idle(4, Ages { check_after: after(30), ..Ages::default() });
    until(&mut core, now + 25 * SECOND);
    for check in core.begin_checks(now + 25 * SECOND) {
        let _ = core.on_checked(now + 25 * SECOND, check);
    }
    assert_eq!(core.take(now + 40 * SECOND, Lane::Normal).unwrap().conn, 1, "3 and 2 are fresher, and overdue");
}

#[test]
fn a_checked_connection_goes_to_the_first_waiter() {
    let (mut core, now) = with_idle(1, Ages { check_after: after(30), ..Ages::default() });
    let now = now + 30 * SECOND;
    until(&mut core, now);
    let mut checks = core.begin_checks(now);
    core.resize(now, 1);
    assert!(matches!(core.enter(now, patient(now, 100), || 7), Ok(Entered::Waits(_))));
    assert!(matches!(core.on_checked(now, checks.remove(0)).to, Place::Waiter(_, 7, _)));
}

#[test]
fn connections_idle_as_long_as_a_silent_one_are_closed_and_the_others_checked() {
    let (mut core, now) = with_idle(9, Ages { check_after: after(40), ..Ages::default() });
    let now = now + 25 * SECOND;
    until(&mut core, now);
    let checks = core.begin_checks(now);
    assert_eq!(checks.iter().map(|check| check.held.conn).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(core.on_silent(now, &checks[3]), [] as [u32; 0], "those that are as old are being checked");
    core.retire(now, checks[3].held.ended());
    assert_eq!(core.begin_checks(now).len(), 1, "of the five others as many as may be");
    let (mut core, now) = with_idle(9, Ages { check_after: after(40), ..Ages::default() });
    let now = now + 22 * SECOND;
    until(&mut core, now);
    let checks = core.begin_checks(now);
    assert_eq!(checks.len(), 1);
    until(&mut core, now + 3 * SECOND);
    let mut others = core.begin_checks(now + 3 * SECOND);
    let youngest = others.pop().unwrap();
    let _ = core.on_checked(now, others.remove(0));
    assert_eq!(core.on_silent(now, &youngest), [1]);
}

/// However the lease began: on the fast path, on the slow one, or by hand-over without a round of maintenance before.
#[test]
fn the_age_of_a_lease_is_at_most_a_moment_too_low() {
    const MILLISECOND: Duration = Duration::from_millis(1);
    let (mut core, now) = with_idle(3, Ages::default());
    let age = |core: &mut Core<u32, u32>, held: &Held<u32>, at| core.life(at).since(held.moment());
    let begun = now + 730 * MILLISECOND;
    let fast = core.take_fast(life(&core, begun)).unwrap();
    let exact = core.take(begun + 20 * MILLISECOND, Lane::Normal).unwrap();
    for (after, expected) in [(Duration::ZERO, Duration::ZERO), (SECOND, 930 * MILLISECOND)] {
        let ages = [&fast, &exact].map(|held| age(&mut core, held, begun + after));
        assert_eq!(ages, [expected; 2], "after {after:?}");
    }

    let last = core.take(begun, Lane::Normal).unwrap();
    let handed = now + 5 * SECOND;
    let waiter = core.enter(now + SECOND, patient(now, 100_000), || 7);
    assert!(matches!(waiter, Ok(Entered::Waits(_))), "{waiter:?}");
    let Place::Waiter(_, 7, next) = release(&mut core, handed, last).to else { panic!("not handed over") };
    assert_eq!(age(&mut core, &next, handed + SECOND), 900 * MILLISECOND);
}
