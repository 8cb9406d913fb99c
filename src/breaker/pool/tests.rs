//! The breaker of a pool: by the pool's clock, and with a failsafe state machine, whose clock the tests advance.

use std::time::Instant;

use failsafe::clock::freeze;
use failsafe::{StateMachine, backoff, failure_policy};

use super::*;
use crate::breaker::Export;

const SECOND: Duration = Duration::from_secs(1);

fn machine() -> StateMachine<impl failsafe::FailurePolicy + Send + 'static, ()> {
    StateMachine::new(failure_policy::consecutive_failures(2, backoff::constant(SECOND)), ())
}

fn config() -> BreakerConfig {
    BreakerConfig::default().reset_timeout(7 * SECOND)
}

fn with_machine() -> PoolBreaker {
    PoolBreaker::new(config(), Some(Arc::new(machine()))).unwrap()
}

fn half_open() -> Export {
    Export { state: State::HalfOpen, ..Export::default() }
}

fn admit(breaker: &PoolBreaker) -> Result<Ticket, Denied> {
    breaker.check(Instant::now)?;
    breaker.admit(Instant::now, Deadline::at)
}

fn record(breaker: &PoolBreaker, outcome: ResultKind) {
    let ticket = admit(breaker).unwrap();
    breaker.record(Instant::now(), ticket, outcome, Duration::ZERO);
}

#[test]
fn the_machine_decides_and_ours_is_disabled() {
    let breaker = with_machine();
    assert_eq!(breaker.own().state(), State::Disabled);
    let history = breaker.own().snapshot().history;
    assert!(history[0].transition.to_string().contains("a failsafe state machine decides"), "{history:?}");

    record(&breaker, ResultKind::Failure);
    record(&breaker, ResultKind::Success);
    record(&breaker, ResultKind::Unreachable);
    record(&breaker, ResultKind::Ignored);
    assert!(admit(&breaker).is_ok());
    record(&breaker, ResultKind::Failure);
    let denied = Denied { state: State::Open, retry_after: 7 * SECOND, may_end_early: false };
    assert_eq!(admit(&breaker), Err(denied));
    assert_eq!(breaker.admit(Instant::now, Deadline::at), Err(denied));
}

#[test]
fn a_half_open_machine_lets_every_call_through_where_ours_lets_one() {
    freeze(|clock| {
        let theirs = with_machine();
        record(&theirs, ResultKind::Failure);
        record(&theirs, ResultKind::Failure);
        admit(&theirs).unwrap_err();
        clock.advance(2 * SECOND);
        assert_eq!((0..100).filter(|_| admit(&theirs).is_ok()).count(), 100);
    });
    let ours = PoolBreaker::new(config(), None).unwrap();
    ours.own().import(&half_open());
    assert_eq!((0..100).filter(|_| admit(&ours).is_ok()).count(), 1);
}

#[test]
fn a_machine_gets_only_the_failed_dials() {
    freeze(|clock| {
        let breaker = with_machine();
        let dialed = |outcome| {
            let ticket = breaker.ticket_for_dial().unwrap();
            breaker.record_dial(Instant::now(), ticket, outcome, Duration::ZERO);
        };
        dialed(ResultKind::Unreachable);
        dialed(ResultKind::Success);
        dialed(ResultKind::Unreachable);
        admit(&breaker).unwrap_err();
        clock.advance(2 * SECOND);
        assert!(admit(&breaker).is_ok());
        dialed(ResultKind::Success);
        // Still half-open: one failure is enough.
        record(&breaker, ResultKind::Failure);
        admit(&breaker).unwrap_err();
    });
}

#[test]
fn an_order_holds_beside_a_machine() {
    let breaker = with_machine();
    breaker.own().force_open("maintenance");
    assert_eq!(admit(&breaker).unwrap_err().state, State::ForcedOpen);
    breaker.own().disable("over");
    assert!(admit(&breaker).is_ok());
}

#[test]
fn the_pool_asks_by_its_own_clock() {
    let config = BreakerConfig::default().volume_threshold(1).reset_timeout(5 * SECOND).reset_timeout_jitter(0);
    let breaker = PoolBreaker::new(config, None).unwrap();
    let soon = |now| Deadline::after(now, SECOND);
    let mut now = Instant::now();
    let record = |now, ticket: Ticket, outcome| breaker.record(now, ticket, outcome, Duration::ZERO);
    breaker.check(|| now).unwrap();
    record(now, breaker.admit(|| now, soon).unwrap(), ResultKind::Unreachable);
    assert_eq!(breaker.check(|| now).unwrap_err().retry_after, 5 * SECOND);
    breaker.on_server_answer(now);
    breaker.check(|| now).unwrap();
    let probe = breaker.admit(|| now, soon).unwrap();
    breaker.check(|| now).unwrap_err();
    breaker.release(now, probe);
    now += SECOND;
    record(now, breaker.admit(|| now, soon).unwrap(), ResultKind::Success);
    breaker.check(|| now).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_has_at_least_the_timeout_of_calls() {
    let config = config().probe_timeout(Duration::from_secs(1)).call_timeout(Duration::from_secs(30));
    let breaker = PoolBreaker::new(config, None).unwrap();
    let breaker = breaker.own();
    breaker.import(&half_open());
    let permit = breaker.try_acquire().unwrap();
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    permit.success();
    assert_eq!(breaker.state(), State::Closed);
}

/// The pool has its own name, events and metrics.
#[test]
fn a_pool_refuses_settings_that_have_no_effect_in_it() {
    let refused = |config| PoolBreaker::new(config, None).unwrap_err().to_string();
    let why = "is for a breaker by itself; a pool has a name, metrics and events of its own";
    assert_eq!(refused(config().name("stock")), format!("name = \"stock\": {why}"));
    assert_eq!(refused(config().latency(true)), format!("latency = true: {why}"));
    assert_eq!(refused(config().on_call(|_| {})), format!("on_call = a hook: {why}"));
}
