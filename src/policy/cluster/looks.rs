//! How often are hosts asked, and what follows from it: when is a host silent?
//!
//! Both are the owner's settings, so a cluster that is asked more often notices a silent host sooner.

use std::time::{Duration, Instant};

/// The owner's settings for the looks at hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looks {
    /// The interval between two looks at a host.
    pub(crate) every: Duration,
    /// How long a host has to answer.
    pub(crate) timeout: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), timeout: Duration::from_secs(1) }
    }
}

impl Looks {
    /// How long one look takes at most, as far as the others are from it.
    fn longest(self) -> Duration {
        self.every.max(self.timeout)
    }

    /// A host that has not answered for this long is no longer counted on. One lost packet is no outage.
    pub(crate) fn silent_after(self) -> Duration {
        self.longest() * 3
    }

    /// How long a process that starts waits for the other hosts if most of them agree. A live host answers sooner.
    pub(crate) fn wait_for_others(self) -> Duration {
        self.timeout / 2
    }

    /// Returns whether a host that has last answered at this instant is silent.
    pub(crate) fn is_silent(self, answered: Instant, now: Instant) -> bool {
        now.saturating_duration_since(answered) >= self.silent_after()
    }

    /// Samples of replicas count while the primary was asked so lately.
    pub(crate) fn is_recent(self, asked: Instant, now: Instant) -> bool {
        now.saturating_duration_since(asked) <= self.longest() * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_looks_without_an_answer_are_a_silence() {
        let millis = Duration::from_millis;
        let after = |every, timeout| Looks { every: millis(every), timeout: millis(timeout) }.silent_after();
        assert_eq!(Looks::default().silent_after(), millis(3_000));
        assert_eq!([after(100, 1_000), after(100, 200), after(1_000, 50)], [millis(3_000), millis(600), millis(3_000)]);
        let (looks, begun) = (Looks::default(), Instant::now());
        assert!(!looks.is_silent(begun, begun + millis(2_999)) && looks.is_silent(begun, begun + millis(3_000)));
        assert!(looks.is_recent(begun, begun + millis(2_000)) && !looks.is_recent(begun, begun + millis(2_001)));
    }
}
