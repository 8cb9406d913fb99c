//! The rules of retries: may a failed call run again, after which pause, and can the server take another attempt?
//!
//! Three questions, in this order:
//!
//! 1. May the call run again? The failure decides, and whether the call may be applied twice.
//! 2. Is there time? No attempt begins that could not end before the deadline.
//! 3. Can the server take another attempt? The [`Budget`] decides. It comes last, because an attempt that passes pays.
//!
//! Pauses grow by a factor up to a cap. Jitter takes a random part of each pause away ("full jitter"), so that callers
//! that failed together do not return together. `src/retry.rs` has the settings, `src/call/attempts.rs` the loop.

use std::time::{Duration, Instant};

use super::{Condition, Deadline, Retry};

/// The cost of a retry.
const RETRY: f64 = 1.0;
/// The cost of a retry after a timeout. The server may still be at work on the attempt before.
const AFTER_TIMEOUT: f64 = 2.0;
/// The amount that a success adds.
const SUCCESS: f64 = 0.2;
/// The amount that each second adds.
const SECOND: f64 = 1.0;

/// How long the pauses are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) initial: Duration,
    pub(crate) multiplier: f64,
    pub(crate) max: Duration,
}

impl Schedule {
    /// Returns the pause before the second attempt (`retry` is 1), the third, and so on. `random01` is random, from 0
    /// to 1.
    pub(crate) fn pause(&self, retry: u32, random01: f64) -> Duration {
        let factor = self.multiplier.powf(f64::from(retry.saturating_sub(1)));
        let longest = (self.initial.as_secs_f64() * factor).min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(longest * random01.clamp(0.0, 1.0)).unwrap_or(self.max)
    }
}

/// A call that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    /// What the failure says about another attempt.
    pub(crate) retry: Retry,
    /// The number of attempts made.
    pub(crate) attempts: u32,
    /// Whether the caller allows the call to be applied twice.
    pub(crate) is_idempotent: bool,
    /// Whether the connection had been dead before the call began.
    pub(crate) was_stale: bool,
    /// Whether the call ran out of time.
    pub(crate) timed_out: bool,
    /// Whether another transaction was in the way. That transaction has succeeded, so the failure shows no server in
    /// trouble.
    pub(crate) is_free: bool,
    pub(crate) deadline: Deadline,
    /// How long another attempt is expected to take.
    pub(crate) work: Duration,
}

impl Failed {
    /// Returns whether another attempt is allowed. A call whose cause of failure may persist gets only one more.
    pub(crate) fn may_run_again(&self, max_attempts: u32) -> bool {
        self.attempts < self.allowed(max_attempts)
    }

    /// Returns whether another attempt would be safe, for any number of attempts made.
    pub(crate) fn is_safe(&self) -> bool {
        self.allowed(u32::MAX) > 1
    }

    fn allowed(&self, max_attempts: u32) -> u32 {
        let Some(condition) = self.retry.condition() else { return 0 };
        match condition {
            Condition::Scheduled => max_attempts,
            Condition::Limited | Condition::OnceReprepared => max_attempts.min(2),
            Condition::IfIdempotent if self.is_idempotent => max_attempts,
            Condition::IfIdempotent => 1,
        }
    }

    /// Returns whether the call could end before its deadline if it began after `pause`.
    pub(crate) fn has_time(&self, now: Instant, pause: Duration) -> bool {
        self.deadline.left(now) > pause.saturating_add(self.work)
    }

    /// Returns whether the next attempt needs no pause and costs nothing. That is the first retry after a connection
    /// that was dead already: the server has not seen the call yet.
    pub(crate) fn is_immediate(&self) -> bool {
        self.was_stale && self.attempts == 1
    }

    /// Pays for another attempt. Returns whether the budget had enough.
    pub(crate) fn pay(&self, now: Instant, budget: &mut Budget) -> bool {
        if self.is_free || self.is_immediate() {
            return true;
        }
        budget.withdraw(now, if self.timed_out { AFTER_TIMEOUT } else { RETRY })
    }
}

/// The retries that a pool can still make: a token bucket that successes fill.
///
/// While calls succeed, the budget has retries for every caller. When most calls fail, it runs empty, and the server
/// gets little more than one attempt for each call. One retry per second remains, so that a quiet service may retry at
/// all. A budget that requests fill, as other libraries have it, would add its share for as long as the outage lasts.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: f64,
    most: f64,
    filled: Instant,
}

impl Budget {
    /// Returns a full budget. It never holds more than `most`.
    pub(crate) fn new(now: Instant, most: f64) -> Self {
        Self { tokens: most, most, filled: now }
    }

    /// Adds what a success is worth. Returns whether the budget is full.
    pub(crate) fn deposit(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens = (self.tokens + SUCCESS).min(self.most);
        self.tokens >= self.most
    }

    fn withdraw(&mut self, now: Instant, price: f64) -> bool {
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
mod tests;
