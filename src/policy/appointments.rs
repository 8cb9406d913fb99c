//! When are refused callers to come back?
//!
//! Each refusal is given a moment of its own. If all of them were told the same moment, they would come back together and most of them would be refused
//! again. The moments are so far apart that those who obey take a quarter of what the pool can do; the rest is for newcomers. So once newcomers leave
//! that quarter free, the obedient are served when they come, although everybody obeys. In a lasting overload the moments are far away, and true.
//!
//! A caller that comes earlier, or not at all, costs nothing: a moment is advice and reserves no connection.

use std::time::{Duration, Instant};

/// Those who come back take one in so many leases.
const SHARE: u32 = 4;
/// No caller is told to stay away for longer: nobody knows the load then. Later refusals begin again with the earliest moment.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Appointments {
    last: Instant,
}

impl Appointments {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// How long to stay away. `earliest`: the first moment at which the pool could serve this caller. `gap`: the mean time from one release to the next.
    pub(crate) fn make(&mut self, now: Instant, earliest: Duration, gap: Duration) -> Duration {
        let after_the_last = (self.last + gap * SHARE).saturating_duration_since(now);
        let wait = if after_the_last > LONGEST.max(earliest) { earliest } else { earliest.max(after_the_last) };
        self.last = now + wait;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_comes_as_early_as_it_can_and_the_others_after_it() {
        let now = Instant::now();
        let mut appointments = Appointments::new(now);
        assert_eq!(appointments.make(now, 30 * MS, MS), 30 * MS);
        assert_eq!(appointments.make(now, 30 * MS, MS), 34 * MS);
        assert_eq!(appointments.make(now + 2 * MS, 30 * MS, MS), 36 * MS);
        assert_eq!(appointments.make(now + 2 * MS, 90 * MS, MS), 90 * MS, "not before it can be served");
    }

    #[test]
    fn a_moment_that_has_passed_holds_nobody_up() {
        let now = Instant::now();
        let mut appointments = Appointments::new(now);
        (0..100).for_each(|_| _ = appointments.make(now, MS, MS));
        assert_eq!(appointments.make(now + 1_000 * MS, 5 * MS, MS), 5 * MS);
    }

    #[test]
    fn nobody_is_told_to_stay_away_for_longer_than_five_minutes() {
        let now = Instant::now();
        let mut appointments = Appointments::new(now);
        let longest = (0..100_000).map(|_| appointments.make(now, MS, MS)).max();
        assert!(longest <= Some(LONGEST), "{longest:?}");
        assert_eq!(appointments.make(now, 2 * LONGEST, MS), 2 * LONGEST, "unless it cannot be served earlier");
    }
}
