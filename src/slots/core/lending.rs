//! Are the leases of a lane short enough to lend it the slots of others?
//!
//! They are if at most one in a hundred takes longer than a quarter of the acquire timeout: then a caller whose slot is
//! lent gets one back in time. A lease that still runs counts as soon as it is longer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::Time;

/// Fewer leases than this prove nothing.
const ENOUGH: u32 = 100;
/// So many leases are remembered; then all counts are halved.
const MEMORY: u32 = 800;
/// At most one in so many leases may be long.
const RARE: u32 = 100;
/// A lent slot comes back within this part of the acquire timeout.
const PART: f64 = 4.0;

#[derive(Debug)]
pub(super) struct Lending {
    /// Seconds.
    longest: f64,
    leases: u32,
    long: u32,
    /// The leases that run, by their beginning.
    running: BTreeMap<Time, u32>,
}

impl Lending {
    pub(super) fn new(acquire_timeout: Duration) -> Self {
        Self { longest: acquire_timeout.as_secs_f64() / PART, leases: 0, long: 0, running: BTreeMap::new() }
    }

    pub(super) fn begin(&mut self, now: Time) {
        *self.running.entry(now).or_default() += 1;
    }

    /// A lease has ended that began at `since`, or at an unknown time. One that no caller used says nothing.
    pub(super) fn end(&mut self, now: Time, since: Option<Time>, is_used: bool) {
        let Some(since) = since else { return };
        if let Some(count) = self.running.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&since);
            }
        }
        if !is_used {
            return;
        }
        self.leases += 1;
        self.long += u32::from(now.since(since) > self.longest);
        if self.leases >= MEMORY {
            self.leases /= 2;
            self.long /= 2;
        }
    }

    pub(super) fn is_allowed(&self, now: Time) -> bool {
        let most = self.leases / RARE;
        if self.leases < ENOUGH || self.long > most {
            return false;
        }
        let overdue = self.running.iter().take_while(|(since, _)| now.since(**since) > self.longest);
        let mut long = self.long;
        overdue.map(|(_, count)| *count).all(|count| {
            long += count;
            long <= most
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_leases_count_before_they_have_ended() {
        let (mut lending, begun) = (Lending::new(Duration::from_secs(1)), Time::BEGIN);
        let (short, long) = (Duration::from_millis(250), Duration::from_millis(251));
        assert!(!lending.is_allowed(begun), "nothing is known");
        for _ in 0..ENOUGH {
            lending.begin(begun);
            lending.end(begun + short, Some(begun), true);
        }
        for _ in 0..2 {
            lending.begin(begun);
        }
        assert!(lending.is_allowed(begun + short));
        assert!(!lending.is_allowed(begun + long), "two in a hundred");
        lending.end(begun + long, Some(begun), false);
        assert!(lending.is_allowed(begun + long), "one in a hundred: no caller used the other");
        lending.end(begun + long, Some(begun), true);
        assert!(lending.is_allowed(begun + long));
        lending.begin(begun);
        lending.end(begun + long, Some(begun), true);
        assert!(!lending.is_allowed(begun + long), "two in a hundred, and both have ended");
    }
}
