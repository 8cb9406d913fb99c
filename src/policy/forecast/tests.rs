use super::*;

const MS: Duration = Duration::from_millis(1);

/// Makes `count` releases, one each `gap`, while `connections` connections are always busy.
fn work(forecast: &mut Forecast, mut now: Time, count: u32, gap: Duration, connections: usize) -> Time {
    forecast.on_working(now, connections);
    for _ in 0..count {
        now += gap;
        forecast.on_release(now, (gap * connections as u32).as_secs_f64());
    }
    now
}

fn wait(forecast: &mut Forecast, now: Time, ahead: usize, connections: usize) -> Option<f64> {
    let gap = forecast.gap(now, connections)?;
    Some(forecast.wait(now, ahead, gap, forecast.progress()))
}

fn near(actual: Option<f64>, expected: Duration) {
    let actual = actual.map(Duration::from_secs_f64).expect("an estimate");
    let off = actual.as_secs_f64() / expected.as_secs_f64();
    assert!((0.95..1.05).contains(&off), "{actual:?} instead of {expected:?}");
}

#[test]
fn predicts_nothing_before_three_releases() {
    let now = Time::BEGIN;
    let mut forecast = Forecast::new(1_000 * MS);
    assert_eq!(wait(&mut forecast, now, 0, 10), None);
    let now = work(&mut forecast, now, 2, MS, 10);
    assert_eq!(wait(&mut forecast, now, 0, 10), None);
}

#[test]
fn predicts_by_littles_law() {
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
    assert_eq!(wait(&mut forecast, now + 250 * MS, 0, 20), Some(0.0), "a connection is about to be given back");
    near(wait(&mut forecast, now + 300 * MS, 0, 20), 300 * MS);
}

/// A caller that would wait for years, and then an hour of the usual ones, and a slowdown.
#[test]
fn one_caller_with_a_deadline_in_years_spoils_no_estimate() {
    for years in [1.0 / 365.0 / 24.0, 1.0 / 365.0, 30.0] {
        let mut forecast = Forecast::new(1_000 * MS);
        forecast.on_arrival(years * 365.0 * 24.0 * 3_600.0);
        assert!(forecast.wait_budget() < 17.0, "{}", forecast.wait_budget());
        let mut now = Time::BEGIN;
        for _ in 0..360 {
            forecast.on_arrival(1.0);
            now = work(&mut forecast, now, 10_000, MS, 5);
        }
        let later = work(&mut forecast, now, 6_000, 10 * MS, 5);
        near(wait(&mut forecast, later, 0, 5), 10 * MS);
    }
}

#[test]
fn some_callers_that_wait_for_ever_leave_an_average_of_minutes() {
    let (mut forecast, mut most) = (Forecast::new(1_000 * MS), 0.0_f64);
    for caller in 0..10_000 {
        forecast.on_arrival(if caller % 20 == 0 { 1e9 } else { 1.0 });
        most = most.max(forecast.wait_budget());
    }
    assert!(most < 400.0, "{most} s");
}

/// The average wait budget falls, and the estimates decay at its pace from then on.
#[test]
fn after_patient_callers_the_estimates_follow_the_impatient_ones() {
    let mut forecast = Forecast::new(1_000 * MS);
    (0..200).for_each(|_| forecast.on_arrival(3_600.0));
    assert!(forecast.wait_budget() > 3_500.0, "many patient callers are no outliers");
    let now = work(&mut forecast, Time::BEGIN, 1_000, MS, 5);
    (0..400).for_each(|_| forecast.on_arrival(1.0));
    let later = work(&mut forecast, now, 3_000, 10 * MS, 5);
    near(wait(&mut forecast, later, 0, 5), 10 * MS);
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
    assert!((10.0..10.1).contains(&same.error(100.0, 10)), "all connections at once: {}", same.error(100.0, 10));
    // The standard deviation of these leases is their mean.
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
