//! Which operations may use no more connections than usual, because they hold up all others?
//!
//! A cap ends when the operation has been normal for a while. If the operation becomes slow again soon after that, the
//! next cap lasts twice as long, so that caps do not come and go with their own effect.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::advice::AdviceReason;
use super::operations::NORMAL;
use crate::operation::Operation;

/// The most caps at a time, and the most that are remembered.
const MOST: usize = 10;
/// How long an operation has to be normal, at first and at most.
const CALM: Duration = Duration::from_secs(10);
const LONGEST_CALM: Duration = Duration::from_secs(320);
/// An operation that is slow again within this time has a relapse.
const RELAPSE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cap {
    pub(super) reason: AdviceReason,
    /// The most connections that the operation may have at a time.
    pub(super) most: usize,
    /// Since when the operation has been normal.
    normal: Option<Instant>,
    calm: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Caps {
    caps: HashMap<Operation, Cap>,
    /// When caps ended, and how long the operation had to be normal.
    ended: HashMap<Operation, (Instant, Duration)>,
}

impl Caps {
    pub(super) fn is_capped(&self, operation: Operation) -> bool {
        self.caps.contains_key(&operation)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.caps.is_empty()
    }

    /// Whether one of the capped operations is still slow.
    pub(super) fn has_slow_one(&self) -> bool {
        self.caps.values().any(|cap| cap.normal.is_none())
    }

    /// The caps in force, by the operation's name.
    pub(super) fn all(&self) -> Vec<(Operation, Cap)> {
        let mut all: Vec<_> = self.caps.iter().map(|(operation, cap)| (*operation, *cap)).collect();
        all.sort_by_cached_key(|(operation, _)| operation.to_string());
        all
    }

    /// Caps an operation at so many connections, and returns them. Returns `None` if it is capped already; then the
    /// more telling reason stays.
    pub(super) fn set(
        &mut self,
        now: Instant,
        operation: Operation,
        reason: AdviceReason,
        most: usize,
    ) -> Option<usize> {
        if let Some(cap) = self.caps.get_mut(&operation) {
            cap.normal = None;
            if reason == AdviceReason::LockBound {
                cap.reason = reason;
            }
            return None;
        }
        if self.caps.len() >= MOST {
            return None;
        }
        let since = |then: Instant| now.saturating_duration_since(then);
        let relapse = self.ended.get(&operation).filter(|(ended, _)| since(*ended) < RELAPSE);
        let calm = relapse.map_or(CALM, |(_, calm)| (*calm * 2).min(LONGEST_CALM));
        let cap = Cap { reason, most, normal: None, calm };
        self.caps.insert(operation, cap);
        Some(most)
    }

    /// Nobody had a connection for this long, perhaps because the circuit is open. That says nothing about operations.
    pub(super) fn on_silence(&mut self, lasted: Duration) {
        for cap in self.caps.values_mut() {
            cap.normal = cap.normal.map(|normal| normal + lasted);
        }
    }

    /// A window has ended. `inflation` is that of an operation: `None` if it has used next to nothing. Returns the
    /// operations whose caps end.
    pub(super) fn on_window(
        &mut self,
        now: Instant,
        mut inflation: impl FnMut(Operation) -> Option<f64>,
    ) -> Vec<(Operation, usize)> {
        let since = |then: Instant| now.saturating_duration_since(then);
        for (operation, cap) in &mut self.caps {
            let is_normal = inflation(*operation).is_none_or(|inflation| inflation < NORMAL);
            cap.normal = if is_normal { cap.normal.or(Some(now)) } else { None };
        }
        let is_over = |cap: &Cap| cap.normal.is_some_and(|normal| since(normal) >= cap.calm);
        let mut ended: Vec<_> = self.caps.iter().filter(|(_, cap)| is_over(cap)).map(|(op, cap)| (*op, *cap)).collect();
        ended.sort_by_cached_key(|(operation, _)| operation.to_string());
        self.ended.retain(|_, (at, _)| since(*at) < RELAPSE);
        for (operation, cap) in &ended {
            self.caps.remove(operation);
            if self.ended.len() < MOST {
                self.ended.insert(*operation, (now, cap.calm));
            }
        }
        ended.into_iter().map(|(operation, cap)| (operation, cap.most)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const UPDATE: Operation = Operation::Named("update");

    #[test]
    fn a_cap_ends_when_the_operation_is_normal_and_later_after_a_relapse() {
        let (mut caps, mut now) = (Caps::default(), Instant::now());
        for calm in [10, 20, 40] {
            assert!(caps.set(now, UPDATE, AdviceReason::SlowOperation, 3).is_some());
            assert!(caps.set(now, UPDATE, AdviceReason::LockBound, 3).is_none(), "it is capped already");
            assert!(caps.on_window(now, |_| Some(9.0)).is_empty());
            let begun = now;
            while caps.on_window(now, |_| Some(1.0)).is_empty() {
                now += 2 * SECOND;
            }
            assert_eq!(now - begun, calm * SECOND);
        }
    }

    #[test]
    fn no_cap_ends_while_nobody_is_served() {
        let (mut caps, mut now) = (Caps::default(), Instant::now());
        caps.set(now, UPDATE, AdviceReason::LockBound, 3);
        caps.on_window(now, |_| Some(1.0));
        for _ in 0..60 {
            now += 2 * SECOND;
            caps.on_silence(2 * SECOND);
        }
        assert!(caps.on_window(now + 8 * SECOND, |_| Some(1.0)).is_empty());
        assert_eq!(caps.on_window(now + 10 * SECOND, |_| Some(1.0)).len(), 1);
    }

    #[test]
    fn an_operation_that_nobody_calls_is_not_capped_for_ever() {
        let (mut caps, now) = (Caps::default(), Instant::now());
        caps.set(now, UPDATE, AdviceReason::SlowOperation, 3);
        caps.on_window(now, |_| None);
        assert_eq!(caps.on_window(now + CALM, |_| None).len(), 1);
        assert!(caps.is_empty());
    }

    #[test]
    fn the_number_of_caps_is_bounded() {
        let (mut caps, now) = (Caps::default(), Instant::now());
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
        let set = names.map(|name| caps.set(now, Operation::Named(name), AdviceReason::LockBound, 1).is_some());
        assert_eq!(set.iter().filter(|is_set| **is_set).count(), MOST);
    }
}
