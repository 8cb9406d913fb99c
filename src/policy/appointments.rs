//! When are refused callers to come back?
//!
//! Each refusal is given a moment of its own. If all of them were told the same moment, they would come back together
//! and most of them would be refused again. The moments are so far apart that those who obey take a quarter of what the
//! pool can do; the rest is for newcomers. So once newcomers leave that quarter free, the obedient are served when they
//! come, although everybody obeys. In a lasting overload the moments are far away, and true.
//!
//! A caller that comes earlier, or not at all, costs nothing: a moment is advice and reserves no connection.

use super::Time;

/// Those who come back take one in so many leases.
const SHARE: f64 = 4.0;
/// No caller is told to stay away for longer: nobody knows the load then. Later refusals begin again with the earliest
/// moment.
const LONGEST: f64 = 300.0;

#[derive(Debug)]
pub(crate) struct Appointments {
    last: Time,
}

impl Appointments {
    pub(crate) fn new() -> Self {
        Self { last: Time::BEGIN }
    }

    /// How long to stay away. `earliest`: the first moment at which the pool could serve this caller. `gap`: the mean
    /// time from one release to the next. All in seconds.
    pub(crate) fn make(&mut self, now: Time, earliest: f64, gap: f64) -> f64 {
        let after_the_last = self.last.after(gap * SHARE).since(now);
        let wait = if after_the_last > LONGEST.max(earliest) { earliest } else { earliest.max(after_the_last) };
        self.last = now.after(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 0.001;

    fn near(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-9, "{actual} instead of {expected}");
    }

    #[test]
    fn the_first_comes_as_early_as_it_can_and_the_others_after_it() {
        let now = Time::BEGIN;
        let mut appointments = Appointments::new();
        near(appointments.make(now, 30.0 * MS, MS), 30.0 * MS);
        near(appointments.make(now, 30.0 * MS, MS), 34.0 * MS);
        near(appointments.make(now.after(2.0 * MS), 30.0 * MS, MS), 36.0 * MS);
        // Not before it can be served.
        near(appointments.make(now.after(2.0 * MS), 90.0 * MS, MS), 90.0 * MS);
    }

    #[test]
    fn a_moment_that_has_passed_holds_nobody_up() {
        let now = Time::BEGIN;
        let mut appointments = Appointments::new();
        (0..100).for_each(|_| _ = appointments.make(now, MS, MS));
        near(appointments.make(now.after(1_000.0 * MS), 5.0 * MS, MS), 5.0 * MS);
    }

    #[test]
    fn nobody_is_told_to_stay_away_for_longer_than_five_minutes() {
        let now = Time::BEGIN;
        let mut appointments = Appointments::new();
        let longest = (0..100_000).map(|_| appointments.make(now, MS, MS)).fold(0.0, f64::max);
        assert!(longest <= LONGEST, "{longest}");
        // Unless it cannot be served earlier.
        near(appointments.make(now, 2.0 * LONGEST, MS), 2.0 * LONGEST);
    }
}
