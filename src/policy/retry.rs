//! Whether a call that failed runs again, and after which pause.
//!
//! Three questions, in this order. May it: what the failure says, and whether the call may be applied twice. Does it have the time: nothing is begun that
//! could not be done before the deadline. Can the server bear it: the [`Budget`](super::Budget), which is asked last, as it pays.
//!
//! Pauses grow by a factor up to a cap, and chance takes any part of them away ("full jitter"): callers that failed together come back apart.

use std::time::{Duration, Instant};

use super::{Budget, Condition, Deadline, Retry};

/// How long the pauses are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) initial: Duration,
    pub(crate) multiplier: f64,
    pub(crate) max: Duration,
}

impl Schedule {
    /// Before the second attempt (`retry` 1), the third, and so on. `random01` is random, from 0 to 1.
    pub(crate) fn pause(&self, retry: u32, random01: f64) -> Duration {
        let factor = self.multiplier.powf(f64::from(retry.saturating_sub(1)));
        let longest = (self.initial.as_secs_f64() * factor).min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(longest * random01.clamp(0.0, 1.0)).unwrap_or(self.max)
    }
}

/// A call that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    /// What the failure says of another try.
    pub(crate) retry: Retry,
    /// Attempts made.
    pub(crate) attempts: u32,
    /// The caller says that it may be applied twice.
    pub(crate) is_idempotent: bool,
    /// Its connection had been dead before it began.
    pub(crate) was_stale: bool,
    /// It took all of its time.
    pub(crate) timed_out: bool,
    /// Another transaction was in the way, which has succeeded: that says nothing of a server in trouble.
    pub(crate) is_free: bool,
    pub(crate) deadline: Deadline,
    /// How long the like of it take.
    pub(crate) work: Duration,
}

impl Failed {
    /// Whether another attempt is allowed at all. `limited` failures, of which the reason may stay, are tried again once.
    pub(crate) fn may_run_again(&self, max_attempts: u32) -> bool {
        self.attempts < self.allowed(max_attempts)
    }

    /// Whether another attempt would have been, had there been fewer before.
    pub(crate) fn is_safe(&self) -> bool {
        self.allowed(u32::MAX) > 1
    }

    fn allowed(&self, max_attempts: u32) -> u32 {
        let (Retry::SameConnection(condition) | Retry::NewConnection(condition) | Retry::OtherHost(condition)) =
            self.retry
        else {
            return 0;
        };
        match condition {
            Condition::Scheduled => max_attempts,
            Condition::Limited | Condition::OnceHealed => max_attempts.min(2),
            Condition::IfIdempotent if self.is_idempotent => max_attempts,
            Condition::IfIdempotent => 1,
        }
    }

    /// Whether the call could be done before its deadline if it began after `pause`.
    pub(crate) fn has_time(&self, now: Instant, pause: Duration) -> bool {
        self.deadline.left(now) > pause.saturating_add(self.work)
    }

    /// The first retry after a connection that was dead already asks nothing more of the server than the call itself: it need not wait, and pays nothing.
    pub(crate) fn is_immediate(&self) -> bool {
        self.was_stale && self.attempts == 1
    }

    /// Whether the server can bear another attempt. If so, it is paid for.
    pub(crate) fn pay(&self, now: Instant, budget: &mut Budget) -> bool {
        if self.is_free || self.is_immediate() {
            return true;
        }
        if self.timed_out { budget.withdraw_after_timeout(now) } else { budget.withdraw(now) }
    }
}

#[cfg(test)]
mod tests {
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
    fn what_may_have_been_applied_runs_again_only_if_it_may_be_applied_twice() {
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
        assert_eq!(attempts(Condition::OnceHealed), 2);
        assert_eq!(attempts(Condition::IfIdempotent), 1);
    }

    #[test]
    fn nothing_begins_that_could_not_be_done_in_time() {
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
    fn a_timeout_pays_double() {
        let now = Instant::now();
        let mut budget = Budget::new(now, 2.0);
        assert!(Failed { timed_out: true, ..failed(Retry::Never) }.pay(now, &mut budget));
        assert!(!failed(Retry::Never).pay(now, &mut budget));
        assert!(Failed { is_free: true, ..failed(Retry::Never) }.pay(now, &mut budget));
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
}
