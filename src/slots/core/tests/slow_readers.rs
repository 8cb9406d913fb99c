//! When slow readers have all connections, the pool refuses newcomers at once, and only then.

use super::*;

const FIRST: u64 = 7;
const SECOND: u64 = 9;

/// A pool of two connections, both in use.
fn full(begun: Instant) -> Core<u32, ()> {
    let ages = Ages { lifetimes: Lifetimes::new(None, 0.0), min_idle: 0, idle_timeout: None, check_after: None };
    let limits = Limits {
        max_size: 2,
        max_waiting: 10,
        max_connecting: 2,
        wait_budget: 1_000 * MS,
        ages,
        lanes: Lane::ALL.map(LaneLimits::of),
    };
    let mut core = Core::new(begun, limits);
    core.set_target(2);
    for dial in core.begin_dials(begun).dials {
        core.on_dialed(begun, dial, dial as u32);
    }
    core.set_target(0);
    while core.take(begun, Lane::Normal).is_some() {}
    core
}

fn enter(core: &mut Core<u32, ()>, now: Instant, millis: u64, shedding: Shedding) -> Result<(), Refusal> {
    let wait_policy = WaitPolicy { shedding, ..patient(now, millis) };
    core.enter(now, wait_policy, || ()).map(|_| ())
}

#[test]
fn a_caller_that_cannot_wait_for_the_first_reader_is_refused_at_once() {
    let now = Instant::now();
    let mut core = full(now);
    core.set_slow_reader(FIRST, Some(now + 5_000 * MS));
    assert_eq!(enter(&mut core, now, 1_000, Shedding::Predictive), Ok(()), "the other connection may come back");
    core.set_slow_reader(SECOND, Some(now + 3_000 * MS));
    let refused = Err(Refusal::Shed(ShedReason::Unread, 3_000 * MS));
    assert_eq!(enter(&mut core, now, 1_000, Shedding::Predictive), refused);
    assert_eq!(enter(&mut core, now, 4_000, Shedding::Predictive), Ok(()), "the first reader is done by then");
    assert_eq!(enter(&mut core, now, 1_000, Shedding::QueueOnly), Ok(()), "the pool predicts nothing for this caller");
    core.set_slow_reader(FIRST, None);
    assert_eq!(enter(&mut core, now, 1_000, Shedding::Predictive), Ok(()));
}

#[test]
fn no_caller_is_refused_while_the_pool_can_dial() {
    let now = Instant::now();
    let mut core = full(now);
    for connection in [FIRST, SECOND] {
        core.set_slow_reader(connection, Some(now + 5_000 * MS));
    }
    core.resize(now, 3);
    assert_eq!(enter(&mut core, now, 1_000, Shedding::Predictive), Ok(()));
}
