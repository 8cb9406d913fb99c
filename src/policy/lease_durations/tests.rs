use std::time::Duration;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn seconds(duration: Duration) -> Option<f64> {
    Some(duration.as_secs_f64())
}

/// Leases that end one after another.
struct Ended {
    leases: LeaseDurations,
    now: Time,
}

impl Ended {
    fn new() -> Self {
        Self { leases: LeaseDurations::new(), now: Time::BEGIN }
    }

    fn push(&mut self, after: Duration, lasted: Duration) {
        self.now += after;
        self.leases.push(self.now, lasted.as_secs_f64());
    }

    fn cancel(&mut self, after: Duration, lasted: Duration) {
        let uncancelled = self.leases.uncancelled(lasted.as_secs_f64());
        self.push(after, Duration::from_secs_f64(uncancelled));
    }
}

#[test]
fn nothing_is_known_before_the_first_lease() {
    let mut ended = Ended::new();
    assert_eq!((ended.leases.typical(10), ended.leases.recent(10), ended.leases.long(10)), (None, None, None));
    ended.push(MS, 10 * MS);
    assert_eq!((ended.leases.typical(10), ended.leases.long(10)), (seconds(10 * MS), seconds(10 * MS)));
}

#[test]
fn a_few_long_leases_are_not_typical_and_two_in_a_row_are_a_slowdown() {
    let mut ended = Ended::new();
    (0..100).for_each(|n| ended.push(2 * MS, if n % 3 == 0 { 500 * MS } else { 2 * MS }));
    assert_eq!(ended.leases.typical(1), seconds(2 * MS));
    assert_eq!(ended.leases.long(1), seconds(500 * MS), "three of seven leases were long");
    ended.push(400 * MS, 400 * MS);
    assert_eq!(ended.leases.typical(1), seconds(400 * MS));
}

#[test]
fn with_many_connections_two_long_leases_in_a_row_are_chance() {
    let mut ended = Ended::new();
    (0..100).for_each(|_| ended.push(5 * MS, 20 * MS));
    (0..2).for_each(|_| ended.push(10 * MS, 400 * MS));
    assert_eq!(ended.leases.typical(20), seconds(20 * MS));
    assert_eq!(ended.leases.recent(20), seconds(400 * MS));
    ended.push(10 * MS, 20 * MS);
    assert_eq!(ended.leases.recent(20), seconds(20 * MS));
}

/// A stall of the whole process makes all leases long.
#[test]
fn leases_that_end_together_count_as_one() {
    let mut ended = Ended::new();
    (0..100).for_each(|_| ended.push(5 * MS, 20 * MS));
    assert_eq!(ended.leases.typical(20), seconds(20 * MS));
    ended.now += 500 * MS;
    (0..20).for_each(|_| ended.push(MS / 10, 500 * MS));
    assert_eq!(ended.leases.typical(20), seconds(20 * MS));
}

#[test]
fn a_cancelled_lease_counts_as_longer_than_it_was() {
    let mut ended = Ended::new();
    (0..7).for_each(|_| ended.push(360 * MS, 360 * MS));
    (0..7).for_each(|_| ended.cancel(360 * MS, 100 * MS));
    assert_eq!(ended.leases.typical(1), seconds(360 * MS), "a cancelled lease does not shorten the estimate");
    (0..2).for_each(|_| ended.cancel(360 * MS, 400 * MS));
    assert_eq!(ended.leases.typical(1), seconds(500 * MS));
}

#[test]
fn a_cancelled_lease_counts_as_long_as_the_longer_ones() {
    let mut ended = Ended::new();
    (0..7).for_each(|_| ended.push(50 * MS, 40 * MS));
    (0..2).for_each(|_| ended.push(50 * MS, 360 * MS));
    (0..2).for_each(|_| ended.cancel(50 * MS, 100 * MS));
    assert_eq!(ended.leases.typical(10), seconds(360 * MS), "two leases lasted that long, and two more would have");
}
