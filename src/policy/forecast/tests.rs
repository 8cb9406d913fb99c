use super::*;

const MS: Duration = Duration::from_millis(1);

/// `count` releases, one each `gap`, from `connections` busy all the time.
fn work(forecast: &mut Forecast, mut now: Time, count: u32, gap: Duration, connections: usize) -> Time {
    forecast.on_working(now, connections);
    for _ in 0..count {
        now += gap;
        forecast.on_release(now, (gap * connections as u32).as_secs_f64());
    }
    now
}

/// With so many connections.
fn wait(forecast: &mut Forecast, now: Time, ahead: usize, connections: usize) -> Option<f64> {
    let gap = forecast.gap(now, connections)?;
    Some(forecast.wait(now, ahead, gap))
}

fn near(actual: Option<f64>, expected: Duration) {
    let actual = actual.map(Duration::from_secs_f64).expect("an estimate");
    let off = actual.as_secs_f64() / expected.as_secs_f64();
    assert!((0.95..1.05).contains(&off), "{actual:?} instead of {expected:?}");
}

#[test]
fn says_nothing_before_it_has_seen_enough() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    assert_eq!(wait(&mut forecast, now, 0, 10), None);
    let now = work(&mut forecast, now, 2, MS, 10);
    assert_eq!(wait(&mut forecast, now, 0, 10), None);
    assert_eq!(forecast.typical_lease(), Some((10 * MS).as_secs_f64()));
}

#[test]
fn by_little_s_law() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    let now = work(&mut forecast, now, 400, 2 * MS, 10);
    near(wait(&mut forecast, now, 0, 10), 2 * MS);
    near(wait(&mut forecast, now, 49, 10), 100 * MS);
    near(wait(&mut forecast, now, 49, 20), 50 * MS);
}

#[test]
fn a_slowdown_is_believed_when_it_lasts() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(250 * MS);
    let now = work(&mut forecast, now, 1_000, MS, 20);
    let soon = work(&mut forecast, now, 10, 9 * MS, 20);
    let forgiving = wait(&mut forecast, soon, 0, 20).map(Duration::from_secs_f64).expect("an estimate");
    assert!(forgiving < 3 * MS, "{forgiving:?}");
    let later = work(&mut forecast, soon, 1_000, 9 * MS, 20);
    near(wait(&mut forecast, later, 0, 20), 9 * MS);
}

#[test]
fn a_stall_of_a_wait_budget_is_expected_to_last_as_long_again() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(250 * MS);
    let now = work(&mut forecast, now, 1_000, MS, 20);
    assert_eq!(wait(&mut forecast, now + 250 * MS, 0, 20), Some(0.0), "one is about to be given back");
    near(wait(&mut forecast, now + 300 * MS, 0, 20), 300 * MS);
}

#[test]
fn an_idle_hour_is_no_stall_and_leaves_no_estimate() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(250 * MS);
    let now = work(&mut forecast, now, 1_000, MS, 20);
    forecast.on_working(now, 0);
    let now = now + Duration::from_secs(3_600);
    forecast.on_working(now, 20);
    assert_eq!(wait(&mut forecast, now, 0, 20), None);
}

#[test]
fn a_few_long_leases_are_not_typical_and_two_in_a_row_are_a_slowdown() {
    let mut now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    for n in 0..100 {
        now += 2 * MS;
        forecast.on_release(now, (if n % 3 == 0 { 500 * MS } else { 2 * MS }).as_secs_f64());
    }
    assert_eq!(forecast.typical_lease(), Some((2 * MS).as_secs_f64()));
    assert_eq!(forecast.long_lease(), Some((500 * MS).as_secs_f64()), "three of seven");
    forecast.on_release(now + 400 * MS, (400 * MS).as_secs_f64());
    assert_eq!(forecast.typical_lease(), Some((400 * MS).as_secs_f64()));
}

#[test]
fn in_a_large_pool_two_long_leases_in_a_row_are_chance() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    let now = work(&mut forecast, now, 100, MS, 20);
    (1..3).for_each(|n| forecast.on_release(now + 10 * n * MS, (400 * MS).as_secs_f64()));
    assert_eq!(forecast.typical_lease(), Some((20 * MS).as_secs_f64()));
    assert_eq!(forecast.recent_lease(), Some((400 * MS).as_secs_f64()));
    forecast.on_release(now + 30 * MS, (20 * MS).as_secs_f64());
    assert_eq!(forecast.recent_lease(), Some((20 * MS).as_secs_f64()));
}

/// A stall of the whole process makes all of them long.
#[test]
fn leases_that_end_together_count_as_one() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    let now = work(&mut forecast, now, 100, MS, 20) + 500 * MS;
    assert_eq!(forecast.typical_lease(), Some((20 * MS).as_secs_f64()));
    (0..20).for_each(|n| forecast.on_release(now + n * MS / 10, (500 * MS).as_secs_f64()));
    assert_eq!(forecast.typical_lease(), Some((20 * MS).as_secs_f64()));
}

#[test]
fn a_prediction_may_be_wrong_by_more_where_leases_differ() {
    let mut now = Time::BEGIN;
    let (mut same, mut differ) = (Forecast::new(1_000 * MS), Forecast::new(1_000 * MS));
    for forecast in [&mut same, &mut differ] {
        forecast.on_working(now, 10);
    }
    for n in 0..100 {
        now += MS;
        same.on_release(now, (10 * MS).as_secs_f64());
        differ.on_release(now, (if n % 2 == 0 { 20 * MS } else { Duration::ZERO }).as_secs_f64());
    }
    assert!((10.0..10.1).contains(&same.error(100.0, 10)), "all at once: {}", same.error(100.0, 10));
    // Their standard deviation is their mean.
    let error = differ.error(100.0, 10);
    assert!((37.0..39.5).contains(&error), "{error}");
}

#[test]
fn a_lease_that_ends_without_a_release_counts_as_well() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    let mut now = work(&mut forecast, now, 200, 2 * MS, 10);
    for _ in 0..200 {
        now += 2 * MS;
        forecast.on_end(now);
    }
    near(wait(&mut forecast, now, 0, 10), 2 * MS);
}

#[test]
fn a_lease_whose_work_was_cancelled_would_have_lasted_longer() {
    let mut now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    let mut after = || {
        now += 360 * MS;
        now
    };
    (0..7).for_each(|_| forecast.on_release(after(), (360 * MS).as_secs_f64()));
    (0..7).for_each(|_| forecast.on_cancelled(after(), (100 * MS).as_secs_f64()));
    assert_eq!(forecast.typical_lease(), Some((360 * MS).as_secs_f64()), "no less than is known");
    (0..2).for_each(|_| forecast.on_cancelled(after(), (400 * MS).as_secs_f64()));
    assert_eq!(forecast.typical_lease(), Some((500 * MS).as_secs_f64()));
}

#[test]
fn a_lease_whose_work_was_cancelled_would_have_lasted_as_long_as_those_that_did() {
    let mut now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    forecast.on_working(now, 10);
    let mut after = || {
        now += 50 * MS;
        now
    };
    (0..7).for_each(|_| forecast.on_release(after(), (40 * MS).as_secs_f64()));
    (0..2).for_each(|_| forecast.on_release(after(), (360 * MS).as_secs_f64()));
    (0..2).for_each(|_| forecast.on_cancelled(after(), (100 * MS).as_secs_f64()));
    assert_eq!(forecast.typical_lease(), Some((360 * MS).as_secs_f64()), "two have, and two would have");
}

#[test]
fn a_lease_of_which_nobody_knows_the_begin_lasts_since_nothing_is_idle() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    (0..7).for_each(|_| forecast.on_release(now, (40 * MS).as_secs_f64()));
    forecast.on_working(now, 6);
    forecast.on_untimed(now + 20 * MS);
    forecast.on_untimed(now + 30 * MS);
    assert_eq!(forecast.typical_lease(), Some((40 * MS).as_secs_f64()), "at least so long, which says nothing");
    forecast.on_untimed(now + 320 * MS);
    forecast.on_untimed(now + 440 * MS);
    assert_eq!(forecast.typical_lease(), Some((400 * MS).as_secs_f64()));
}
