//! Why the pool refuses callers, and how many it has refused for each reason.

use std::fmt;
use std::ops::{Index, IndexMut, Sub};

/// One value for each [`ShedReason`], in the order of their declaration.
pub(crate) type PerReason<T> = [T; 7];

/// Why the pool would not let a caller wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShedReason {
    /// As many callers wait already as [`max_waiting`](crate::PoolBuilder::max_waiting) allows.
    QueueFull,
    /// The caller would have waited longer than it can, judged by the pool's recent pace.
    Hopeless,
    /// The caller waited, and its turn came too late for its work to be done in time: the only reason after a wait.
    TooLate,
    /// Callers ask for more than the pool can do, and enough callers wait to keep it busy.
    Overloaded,
    /// Streams hold all connections, and their readers are too slow to give one back in time. See
    /// [`stream_idle_timeout`](crate::PoolBuilder::stream_idle_timeout).
    Unread,
    /// [`Pool::try_get`](crate::Pool::try_get) found no idle connection.
    NoneIdle,
    /// Its lane or its operation has used up a limit: one that the owner set ([`Rate`](crate::Rate)), or one that the
    /// pool set because the operation holds up the others ([`Adaptive::Act`](crate::Adaptive)). `retry_after` is exact:
    /// the call is admitted then, unless others come first, or leases take longer than expected. If the limit is that
    /// of calls at once, it is an estimate.
    RateLimited,
}

impl ShedReason {
    /// All reasons, in the order of their declaration.
    pub(crate) const ALL: PerReason<Self> = [
        Self::QueueFull,
        Self::Hopeless,
        Self::TooLate,
        Self::Overloaded,
        Self::Unread,
        Self::NoneIdle,
        Self::RateLimited,
    ];

    /// When the caller was refused, in words.
    pub(crate) fn when(self) -> &'static str {
        if self == Self::TooLate { "after a wait" } else { "at once" }
    }

    /// Returns a word in snake case that never changes, as a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Hopeless => "hopeless",
            Self::TooLate => "too_late",
            Self::Overloaded => "overloaded",
            Self::Unread => "unread",
            Self::NoneIdle => "none_idle",
            Self::RateLimited => "rate_limited",
        }
    }
}

impl fmt::Display for ShedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue for connections is full",
            Self::Hopeless => "the wait would be longer than the caller's deadline allows",
            Self::Overloaded => "callers ask for more than the pool can do",
            Self::TooLate => "its turn came too late for its work to be done in time",
            Self::Unread => "streams that their readers do not read hold all connections",
            Self::NoneIdle => "no connection is idle",
            Self::RateLimited => "its lane or operation has used up its rate",
        })
    }
}

/// How many callers were refused, by reason: `refused[ShedReason::Hopeless]`. `Display`: `42 (40 hopeless, 2 with the
/// queue full)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusalCounts {
    pub(crate) shed: PerReason<u64>,
    /// Callers that waited until [`Error::AcquireTimeout`](crate::Error::AcquireTimeout). They are not part of
    /// [`total`](Self::total).
    pub timed_out: u64,
    /// Callers that the open circuit rejected. They are not part of `total` either.
    pub(crate) rejected: u64,
}

impl RefusalCounts {
    /// Returns all callers that were shed because the pool could not serve them. Those of [`ShedReason::NoneIdle`]
    /// would not have waited, and those of [`ShedReason::RateLimited`] met a limit that the owner set: neither are part
    /// of it.
    pub fn total(&self) -> u64 {
        self.shed.iter().sum::<u64>() - self[ShedReason::NoneIdle] - self[ShedReason::RateLimited]
    }
}

impl Index<ShedReason> for RefusalCounts {
    type Output = u64;

    fn index(&self, reason: ShedReason) -> &u64 {
        &self.shed[reason as usize]
    }
}

impl IndexMut<ShedReason> for RefusalCounts {
    fn index_mut(&mut self, reason: ShedReason) -> &mut u64 {
        &mut self.shed[reason as usize]
    }
}

impl Sub for RefusalCounts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            shed: ShedReason::ALL.map(|reason| self[reason].saturating_sub(before[reason])),
            timed_out: self.timed_out.saturating_sub(before.timed_out),
            rejected: self.rejected.saturating_sub(before.rejected),
        }
    }
}

impl fmt::Display for RefusalCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (ShedReason::Overloaded, "in overload"),
            (ShedReason::Hopeless, "hopeless"),
            (ShedReason::TooLate, "too late"),
            (ShedReason::Unread, "because of unread streams"),
            (ShedReason::QueueFull, "with the queue full"),
        ];
        let mut reasons =
            reasons.map(|(reason, words)| (self[reason], words)).into_iter().filter(|(count, _)| *count > 0);
        write!(f, "{}", self.total())?;
        if let Some((count, words)) = reasons.next() {
            write!(f, " ({count} {words}")?;
            reasons.try_for_each(|(count, words)| write!(f, ", {count} {words}"))?;
            f.write_str(")")?;
        }
        if self.timed_out > 0 { write!(f, ", and {} waited in vain", self.timed_out) } else { Ok(()) }
    }
}

#[cfg(test)]
impl RefusalCounts {
    pub(crate) fn of<const N: usize>(shed: [(ShedReason, u64); N]) -> Self {
        let mut refused = Self::default();
        shed.into_iter().for_each(|(reason, count)| refused[reason] = count);
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_of_its_own() {
        for (index, reason) in ShedReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
    }

    #[test]
    fn counts_are_printed_by_reason() {
        let of_others = [(ShedReason::NoneIdle, 9), (ShedReason::RateLimited, 70)];
        let shed = [(ShedReason::Overloaded, 300), (ShedReason::QueueFull, 12), of_others[0], of_others[1]];
        let refused = RefusalCounts { timed_out: 4, ..RefusalCounts::of(shed) };
        assert_eq!(refused.to_string(), "312 (300 in overload, 12 with the queue full), and 4 waited in vain");
        assert_eq!(RefusalCounts::default().to_string(), "0");
    }
}
