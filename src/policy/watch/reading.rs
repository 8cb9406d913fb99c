//! What a detector reads of the pool: connections in use, callers, and how many were refused.

use std::fmt;
use std::ops::Sub;

/// One look at the pool. To be taken every 250 ms, or thereabouts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) in_use: usize,
    pub(crate) limit: usize,
    pub(crate) waiting: usize,
    /// All who asked for a connection, whatever became of them, since the pool began.
    pub(crate) arrivals: u64,
    /// Since the pool began.
    pub(crate) refused: Refused,
}

impl Reading {
    pub(super) fn utilization(&self) -> f64 {
        self.in_use as f64 / self.limit.max(1) as f64
    }
}

/// Callers that were refused at once, and those who waited in vain, by reason. `Display`: `42 (40 hopeless, 2 with the queue full)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// [`ShedReason::QueueFull`](crate::ShedReason::QueueFull)
    pub queue_full: u64,
    /// [`ShedReason::Hopeless`](crate::ShedReason::Hopeless)
    pub hopeless: u64,
    /// [`ShedReason::TooLate`](crate::ShedReason::TooLate)
    pub too_late: u64,
    /// [`ShedReason::Overloaded`](crate::ShedReason::Overloaded)
    pub overloaded: u64,
    /// [`ShedReason::Unread`](crate::ShedReason::Unread)
    pub unread: u64,
    /// [`Error::AcquireTimeout`](crate::Error::AcquireTimeout): not refused, but as ill served. These alone are not shedding.
    pub timed_out: u64,
}

impl Refused {
    /// All that were refused; not those who waited in vain.
    pub fn total(&self) -> u64 {
        self.queue_full + self.hopeless + self.too_late + self.overloaded + self.unread
    }
}

impl Sub for Refused {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            queue_full: self.queue_full.saturating_sub(before.queue_full),
            hopeless: self.hopeless.saturating_sub(before.hopeless),
            too_late: self.too_late.saturating_sub(before.too_late),
            overloaded: self.overloaded.saturating_sub(before.overloaded),
            unread: self.unread.saturating_sub(before.unread),
            timed_out: self.timed_out.saturating_sub(before.timed_out),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.overloaded, "in overload"),
            (self.hopeless, "hopeless"),
            (self.too_late, "too late"),
            (self.unread, "because of unread streams"),
            (self.queue_full, "with the queue full"),
        ];
        let mut reasons = reasons.iter().filter(|(count, _)| *count > 0);
        write!(f, "{}", self.total())?;
        if let Some((count, reason)) = reasons.next() {
            write!(f, " ({count} {reason}")?;
            reasons.try_for_each(|(count, reason)| write!(f, ", {count} {reason}"))?;
            f.write_str(")")?;
        }
        if self.timed_out > 0 { write!(f, ", and {} waited in vain", self.timed_out) } else { Ok(()) }
    }
}
