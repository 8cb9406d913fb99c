//! A failsafe state machine in the place of ours. Its clock is stopped, and turned by hand.

use std::time::Instant;

use failsafe::clock::freeze;
use failsafe::{StateMachine, backoff, failure_policy};

use super::*;
use crate::breaker::{BreakerConfig, CircuitBreaker, Export};
use crate::policy::{Deadline, Ticket};

const SECOND: Duration = Duration::from_secs(1);

fn machine() -> StateMachine<impl failsafe::FailurePolicy + Send + 'static, ()> {
    StateMachine::new(failure_policy::consecutive_failures(2, backoff::constant(SECOND)), ())
}

fn config() -> BreakerConfig {
    BreakerConfig::default().reset_timeout(7 * SECOND)
}

/// A pool's breaker, with such a machine.
fn foreign() -> CircuitBreaker {
    CircuitBreaker::for_pool(config(), Some(Arc::new(machine()))).unwrap()
}

fn admit(breaker: &CircuitBreaker) -> Result<Ticket, Denied> {
    breaker.check(Instant::now)?;
    breaker.admit(Instant::now, Deadline::at)
}

fn record(breaker: &CircuitBreaker, outcome: Outcome) {
    let ticket = admit(breaker).unwrap();
    breaker.record(Instant::now(), ticket, outcome, Duration::ZERO);
}

#[test]
fn the_machine_decides_and_ours_is_disabled() {
    let breaker = foreign();
    assert_eq!(breaker.state(), State::Disabled);
    let history = breaker.snapshot().history;
    assert!(history[0].transition.to_string().contains("a failsafe state machine decides"), "{history:?}");

    record(&breaker, Outcome::Failure);
    record(&breaker, Outcome::Success);
    record(&breaker, Outcome::Unreachable);
    record(&breaker, Outcome::Ignored);
    assert!(admit(&breaker).is_ok());
    record(&breaker, Outcome::Failure);
    let denied = Denied { state: State::Open, retry_after: 7 * SECOND, may_end_early: false };
    assert_eq!(admit(&breaker), Err(denied));
    assert_eq!(breaker.admit(Instant::now, Deadline::at), Err(denied));
}

#[test]
fn half_open_failsafe_lets_everybody_through_where_ours_lets_one() {
    freeze(|clock| {
        let theirs = foreign();
        record(&theirs, Outcome::Failure);
        record(&theirs, Outcome::Failure);
        admit(&theirs).unwrap_err();
        clock.advance(2 * SECOND);
        assert_eq!((0..100).filter(|_| admit(&theirs).is_ok()).count(), 100);
    });
    let ours = CircuitBreaker::for_pool(config(), None).unwrap();
    ours.import(&Export { state: State::HalfOpen, ..Export::default() });
    assert_eq!((0..100).filter(|_| admit(&ours).is_ok()).count(), 1);
}

#[test]
fn of_dials_only_failures_are_told() {
    freeze(|clock| {
        let breaker = foreign();
        let dialed = |outcome| {
            let ticket = breaker.pass().unwrap();
            breaker.record_dial(Instant::now(), ticket, outcome, Duration::ZERO);
        };
        dialed(Outcome::Unreachable);
        dialed(Outcome::Success);
        dialed(Outcome::Unreachable);
        admit(&breaker).unwrap_err();
        clock.advance(2 * SECOND);
        assert!(admit(&breaker).is_ok());
        dialed(Outcome::Success);
        // Still half-open: one failure is enough.
        record(&breaker, Outcome::Failure);
        admit(&breaker).unwrap_err();
    });
}

#[test]
fn what_is_ordered_by_hand_holds() {
    let breaker = foreign();
    breaker.force_open("maintenance");
    assert_eq!(admit(&breaker).unwrap_err().state, State::ForcedOpen);
    breaker.disable("over");
    assert!(admit(&breaker).is_ok());
}
