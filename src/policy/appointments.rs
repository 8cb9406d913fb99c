//! When should refused callers come back?
//!
//! Each refused caller gets an appointment of its own. With one moment for all, they would come back together, and the
//! pool would refuse most of them again.
//!
//! Appointments are so far apart that callers with one take a quarter of what the pool can do. Once other callers leave
//! that quarter free, the pool serves every caller that keeps its appointment. In a lasting overload the appointments
//! are far away, and still true.
//!
//! An appointment is advice and reserves no connection. A caller may come earlier or not at all.

use super::Time;

/// Callers with an appointment take one in this many leases.
const SHARE: f64 = 4.0;
/// No appointment is further away, in seconds, because the load at that time is unknown. The exception is a caller that
/// the pool can only serve later. When no moment within this time is left, the next refused caller gets its earliest
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

    /// Returns after how long the caller should come back. `earliest` is how soon the pool could serve this caller.
    /// `gap` is the mean time from one release to the next. All three are in seconds.
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
    fn the_first_appointment_is_the_earliest_and_the_others_follow() {
        let now = Time::BEGIN;
        let mut appointments = Appointments::new();
        near(appointments.make(now, 30.0 * MS, MS), 30.0 * MS);
        near(appointments.make(now, 30.0 * MS, MS), 34.0 * MS);
        near(appointments.make(now.after(2.0 * MS), 30.0 * MS, MS), 36.0 * MS);
        // No appointment is before the pool can serve the caller.
        near(appointments.make(now.after(2.0 * MS), 90.0 * MS, MS), 90.0 * MS);
    }

    #[test]
    fn a_past_appointment_delays_no_later_one() {
        let now = Time::BEGIN;
        let mut appointments = Appointments::new();
        (0..100).for_each(|_| _ = appointments.make(now, MS, MS));
        near(appointments.make(now.after(1_000.0 * MS), 5.0 * MS, MS), 5.0 * MS);
    }

    #[test]
    fn no_appointment_is_more_than_five_minutes_away() {
        let now = Time::BEGIN;
        let mut appointments = Appointments::new();
        let longest = (0..100_000).map(|_| appointments.make(now, MS, MS)).fold(0.0, f64::max);
        assert!(longest <= LONGEST, "{longest}");
        // The exception: the pool cannot serve the caller earlier.
        near(appointments.make(now, 2.0 * LONGEST, MS), 2.0 * LONGEST);
    }
}
