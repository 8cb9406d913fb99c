use super::*;
use crate::policy::ShedReason;

const MINUTE: f64 = 60.0;
const HOURS: f64 = 3_600.0;
const WEEK: f64 = 7.0 * 24.0 * HOURS;
const RATES: [f64; 4] = [1.0, 10.0, 100.0, 1_000.0];

/// What was found and after how many seconds.
type Found = Vec<(f64, Finding)>;

/// A pool in virtual time.
struct Play {
    random: fastrand::Rng,
    /// The second `began` of the week.
    begun: Instant,
    began: f64,
    at: f64,
    calls: u64,
    traffic: Traffic,
    found: Found,
}

impl Play {
    /// Begins at this second of the week.
    fn from(at: f64, seed: u64) -> Self {
        let (random, begun) = (fastrand::Rng::with_seed(seed), Instant::now());
        Self { random, begun, began: at, at, calls: 0, traffic: Traffic::new(), found: Found::new() }
    }

    /// Looks each `tick` seconds until the second `end`. `rate` returns the calls a second; they arrive at random.
    fn until(&mut self, end: f64, tick: f64, rate: impl Fn(f64) -> f64) {
        while self.at < end {
            self.calls += poisson(&mut self.random, rate(self.at + tick / 2.0) * tick);
            self.at += tick;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.begun + Duration::from_secs_f64(self.at - self.began);
        let reading = Reading { arrivals: self.calls, ..Reading::default() };
        self.found.extend(self.traffic.tick(now, &reading).map(|finding| (self.at, finding)));
    }

    /// The process stands still. If `is_late`, the callers of this time come all at once afterwards.
    fn stop(&mut self, seconds: f64, rate: f64, is_late: bool) {
        self.at += seconds;
        self.calls += if is_late { (rate * seconds) as u64 } else { 0 };
        self.look();
    }

    /// Returns when an anomaly began, without its repetitions.
    fn anomalies(&self) -> Vec<f64> {
        let is_begin = |(_, finding): &&(f64, Finding)| matches!(finding, Finding::TrafficAnomaly { lasting, .. } if lasting.is_zero());
        self.found.iter().filter(is_begin).map(|(at, _)| *at).collect()
    }
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

fn poisson(random: &mut fastrand::Rng, mean: f64) -> u64 {
    if mean > 50.0 {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0) as u64;
    }
    let (mut count, mut left) = (0, mean);
    loop {
        left += (1.0 - random.f64()).ln();
        if left < 0.0 {
            return count;
        }
        count += 1;
    }
}

/// Draws a line through the values of a cycle, the first of which is at its beginning.
fn curve<const N: usize>(values: [f64; N], place: f64) -> f64 {
    let place = place.rem_euclid(1.0) * N as f64;
    let (index, share) = (place as usize % N, place.fract());
    values[index] * (1.0 - share) + values[(index + 1) % N] * share
}

/// Monday to Sunday, at noon.
fn weekly(at: f64) -> f64 {
    curve([1.0, 1.0, 1.0, 1.0, 0.9, 0.5, 0.45], (at - 12.0 * HOURS) / WEEK)
}

/// A smooth day, with ten times as many calls at noon as at midnight.
fn smooth(at: f64) -> f64 {
    weekly(at) * (0.55 - 0.45 * (at / (24.0 * HOURS) * std::f64::consts::TAU).cos()) / 0.55
}

/// The day of people at work: a steep morning, a dip at lunch, a long evening.
fn office(at: f64) -> f64 {
    let hours = [
        0.40, 0.37, 0.35, 0.36, 0.40, 0.48, 0.62, 0.85, 1.10, 1.25, 1.30, 1.25, //
        1.10, 1.20, 1.30, 1.25, 1.15, 1.00, 0.85, 0.75, 0.68, 0.60, 0.52, 0.45,
    ];
    weekly(at) * curve(hours, at / (24.0 * HOURS))
}

fn is_within(at: f64, every: f64, first: f64) -> bool {
    at.rem_euclid(every) < first
}

/// Plays twenty weeks of each rate, and returns how many anomalies they have together. None has more than one.
fn weeks(name: &str, shape: impl Fn(f64) -> f64) -> [usize; 4] {
    RATES.map(|rate| {
        let counts = (0..20).map(|seed| {
            let mut play = Play::from(0.3 * HOURS, seed);
            play.until(0.3 * HOURS + WEEK, QUARTER.as_secs_f64(), |at| rate * shape(at));
            assert!(play.anomalies().len() <= 1, "{name}, {rate} a second, seed {seed}: {:?}", play.anomalies());
            play.anomalies().len()
        });
        counts.sum()
    })
}

#[test]
fn a_week_of_smooth_days_has_at_most_one_anomaly() {
    assert_eq!(weeks("smooth", smooth), [0; 4]);
}

#[test]
fn a_week_of_people_at_work_has_at_most_one_anomaly() {
    assert_eq!(weeks("office", office), [0; 4]);
}

/// At one call a second, a burst of 20 s is a few hundred calls in a minute, and chance may spread them evenly.
#[test]
fn a_burst_of_seconds_at_each_full_hour_is_no_anomaly() {
    let burst = |at| office(at) * if is_within(at, HOURS, 20.0) { 20.0 } else { 1.0 };
    assert_eq!(weeks("20 s at each full hour", burst)[1..], [0; 3]);
}

/// The first one is reported.
#[test]
fn a_job_at_each_full_hour_is_reported_once_in_a_week() {
    for minutes in [3.0, 10.0] {
        let job = |at| office(at) + if is_within(at, HOURS, minutes * MINUTE) { 6.0 } else { 0.0 };
        assert_eq!(weeks("minutes at each full hour", job), [20; 4], "{minutes} min");
    }
}

#[test]
fn a_job_at_each_quarter_of_an_hour_is_no_longer_reported_after_an_hour() {
    let mut play = Play::from(0.0, 1);
    let job = |at| 10.0 + if is_within(at, HOURS / 4.0, 2.0 * MINUTE) { 60.0 } else { 0.0 };
    play.until(24.0 * HOURS, 15.0, job);
    let anomalies = play.anomalies();
    assert!((1..=4).contains(&anomalies.len()) && anomalies.iter().all(|at| *at < 1.2 * HOURS), "{anomalies:?}");
}

#[test]
fn a_fivefold_jump_is_reported_within_two_minutes_at_any_minute_of_the_week() {
    let (mut slowest, mut jumps) = (0.0_f64, 0);
    for rate in RATES {
        for hour in 0..168 {
            let seed = rate as u64 * 1_000 + hour;
            let mut random = fastrand::Rng::with_seed(seed);
            let jump = hour as f64 * HOURS + (random.f64() * HOURS).round();
            // At least 100 calls a minute, and a little more for chance.
            if 5.0 * rate * smooth(jump) * MINUTE < 150.0 {
                continue;
            }
            let mut play = Play::from(jump - 70.0 * MINUTE - 15.0 * random.f64(), seed);
            play.until(jump + 5.0 * MINUTE, 1.0, |at| rate * smooth(at) * if at >= jump { 5.0 } else { 1.0 });
            let took = play.anomalies().first().map_or(f64::INFINITY, |at| at - jump);
            assert!((0.0..120.0).contains(&took), "{rate} a second, hour {hour}: {took} s");
            (slowest, jumps) = (slowest.max(took), jumps + 1);
        }
    }
    assert!(jumps > 500, "{jumps}");
    assert!(slowest < 90.0, "{slowest} s");
}

#[test]
fn an_anomaly_is_repeated_while_it_lasts_and_then_ends() {
    let mut play = Play::from(0.0, 7);
    play.until(3.0 * HOURS, 0.25, |at| if is_within(at, WEEK, 2.0 * HOURS) || at > 2.1 * HOURS { 20.0 } else { 100.0 });
    let (begin, end) = (&play.found[0], play.found.last().unwrap());
    let is_told = matches!(begin.1, Finding::TrafficAnomaly { calls: 2_000.., usual: 1_100..1_300, .. });
    assert!(is_told && begin.0 < 2.0 * HOURS + 120.0, "{begin:?}");
    assert!(
        matches!(end.1, Finding::TrafficNormal { lasted, .. } if (240..420).contains(&lasted.as_secs())),
        "{end:?}"
    );
    assert!(end.0 < 2.1 * HOURS + 150.0, "{end:?}");
    assert!((8..=14).contains(&play.found.len()), "{:?}", play.found);
    assert!(play.found.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 30.0), "{:?}", play.found);
}

#[test]
fn a_level_that_stays_becomes_usual() {
    let mut play = Play::from(0.0, 7);
    play.until(5.0 * HOURS, 1.0, |at| if at < 2.0 * HOURS { 20.0 } else { 100.0 });
    let (at, end) = play.found.last().unwrap();
    assert!(matches!(end, Finding::TrafficNormal { calls: 5_500..6_500, .. }), "{end:?}");
    assert!((2.4 * HOURS..2.6 * HOURS).contains(at), "{at}");
    assert_eq!(play.anomalies().len(), 1);
}

/// Every minute is within two standard deviations of the mean, however large these are.
#[test]
fn noise_of_two_deviations_is_never_an_anomaly() {
    for sigma in [0.05, 0.1, 0.2, 0.3, 0.45] {
        for seed in 0..20 {
            let mut play = Play::from(0.0, seed);
            for _ in 0..24 * 60 {
                let noise = normal(&mut play.random).clamp(-2.0, 2.0);
                let end = play.at + MINUTE;
                play.until(end, 15.0, |_| 50.0 * (1.0 + sigma * noise));
            }
            assert_eq!(play.anomalies(), [0.0; 0], "sigma {sigma}, seed {seed}");
        }
    }
}

/// Each minute has between 0.45 and 2.2 times the calls of the median minute. In twenty days, 1,700 minutes have more
/// than twice as many, and chance may make an hour look calm once or twice.
#[test]
fn traffic_that_always_varies_by_much_is_usual() {
    let days = (0..20).map(|seed| {
        let mut play = Play::from(0.0, seed);
        for _ in 0..24 * 60 {
            let (factor, end) = (2.2_f64.powf(2.0 * play.random.f64() - 1.0), play.at + MINUTE);
            play.until(end, 15.0, |_| 50.0 * factor);
        }
        // In its first hour the pool knows only a few minutes.
        play.anomalies().into_iter().filter(|at| *at > HOURS).count()
    });
    assert!(days.sum::<usize>() <= 3);
}

#[test]
fn a_few_calls_more_are_worth_no_event() {
    // 12 calls a minute, then 84.
    let mut play = Play::from(0.0, 3);
    play.until(4.0 * HOURS, 15.0, |at| if at < 2.0 * HOURS { 0.2 } else { 1.2 });
    assert_eq!(play.anomalies(), [0.0; 0]);
}

/// Where all minutes are alike, the deviation is zero.
#[test]
fn one_call_more_than_always_is_no_anomaly() {
    let mut play = Play::from(0.0, 3);
    for quarter in 0..1_000 {
        play.at += 15.0;
        play.calls += 250 + if quarter > 500 { 200 } else { 0 };
        play.look();
    }
    assert_eq!(play.found, []);
}

#[test]
fn a_process_that_stands_still_has_no_anomaly() {
    for (seed, stop) in [1.0, 14.0, 16.0, 31.0, 59.0, 300.0, 3_500.0, 8_000.0].into_iter().enumerate() {
        for is_late in [false, true] {
            let mut play = Play::from(0.0, seed as u64);
            play.until(2.0 * HOURS + 7.0, 0.25, |_| 100.0);
            for _ in 0..3 {
                play.stop(stop, 100.0, is_late);
                let end = play.at + 1_000.0;
                play.until(end, 0.25, |_| 100.0);
            }
            assert_eq!(play.found, [], "a stop of {stop} s, late calls: {is_late}");
        }
    }
}

#[test]
fn an_idle_pool_that_is_used_again_has_no_anomaly() {
    for idle in [0.5 * HOURS, 0.9 * HOURS, HOURS, 5.0 * HOURS] {
        let mut play = Play::from(0.0, 5);
        let (begin, end) = (2.0 * HOURS, 2.0 * HOURS + idle);
        play.until(end + 2.0 * HOURS, 1.0, |at| if (begin..end).contains(&at) { 0.0 } else { 100.0 });
        assert_eq!(play.found, [], "idle for {idle} s");
    }
}

#[test]
fn ten_minutes_have_to_be_known() {
    let mut play = Play::from(0.0, 5);
    play.until(9.0 * MINUTE, 1.0, |_| 10.0);
    play.until(10.0 * MINUTE, 1.0, |_| 100.0);
    assert_eq!(play.found, []);
    let mut play = Play::from(0.0, 5);
    play.until(11.0 * MINUTE, 1.0, |_| 10.0);
    play.until(13.0 * MINUTE, 1.0, |_| 100.0);
    assert_eq!(play.anomalies().len(), 1);
}

/// While the circuit is open, callers are rejected before they ask for a connection. A rate refuses them as early. They
/// come as before.
#[test]
fn callers_that_are_refused_before_they_ask_are_calls_as_well() {
    let (begun, mut traffic, mut reading) = (Instant::now(), Traffic::new(), Reading::default());
    for second in 0..4 * 3_600 {
        match second / 3_600 {
            1 => reading.refused.rejected += 100,
            2 => reading.refused[ShedReason::RateLimited] += 100,
            _ => reading.arrivals += 100,
        }
        reading.refused[ShedReason::Hopeless] += 5;
        assert_eq!(traffic.tick(begun + Duration::from_secs(second), &reading), None, "after {second} s");
    }
    assert_eq!(reading.calls(), 4 * 3_600 * 100);
}

#[test]
fn memory_is_bounded() {
    let mut play = Play::from(0.0, 5);
    play.until(24.0 * HOURS, 15.0, |_| 10.0);
    assert_eq!((play.traffic.minutes.len(), play.traffic.minutes.capacity()), (62, 62));
}
