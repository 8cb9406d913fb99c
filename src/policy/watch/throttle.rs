//! How much of its limit may the lane Background use?
//!
//! All of it, until an operation of callers in Critical or Normal holds connections much longer than usual. Then
//! Background is the load that can wait. Its share is halved at once, and again every two seconds while that lasts. It
//! comes back by a tenth a second after five seconds of calm.
//!
//! If Background itself is what makes the others slow, they become slow again as soon as it is back. Each such relapse
//! doubles the calm before the next return, so the share does not swing.

use std::time::{Duration, Instant};

use super::finding::Finding;
use super::lasting::{DueReport, Lasting, Sign};
use crate::operation::Operation;

/// The share of a lane that is not throttled, in percent.
const ALL: u8 = 100;
/// The time between two halvings.
const DOWN: Duration = Duration::from_secs(2);
/// The share that comes back at a time.
const RISE: u8 = 10;
/// The time between two of these.
const UP: Duration = Duration::from_secs(1);
/// How long no operation is slow before the share rises, and the longest such time after relapses.
const CALM: Duration = Duration::from_secs(5);
const LONGEST_CALM: Duration = Duration::from_secs(320);
/// An operation that becomes slow within this time after a rise is a relapse.
const RELAPSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Throttle {
    percent: u8,
    is_rising: bool,
    /// When an operation was last slow.
    slow: Option<Instant>,
    /// When the share was last changed.
    changed: Option<Instant>,
    /// When the share last rose.
    rose: Option<Instant>,
    calm: Duration,
    lasting: Lasting,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            percent: ALL,
            is_rising: true,
            slow: None,
            changed: None,
            rose: None,
            calm: CALM,
            lasting: Lasting::new(Duration::ZERO, Duration::ZERO),
        }
    }

    /// Returns how much of its limit Background may use, in percent.
    pub(super) fn percent(&self) -> u8 {
        self.percent
    }

    /// `cause` is the operation of Critical or Normal that is much slower than usual, if there is one.
    pub(super) fn tick(&mut self, now: Instant, cause: Option<Operation>) -> Option<Finding> {
        match cause {
            Some(_) => self.lower(now),
            None => self.raise(now),
        }
        let sign = match cause {
            Some(_) => Sign::Yes,
            None if self.percent < ALL => Sign::Near,
            None => Sign::No,
        };
        match (self.lasting.look(now, sign)?, cause) {
            (DueReport::Lasts(lasting), Some(operation)) => {
                Some(Finding::BackgroundThrottled { percent: self.percent, operation, lasting })
            }
            (DueReport::Ended(lasted) | DueReport::Lasts(lasted), _) => Some(Finding::BackgroundRestored { lasted }),
        }
    }

    fn lower(&mut self, now: Instant) {
        let has_passed = |then: Option<Instant>, time| then.is_none_or(|then| since(now, then) >= time);
        if self.is_rising {
            let is_relapse = !has_passed(self.rose, RELAPSE);
            self.calm = if is_relapse { (self.calm * 2).min(LONGEST_CALM) } else { CALM };
        }
        if self.is_rising || has_passed(self.changed, DOWN) {
            (self.percent, self.changed) = (self.percent / 2, Some(now));
        }
        (self.is_rising, self.slow) = (false, Some(now));
    }

    fn raise(&mut self, now: Instant) {
        let is_calm = self.slow.is_some_and(|slow| since(now, slow) >= self.calm);
        let is_due = self.changed.is_some_and(|changed| since(now, changed) >= UP);
        if self.percent < ALL && is_calm && is_due {
            self.percent = (self.percent + RISE).min(ALL);
            (self.is_rising, self.changed, self.rose) = (true, Some(now), Some(now));
        }
    }
}

fn since(now: Instant, then: Instant) -> Duration {
    now.saturating_duration_since(then)
}

#[cfg(test)]
mod tests;
