use super::*;

const MS: Duration = Duration::from_millis(1);

/// `count` releases, one each `gap`, from `connections` busy all the time.
fn work(forecast: &mut Forecast, mut now: Instant, count: u32, gap: Duration, connections: usize) -> Instant {
    forecast.on_working(now, connections);
    for _ in 0..count {
        now += gap;
        forecast.on_release(now, gap * connections as u32);
    }
    now
}

fn near(actual: Option<f64>, expected: Duration) {
    let actual = actual.map(Duration::from_secs_f64).expect("an estimate");
    let off = actual.as_secs_f64() / expected.as_secs_f64();
    assert!((0.95..1.05).contains(&off), "{actual:?} instead of {expected:?}");
}

#[test]
fn says_nothing_before_it_has_seen_enough() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 1_000 * MS);
    assert_eq!(forecast.wait(now, 0, 10), None);
    let now = work(&mut forecast, now, 2, MS, 10);
    assert_eq!(forecast.wait(now, 0, 10), None);
    assert_eq!(forecast.typical_hold(), Some(10 * MS));
}

#[test]
fn by_little_s_law() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 1_000 * MS);
    let now = work(&mut forecast, now, 400, 2 * MS, 10);
    near(forecast.wait(now, 0, 10), 2 * MS);
    near(forecast.wait(now, 49, 10), 100 * MS);
    near(forecast.wait(now, 49, 20), 50 * MS);
}

#[test]
fn a_slowdown_is_believed_when_it_lasts() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = work(&mut forecast, now, 1_000, MS, 20);
    let soon = work(&mut forecast, now, 10, 9 * MS, 20);
    let forgiving = forecast.wait(soon, 0, 20).map(Duration::from_secs_f64).expect("an estimate");
    assert!(forgiving < 3 * MS, "{forgiving:?}");
    let later = work(&mut forecast, soon, 1_000, 9 * MS, 20);
    near(forecast.wait(later, 0, 20), 9 * MS);
}

#[test]
fn a_stall_is_expected_to_last_as_long_again() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = work(&mut forecast, now, 1_000, MS, 20);
    near(forecast.wait(now + 300 * MS, 0, 20), 300 * MS);
}

#[test]
fn an_idle_hour_is_no_stall_and_leaves_no_estimate() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = work(&mut forecast, now, 1_000, MS, 20);
    forecast.on_working(now, 0);
    let now = now + Duration::from_secs(3_600);
    forecast.on_working(now, 20);
    assert_eq!(forecast.wait(now, 0, 20), None);
}

#[test]
fn a_few_long_holds_are_not_typical_and_two_in_a_row_are_a_slowdown() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 1_000 * MS);
    for n in 0..100 {
        forecast.on_release(now, if n % 3 == 0 { 500 * MS } else { 2 * MS });
    }
    assert_eq!(forecast.typical_hold(), Some(2 * MS));
    forecast.on_release(now, 400 * MS);
    assert_eq!(forecast.typical_hold(), Some(400 * MS));
}

#[test]
fn a_lease_that_ends_without_a_release_counts_as_well() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 1_000 * MS);
    let mut now = work(&mut forecast, now, 200, 2 * MS, 10);
    for _ in 0..200 {
        now += 2 * MS;
        forecast.on_end(now);
    }
    near(forecast.wait(now, 0, 10), 2 * MS);
}

/// A queue that stands for so long. One caller comes each millisecond; one is released as often, but for one in `left_out`.
fn queue(forecast: &mut Forecast, mut now: Instant, lasts: Duration, left_out: u32) -> Instant {
    forecast.on_working(now, 1);
    forecast.on_queue_begins(now);
    for n in 0..lasts.as_millis() as u32 {
        now += MS;
        forecast.on_arrival(now, 250 * MS);
        if n % left_out != 0 {
            forecast.on_release(now, MS);
        }
    }
    now
}

const DEEP_WAIT: Duration = Duration::from_millis(175);

#[test]
fn an_overload_is_a_deep_queue_that_stands_and_grows() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = queue(&mut forecast, now, 499 * MS, 2);
    assert!(
        !forecast.is_overloaded(now, DEEP_WAIT.as_secs_f64(), 0.0),
        "it has not stood for twice as long as callers have"
    );
    assert!(!forecast.is_overloaded(now + MS, (DEEP_WAIT - MS).as_secs_f64(), 0.4), "it is not deep");
    assert!(forecast.is_overloaded(now + MS, DEEP_WAIT.as_secs_f64(), 0.0));
}

#[test]
fn a_queue_that_only_stands_is_none() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = queue(&mut forecast, now, 2_000 * MS, 10);
    assert!(!forecast.is_overloaded(now, DEEP_WAIT.as_secs_f64(), 0.0));
}

#[test]
fn a_surplus_is_no_overload_before_it_has_lasted() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = queue(&mut forecast, now, 2_000 * MS, 2_001);
    let soon = queue(&mut forecast, now, 500 * MS, 5);
    assert!(!forecast.is_overloaded(soon, DEEP_WAIT.as_secs_f64(), 0.0));
    let later = queue(&mut forecast, soon, 1_000 * MS, 5);
    assert!(forecast.is_overloaded(later, DEEP_WAIT.as_secs_f64(), 0.0));
}

#[test]
fn an_overload_ends_when_nobody_has_waited_for_a_while_and_not_at_one_empty_moment() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 250 * MS);
    let now = queue(&mut forecast, now, 500 * MS, 2);
    assert!(forecast.is_overloaded(now, DEEP_WAIT.as_secs_f64(), 0.0));
    forecast.on_queue_ends(now);
    forecast.on_queue_begins(now + 99 * MS);
    assert!(forecast.is_overloaded(now + 99 * MS, MS.as_secs_f64(), 0.0));
    forecast.on_queue_ends(now + 99 * MS);
    forecast.on_queue_begins(now + 199 * MS);
    assert!(!forecast.is_overloaded(now + 199 * MS, MS.as_secs_f64(), 0.0));
}

#[test]
fn work_that_was_given_up_would_have_taken_longer() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 1_000 * MS);
    (0..7).for_each(|_| forecast.on_release(now, 360 * MS));
    (0..7).for_each(|_| forecast.on_given_up(now, 100 * MS));
    assert_eq!(forecast.typical_hold(), Some(360 * MS), "no less than is known");
    (0..2).for_each(|_| forecast.on_given_up(now, 400 * MS));
    assert_eq!(forecast.typical_hold(), Some(500 * MS));
}

#[test]
fn a_lease_of_which_nobody_knows_the_begin_lasts_since_nothing_is_idle() {
    let now = Instant::now();
    let mut forecast = Forecast::new(now, 1_000 * MS);
    (0..7).for_each(|_| forecast.on_release(now, 40 * MS));
    forecast.on_working(now, 10);
    forecast.on_untimed(now + 20 * MS);
    forecast.on_untimed(now + 30 * MS);
    assert_eq!(forecast.typical_hold(), Some(40 * MS), "at least so long, which says nothing");
    forecast.on_untimed(now + 320 * MS);
    forecast.on_untimed(now + 320 * MS);
    assert_eq!(forecast.typical_hold(), Some(400 * MS));
}
