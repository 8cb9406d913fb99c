//! Attempts, pauses and the budget, by examples.

use proptest::prelude::*;

use super::*;

const SCHEDULE: Schedule =
    Schedule { initial: Duration::from_millis(100), multiplier: 2.0, max: Duration::from_secs(5) };

fn failed(retry: Retry) -> Failed {
    let deadline = Deadline::after(Instant::now(), Duration::from_secs(10));
    Failed {
        retry,
        attempts: 1,
        is_idempotent: false,
        was_stale: false,
        timed_out: false,
        is_free: false,
        deadline,
        work: Duration::ZERO,
    }
}

#[test]
fn pauses_double_up_to_the_cap() {
    let longest = |retry| SCHEDULE.pause(retry, 1.0).as_millis();
    assert_eq!([1, 2, 3, 6, 7, 1_000].map(longest), [100, 200, 400, 3_200, 5_000, 5_000]);
    assert_eq!(SCHEDULE.pause(3, 0.0), Duration::ZERO);
}

#[test]
fn a_call_that_may_have_been_applied_runs_again_only_if_idempotent() {
    let unknown = failed(Retry::NewConnection(Condition::IfIdempotent));
    assert!(!unknown.may_run_again(3));
    assert!(Failed { is_idempotent: true, ..unknown }.may_run_again(3));
    assert!(!Failed { is_idempotent: true, ..failed(Retry::Never) }.may_run_again(3));
}

#[test]
fn each_condition_has_its_number_of_attempts() {
    let attempts = |condition| {
        let failed = failed(Retry::SameConnection(condition));
        (1..).take_while(|attempts| Failed { attempts: *attempts, ..failed }.may_run_again(5)).count() + 1
    };
    assert_eq!(attempts(Condition::Scheduled), 5);
    assert_eq!(attempts(Condition::Limited), 2);
    assert_eq!(attempts(Condition::OnceReprepared), 2);
    assert_eq!(attempts(Condition::IfIdempotent), 1);
}

#[test]
fn no_attempt_begins_that_could_not_end_in_time() {
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_millis(100));
    let call = Failed { deadline, work: Duration::from_millis(40), ..failed(Retry::Never) };
    assert!(call.has_time(now, Duration::from_millis(59)));
    assert!(!call.has_time(now, Duration::from_millis(60)));
    assert!(!call.has_time(now, Duration::MAX));
}

#[test]
fn only_the_first_retry_after_a_stale_connection_is_immediate() {
    let stale = Failed { was_stale: true, ..failed(Retry::NewConnection(Condition::Scheduled)) };
    assert!(stale.is_immediate());
    assert!(!Failed { attempts: 2, ..stale }.is_immediate());
}

#[test]
fn a_retry_after_a_timeout_costs_double() {
    let now = Instant::now();
    let mut budget = Budget::new(now, 2.0);
    assert!(Failed { timed_out: true, ..failed(Retry::Never) }.pay(now, &mut budget));
    assert!(!failed(Retry::Never).pay(now, &mut budget));
    assert!(Failed { is_free: true, ..failed(Retry::Never) }.pay(now, &mut budget));
}

fn take(budget: &mut Budget, now: Instant) -> bool {
    budget.withdraw(now, RETRY)
}

#[test]
fn five_successes_pay_for_a_retry() {
    let now = Instant::now();
    let mut budget = Budget::new(now, 10.0);
    assert_eq!((0..20).filter(|_| take(&mut budget, now)).count(), 10);
    (0..4).for_each(|_| assert!(!budget.deposit(now)));
    assert!(!take(&mut budget, now));
    budget.deposit(now);
    assert!(take(&mut budget, now));
}

#[test]
fn one_retry_a_second_remains_while_nothing_succeeds() {
    let begun = Instant::now();
    let mut budget = Budget::new(begun, 10.0);
    let retries = (0..6_000).filter(|n| take(&mut budget, begun + Duration::from_millis(10 * n))).count();
    assert!((60..=70).contains(&retries), "{retries}");
}

#[test]
fn a_budget_never_holds_more_than_its_cap() {
    let now = Instant::now();
    let mut budget = Budget::new(now, 10.0);
    assert!(budget.deposit(now + Duration::from_secs(1_000)));
    assert_eq!((0..20).filter(|_| take(&mut budget, now + Duration::from_secs(1_000))).count(), 10);
}

#[test]
fn a_clock_that_steps_back_adds_nothing() {
    let now = Instant::now() + Duration::from_secs(10);
    let mut budget = Budget::new(now, 10.0);
    assert!((0..10).all(|_| take(&mut budget, now)));
    assert!(!take(&mut budget, now - Duration::from_secs(5)));
    assert!(!take(&mut budget, now));
}

proptest! {
    #[test]
    fn no_schedule_panics_or_exceeds_its_cap(
        initial in any::<u32>(), multiplier in 1.0f64..1e6, max in any::<u32>(), retry in any::<u32>(), random01 in 0.0f64..=1.0,
    ) {
        let max = Duration::from_millis(max.into());
        let schedule = Schedule { initial: Duration::from_millis(initial.into()), multiplier, max };
        prop_assert!(schedule.pause(retry, random01) <= max + Duration::from_nanos(1));
    }
}
