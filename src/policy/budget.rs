//! How many retries the server is burdened with: a token bucket that successes fill.
//!
//! While all goes well there are retries for everybody. When most fails, they run out, and what reaches the server is little more than what was asked of the
//! pool. A little is let through in any case, so that a quiet service may retry at all. A budget fed by requests, as others have it, would
//! go on to add its share for as long as an outage lasts.

use std::time::Instant;

/// A retry pays this.
const RETRY: f64 = 1.0;
/// A retry after a timeout: the server may still be at work on the attempt before.
const AFTER_TIMEOUT: f64 = 2.0;
/// What a success brings in.
const SUCCESS: f64 = 0.2;
/// What a second brings in.
const SECOND: f64 = 1.0;

#[derive(Debug)]
pub(crate) struct Budget {
    tokens: f64,
    most: f64,
    filled: Instant,
}

impl Budget {
    /// Full. It never holds more than `most`.
    pub(crate) fn new(now: Instant, most: f64) -> Self {
        Self { tokens: most, most, filled: now }
    }

    /// A call succeeded. Tells whether the budget is full.
    pub(crate) fn deposit(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens = (self.tokens + SUCCESS).min(self.most);
        self.tokens >= self.most
    }

    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        self.take(now, RETRY)
    }

    pub(crate) fn withdraw_after_timeout(&mut self, now: Instant) -> bool {
        self.take(now, AFTER_TIMEOUT)
    }

    fn take(&mut self, now: Instant, price: f64) -> bool {
        self.fill(now);
        let has_enough = self.tokens >= price;
        if has_enough {
            self.tokens -= price;
        }
        has_enough
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + seconds * SECOND).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn five_successes_pay_for_a_retry() {
        let now = Instant::now();
        let mut budget = Budget::new(now, 10.0);
        assert_eq!((0..20).filter(|_| budget.withdraw(now)).count(), 10);
        (0..4).for_each(|_| assert!(!budget.deposit(now)));
        assert!(!budget.withdraw(now));
        budget.deposit(now);
        assert!(budget.withdraw(now));
    }

    #[test]
    fn one_retry_a_second_is_let_through_while_nothing_succeeds() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun, 10.0);
        let retries = (0..6_000).filter(|n| budget.withdraw(begun + Duration::from_millis(10 * n))).count();
        assert!((60..=70).contains(&retries), "{retries}");
    }

    #[test]
    fn it_never_holds_more_than_its_cap() {
        let now = Instant::now();
        let mut budget = Budget::new(now, 10.0);
        assert!(budget.deposit(now + Duration::from_secs(1_000)));
        assert_eq!((0..20).filter(|_| budget.withdraw(now + Duration::from_secs(1_000))).count(), 10);
    }

    #[test]
    fn a_clock_that_steps_back_brings_nothing_in() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut budget = Budget::new(now, 10.0);
        assert!((0..10).all(|_| budget.withdraw(now)));
        assert!(!budget.withdraw(now - Duration::from_secs(5)));
        assert!(!budget.withdraw(now));
    }
}
