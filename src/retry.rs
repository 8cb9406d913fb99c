//! Retries: the settings, and the budget that all calls of a pool share.
//!
//! How a failed call comes to run again: `src/policy/classify.rs` says what the failure means, `src/policy/retry.rs`
//! has the rules (may it, is there time, can the budget pay?), and `src/call/attempts.rs` is the loop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::ConfigError;
use crate::policy::{Budget, Failed, Schedule};

const MOST_ATTEMPTS: u32 = 100;
const MOST_TOKENS: u32 = 1_000_000;
const LARGEST_MULTIPLIER: f64 = 1_000.0;
const LONGEST_BACKOFF: Duration = Duration::from_secs(24 * 3600);

/// How a pool retries calls that failed. It retries whole calls ([`Pool::query`](crate::Pool::query) and its like,
/// [`Pool::run`](crate::Pool::run), [`Pool::transaction`](crate::Pool::transaction)), and never single statements of a
/// [`Client`](crate::Client).
///
/// The pool retries only calls that were certainly not applied. The most frequent reasons:
///
/// - The database was not reached, was full (53300) or not ready (57P03).
/// - The connection had been dead before anything was written.
/// - Another transaction was in the way of a [transaction](crate::Pool::transaction) (40001, 40P01), which runs again
///   as a whole.
///
/// `docs/failure-semantics.md` has the whole table.
///
/// With [`Call::idempotent`](crate::Call::idempotent) it also retries calls that may have been applied, and single
/// statements that lost a conflict or found something in use: a procedure may have committed before that. It never
/// retries a COMMIT that was not answered, nor a call that the pool itself refused.
///
/// No attempt begins that could not end before the call's deadline. Between attempts a call holds nothing. Each attempt
/// passes the circuit breaker and the queue like a new call.
///
/// ```
/// use std::time::Duration;
/// use failfast::RetryConfig;
///
/// let config = RetryConfig::default().max_attempts(5).initial_backoff(Duration::from_millis(20));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a configuration does nothing until a pool is built with it"]
pub struct RetryConfig {
    max_attempts: u32,
    schedule: Schedule,
    foreign: Option<Foreign>,
    budget: Option<u32>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let schedule = Schedule { initial: Duration::from_millis(100), multiplier: 2.0, max: Duration::from_secs(5) };
        Self { max_attempts: 3, schedule, foreign: None, budget: None }
    }
}

impl RetryConfig {
    /// Returns settings without retries.
    pub fn off() -> Self {
        Self::default().max_attempts(1)
    }

    /// The maximum number of attempts of a call, including the first. 1 to 100. Default: 3.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The longest pause before the second attempt. Jitter shortens each pause by a random part. More than 0, at most
    /// [`max_backoff`](Self::max_backoff). Default: 100 ms.
    pub fn initial_backoff(mut self, backoff: Duration) -> Self {
        self.schedule.initial = backoff;
        self
    }

    /// The factor by which the pause grows with each attempt. 1 to 1,000. Default: 2.
    pub fn backoff_multiplier(mut self, multiplier: f64) -> Self {
        self.schedule.multiplier = multiplier;
        self
    }

    /// The longest pause. [`initial_backoff`](Self::initial_backoff) to 24 hours. Default: 5 s.
    pub fn max_backoff(mut self, backoff: Duration) -> Self {
        self.schedule.max = backoff;
        self
    }

    /// Takes the pauses from a schedule of the backoff crate, for services that already have one, instead of the three
    /// settings above. Feature `backoff`. `factory` makes one schedule for each call; the pool resets it when the call
    /// begins.
    ///
    /// The pool asks the schedule once for each retry. `None` ends the retries; so do the maximum number of attempts,
    /// the deadline and the budget. A retry that needs no pause, because the connection had been dead already, has
    /// none.
    ///
    /// ```
    /// use backoff::ExponentialBackoff;
    /// use failfast::RetryConfig;
    ///
    /// let config = RetryConfig::default().backoff_with(ExponentialBackoff::default);
    /// ```
    #[cfg(any(feature = "backoff", test))]
    pub fn backoff_with<B>(mut self, factory: impl Fn() -> B + Send + Sync + 'static) -> Self
    where
        B: backoff::backoff::Backoff + Send + 'static,
    {
        self.foreign = Some(Foreign(Arc::new(move || {
            let mut schedule = factory();
            schedule.reset();
            Box::new(move || schedule.next_backoff())
        })));
        self
    }

    /// The retry budget: how many retries there can be before successful calls have to pay for more. Each success adds
    /// 0.2 retries to the budget, and each second adds one. A retry after a timeout costs two. 0 to 1,000,000. Default:
    /// twice [`max_size`](crate::PoolBuilder::max_size), at least 10. With 0, only retries that need no budget remain:
    /// those of a transaction after a conflict or an outdated prepared statement, and the first one of a call whose
    /// connection was dead before anything was sent.
    pub fn budget(mut self, retries: u32) -> Self {
        self.budget = Some(retries);
        self
    }

    /// Checks the settings. `max_size` is that of the pool.
    pub(crate) fn finish(self, now: Instant, max_size: usize) -> Result<Retries, ConfigError> {
        let Schedule { initial, multiplier, max } = self.schedule;
        if !(1..=MOST_ATTEMPTS).contains(&self.max_attempts) {
            return Err(ConfigError::new("retry.max_attempts", self.max_attempts, "must be 1 to 100"));
        }
        for (setting, value) in [("retry.initial_backoff", initial), ("retry.max_backoff", max)] {
            if value.is_zero() || value > LONGEST_BACKOFF {
                return Err(ConfigError::new(
                    setting,
                    format!("{value:?}"),
                    "must be more than 0 and at most 24 hours",
                ));
            }
        }
        if !(1.0..=LARGEST_MULTIPLIER).contains(&multiplier) {
            return Err(ConfigError::new("retry.backoff_multiplier", multiplier, "must be 1 to 1000"));
        }
        if max < initial {
            return Err(ConfigError::new("retry.max_backoff", format!("{max:?}"), "must be at least initial_backoff"));
        }
        if let Some(tokens) = self.budget.filter(|tokens| *tokens > MOST_TOKENS) {
            return Err(ConfigError::new("retry.budget", tokens, "must be 0 to 1000000"));
        }
        let most = self.budget.map_or((2.0 * max_size as f64).max(10.0), f64::from);
        Ok(Retries {
            max_attempts: self.max_attempts,
            schedule: self.schedule,
            foreign: self.foreign,
            budget: Mutex::new(Budget::new(now, most)),
            is_full: AtomicBool::new(true),
        })
    }
}

/// Returns the next pause of one call. `None`: it does not run again.
type NextPause = dyn FnMut() -> Option<Duration> + Send;

/// Makes schedules of the backoff crate.
#[derive(Clone)]
struct Foreign(Arc<dyn Fn() -> Box<NextPause> + Send + Sync>);

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreign(..)")
    }
}

/// The pauses of one call. `None`: the pool's own schedule.
pub(crate) struct ForeignBackoff(Option<Box<NextPause>>);

/// The retries of one pool.
#[derive(Debug)]
pub(crate) struct Retries {
    max_attempts: u32,
    schedule: Schedule,
    foreign: Option<Foreign>,
    budget: Mutex<Budget>,
    /// A hint that the budget is full. Then a success adds nothing and takes no lock.
    is_full: AtomicBool,
}

impl Retries {
    /// Adds what a success is worth to the budget.
    pub(crate) fn on_success(&self, now: impl FnOnce() -> Instant) {
        if !self.is_full.load(Relaxed) {
            let mut budget = self.budget.lock();
            // Under the lock, because a retry may pay in between.
            self.is_full.store(budget.deposit(now()), Relaxed);
        }
    }

    /// Returns the pauses of a call that begins.
    pub(crate) fn backoff(&self) -> ForeignBackoff {
        ForeignBackoff(self.foreign.as_ref().map(|foreign| (foreign.0)()))
    }

    /// Returns whether a failed call that does not run again would have been safe to, so that only attempts, time or
    /// budget were missing.
    pub(crate) fn lacks_means(&self, failed: &Failed) -> bool {
        self.max_attempts > 1 && failed.is_safe()
    }

    /// Returns the pause after which a failed call runs again, and pays for it. `None`: it does not run again.
    pub(crate) fn next_pause(&self, now: Instant, failed: &Failed, pauses: &mut ForeignBackoff) -> Option<Duration> {
        if !failed.may_run_again(self.max_attempts) {
            return None;
        }
        let scheduled = match &mut pauses.0 {
            None => self.schedule.pause(failed.attempts, fastrand::f64()),
            Some(next) => next()?,
        };
        let pause = if failed.is_immediate() { Duration::ZERO } else { scheduled };
        if !failed.has_time(now, pause) {
            return None;
        }
        let mut budget = self.budget.lock();
        self.is_full.store(false, Relaxed);
        failed.pay(now, &mut budget).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use backoff::backoff::{Backoff, Constant, Stop};

    use super::*;
    use crate::policy::{Condition, Deadline, Retry};

    #[test]
    fn bad_settings_are_named_with_their_value() {
        let second = Duration::from_secs(1);
        let config = RetryConfig::default;
        for (config, message) in [
            (config().max_attempts(0), "retry.max_attempts = 0"),
            (config().max_attempts(101), "retry.max_attempts = 101"),
            (config().initial_backoff(Duration::ZERO), "retry.initial_backoff = 0ns"),
            (config().initial_backoff(10 * second), "retry.max_backoff = 5s"),
            (config().max_backoff(Duration::MAX), "retry.max_backoff = "),
            (config().backoff_multiplier(0.5), "retry.backoff_multiplier = 0.5"),
            (config().backoff_multiplier(f64::NAN), "retry.backoff_multiplier = NaN"),
            (config().budget(1_000_001), "retry.budget = 1000001"),
        ] {
            let error = config.finish(Instant::now(), 10).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn the_default_budget_follows_the_pool() {
        let retries = RetryConfig::default().finish(Instant::now(), 50).unwrap();
        let now = Instant::now();
        let mut budget = retries.budget.lock();
        assert_eq!((0..200).filter(|_| failed(now, 1).pay(now, &mut budget)).count(), 100);
    }

    /// A schedule of `whole` pauses of a second. A reset restores them.
    struct Few {
        left: u32,
        whole: u32,
    }

    impl Backoff for Few {
        fn reset(&mut self) {
            self.left = self.whole;
        }

        fn next_backoff(&mut self) -> Option<Duration> {
            self.left = self.left.checked_sub(1)?;
            Some(Duration::from_secs(1))
        }
    }

    fn few(whole: u32) -> impl Fn() -> Few {
        move || Few { left: 0, whole }
    }

    /// A call that has failed for the `attempts`-th time, with a minute left.
    fn failed(now: Instant, attempts: u32) -> Failed {
        Failed {
            retry: Retry::NewConnection(Condition::Scheduled),
            attempts,
            is_idempotent: false,
            was_stale: false,
            timed_out: false,
            is_free: false,
            deadline: Deadline::after(now, Duration::from_secs(60)),
            work: Duration::ZERO,
        }
    }

    /// Returns the pauses of one call that always fails.
    fn pauses(retries: &Retries, now: Instant) -> Vec<Duration> {
        let mut pauses = retries.backoff();
        (1..).map_while(|attempts| retries.next_pause(now, &failed(now, attempts), &mut pauses)).collect()
    }

    #[test]
    fn each_call_gets_a_foreign_schedule_that_is_reset_and_whose_end_ends_the_retries() {
        let now = Instant::now();
        let made = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&made);
        let schedule = move || {
            counted.fetch_add(1, Relaxed);
            few(2)()
        };
        let retries = RetryConfig::default().max_attempts(9).backoff_with(schedule).finish(now, 10).unwrap();
        for call in 1..=3 {
            assert_eq!(pauses(&retries, now), [Duration::from_secs(1); 2]);
            assert_eq!(made.load(Relaxed), call);
        }
    }

    #[test]
    fn attempts_deadline_and_budget_hold_with_a_foreign_schedule_too() {
        let now = Instant::now();
        let finish = |config: RetryConfig| config.finish(now, 10).unwrap();
        let attempts = finish(RetryConfig::default().max_attempts(3).backoff_with(few(9)));
        assert_eq!(pauses(&attempts, now).len(), 2);
        let budget = finish(RetryConfig::default().max_attempts(9).budget(4).backoff_with(few(9)));
        assert_eq!(pauses(&budget, now).len(), 4);
        for pause in [Duration::from_secs(60), Duration::MAX] {
            let late = finish(RetryConfig::default().backoff_with(move || Constant::new(pause)));
            assert_eq!(pauses(&late, now), []);
        }
    }

    #[test]
    fn a_foreign_schedule_is_asked_even_where_no_pause_is_needed() {
        let now = Instant::now();
        let stale = Failed { was_stale: true, ..failed(now, 1) };
        let never = RetryConfig::default().backoff_with(|| Stop {}).finish(now, 10).unwrap();
        assert_eq!(never.next_pause(now, &stale, &mut never.backoff()), None);
        let some = RetryConfig::default().backoff_with(few(1)).finish(now, 10).unwrap();
        let mut pauses = some.backoff();
        assert_eq!(some.next_pause(now, &stale, &mut pauses), Some(Duration::ZERO));
        assert_eq!(some.next_pause(now, &failed(now, 2), &mut pauses), None);
    }

    /// With a wrong hint, successes would add nothing until the next retry.
    #[test]
    fn the_hint_that_the_budget_is_full_is_never_wrong_for_long() {
        let now = Instant::now();
        let retries = RetryConfig::default().budget(10).finish(now, 10).unwrap();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    barrier.wait();
                    let _ = retries.next_pause(now, &failed(now, 1), &mut ForeignBackoff(None));
                    barrier.wait();
                }
            });
            for round in 0..20_000 {
                while !retries.budget.lock().deposit(now) {}
                retries.is_full.store(false, Relaxed);
                barrier.wait();
                retries.on_success(|| now);
                barrier.wait();
                let is_full = retries.budget.lock().deposit(now);
                assert!(is_full || !retries.is_full.load(Relaxed), "round {round}");
            }
        });
    }
}
