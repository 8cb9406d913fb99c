//! Will the pool run out of connections if utilization keeps rising at its present rate?
//!
//! The detector draws a straight line through past utilization and finds where the line meets the limit. It does so on
//! ten scales, with 14 buckets each. Buckets last from one second to nine minutes, so the longest line covers two
//! hours. The detector believes a line if all of these hold:
//!
//! - Chance alone would not make it rise so steeply. Callers arrive in clumps. Clumps matter more with fewer
//!   connections and longer leases.
//! - A gradual rise explains the buckets no worse than a step does. A step is a restart or a batch.
//! - The present level is clearly above the usual one, once that is known.
//! - It meets the limit within a quarter of the time that it covers, half an hour at most. So a surge is predicted
//!   seconds before its end, and the slow rise of a day is not predicted at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reading::Reading;

/// The time between two looks, in seconds.
const LOOK: f64 = 0.25;
/// The shortest bucket. The buckets of each further scale are twice as long.
const BUCKET: Duration = Duration::from_secs(1);
const SCALES: usize = 10;
/// The number of buckets of each scale.
const BUCKETS: usize = 14;
/// With fewer buckets than this there is no line.
const ENOUGH: usize = 8;
/// A line is believed for this share of the time that it covers.
const BELIEVED: f64 = 1.0 / 4.0;
/// The last quarter must still rise by this share of the line's rise, unless the pool is full already.
const STILL: f64 = 0.25;
/// From this utilization on, the pool is full.
const FULL: f64 = 0.97;
/// Below this utilization no prediction is made.
const LOWEST: f64 = 0.7;
/// The least slope, in standard errors of the slope that chance makes.
const RISES: f64 = 4.0;
/// A step must explain the buckets this much better than a rise does, in variances of a bucket. Less is chance.
const STEP: f64 = 4.0;
/// The same, once the pool is full.
const STEP_UP_TO_FULL: f64 = 8.0;
/// The upper bound of that difference, as a share of all squares.
const STEP_AT_MOST: f64 = 0.1;
/// The least rise of the recent buckets above the usual level, in standard errors.
const UNUSUAL: f64 = 6.0;
/// The number of recent buckets.
const RECENT: usize = 4;
/// The usual level is the average of this many buckets that have aged out of the line.
const USUAL: f64 = 16.0;
/// With fewer aged buckets than this, the usual level is unknown.
const KNOWN: f64 = 4.0;
/// The noise is the average over this many buckets.
const LEARNED: f64 = 64.0;
/// With fewer buckets than this, only the noise that chance makes is known.
const TAUGHT: f64 = 20.0;
/// The time constant of the mean lease duration, in seconds.
const HOLDS: f64 = 60.0;
/// After a gap this long the detector begins anew.
const GAP: Duration = Duration::from_secs(10);

/// When the pool will run out of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prediction {
    /// The time until no connection is left.
    pub(super) within: Duration,
    /// The time that the line covers.
    pub(super) over: Duration,
}

#[derive(Debug)]
pub(super) struct Trend {
    limit: usize,
    last: Option<Instant>,
    arrivals: u64,
    /// Connection-seconds of use. Divided by `asked`, they give the mean lease duration, by Little's law. Decays.
    work: f64,
    /// Callers that arrived. Decays.
    asked: f64,
    /// When the current bucket ends.
    ends: Option<Instant>,
    sum: f64,
    count: u32,
    scales: Vec<Scale>,
}

#[derive(Debug, Default)]
struct Scale {
    /// Mean utilization, oldest first.
    buckets: VecDeque<f64>,
    /// The average of the buckets that have aged out.
    usual: f64,
    /// How many of them there were, up to `USUAL`.
    aged: f64,
    /// The variance of one bucket, estimated from its neighbours.
    noise: f64,
    /// How many buckets the noise is known from, up to `LEARNED`.
    learned: f64,
    /// The first half of the next scale's bucket.
    half: Option<f64>,
    prediction: Option<Prediction>,
}

impl Trend {
    pub(super) fn new() -> Self {
        Self {
            limit: 0,
            last: None,
            arrivals: 0,
            work: 0.0,
            asked: 0.0,
            ends: None,
            sum: 0.0,
            count: 0,
            scales: (0..SCALES).map(|_| Scale::default()).collect(),
        }
    }

    /// Returns the soonest prediction of all scales.
    pub(super) fn tick(&mut self, now: Instant, reading: &Reading) -> Option<Prediction> {
        let gap = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        if reading.limit != self.limit || gap > GAP {
            *self = Self { limit: reading.limit, arrivals: reading.arrivals, ..Self::new() };
        }
        self.last = Some(now);
        self.measure_holds(gap.as_secs_f64(), reading);
        let ends = *self.ends.get_or_insert(now + BUCKET);
        if now >= ends && self.count > 0 {
            let mean = self.sum / f64::from(self.count);
            (self.sum, self.count, self.ends) = (0.0, 0, Some(ends.max(now - BUCKET / 2) + BUCKET));
            self.push(mean);
        }
        self.sum += reading.utilization();
        self.count += 1;
        let soonest =
            self.scales.iter().filter_map(|scale| scale.prediction).min_by_key(|prediction| prediction.within);
        // A service with as many workers as connections fills the pool, and no caller waits.
        let is_only_busy = reading.utilization() >= FULL && reading.waiting == 0;
        soonest
            .filter(|_| !is_only_busy)
            .filter(|_| self.scales.first().is_some_and(|finest| finest.recent() >= LOWEST))
    }

    fn measure_holds(&mut self, seconds: f64, reading: &Reading) {
        let leak = (-seconds / HOLDS).exp();
        let asked = reading.arrivals.saturating_sub(self.arrivals);
        self.arrivals = reading.arrivals;
        self.work = self.work * leak + reading.in_use as f64 * seconds;
        self.asked = self.asked * leak + asked as f64;
    }

    fn push(&mut self, mean: f64) {
        let hold = if self.asked > 0.0 { self.work / self.asked } else { f64::INFINITY };
        let (mut bucket, mut length) = (mean, BUCKET);
        for scale in &mut self.scales {
            scale.push(bucket);
            // A clump of callers lasts for one lease. The detector sees nothing between two looks.
            let correlated = ((2.0 * hold).hypot(LOOK) / length.as_secs_f64()).min(1.0);
            let chance = correlated / self.limit.max(1) as f64;
            scale.prediction = scale.predict(chance, length);
            match scale.half.take() {
                None => {
                    scale.half = Some(bucket);
                    return;
                }
                Some(half) => (bucket, length) = ((half + bucket) / 2.0, length * 2),
            }
        }
    }
}

impl Scale {
    fn push(&mut self, bucket: f64) {
        if let [.., before, last] = *self.buckets.make_contiguous() {
            // On a straight line the bend is zero, however steep the line is.
            let bend = bucket - 2.0 * last + before;
            self.learned = (self.learned + 1.0).min(LEARNED);
            self.noise += (bend * bend / 6.0 - self.noise) / self.learned;
        }
        self.buckets.push_back(bucket);
        if self.buckets.len() > BUCKETS {
            if let Some(oldest) = self.buckets.pop_front() {
                self.aged = (self.aged + 1.0).min(USUAL);
                self.usual += (oldest - self.usual) / self.aged;
            }
        }
    }

    /// `chance` is the variance of one bucket at full utilization, if callers arrive independently.
    fn predict(&self, chance: f64, length: Duration) -> Option<Prediction> {
        let count = self.buckets.len();
        if count < ENOUGH {
            return None;
        }
        let line = Line::through(&self.buckets);
        let learned = if self.learned >= TAUGHT { self.noise } else { 0.0 };
        let variance = (chance * line.mean).max(learned).max(f64::EPSILON);
        let n = count as f64;
        let error = (variance * 12.0 / (n * (n * n - 1.0))).sqrt();
        let quarter = count / 4;
        let (last, before) = (self.mean(0, quarter), self.mean(quarter, quarter));
        let rise = line.slope * quarter as f64;
        // A full pool cannot rise further, so a rise looks like a step.
        let slack = if last < FULL { STEP } else { STEP_UP_TO_FULL } * variance;
        let slack = slack.min(squares(&self.buckets, 0, count) * STEP_AT_MOST);
        let ramp = f64::min(misfit(&self.buckets, count / 2), misfit(&self.buckets, count - 1));
        let is_step = ramp > best_step(&self.buckets) + slack;
        let still_rises = last >= FULL || last - before >= rise * STILL;
        if line.slope < RISES * error || is_step || !still_rises || !self.is_unusual(variance) {
            return None;
        }
        // The end of the line, or lower: if the rise has stopped, utilization is below the line.
        let level = (line.mean + line.slope * n / 2.0).min(last + rise / 2.0);
        let left = (1.0 - level).max(0.0) / line.slope;
        let within = length.mul_f64(left.min(n));
        let is_believed = level >= LOWEST && left <= n * BELIEVED;
        is_believed.then(|| Prediction { within, over: length * count as u32 })
    }

    fn is_unusual(&self, variance: f64) -> bool {
        let error = (variance * (1.0 / RECENT as f64 + 1.0 / self.aged.max(1.0))).sqrt();
        self.aged < KNOWN || self.recent() - self.usual >= UNUSUAL * error
    }

    fn recent(&self) -> f64 {
        self.mean(0, RECENT)
    }

    /// Returns the mean of `count` buckets, not counting the last `without`.
    fn mean(&self, without: usize, count: usize) -> f64 {
        self.buckets.iter().rev().skip(without).take(count).sum::<f64>() / count as f64
    }
}

/// A straight line through the buckets, by least squares.
struct Line {
    mean: f64,
    /// The rise from one bucket to the next.
    slope: f64,
}

impl Line {
    fn through(buckets: &VecDeque<f64>) -> Self {
        let n = buckets.len() as f64;
        let mean = buckets.iter().sum::<f64>() / n;
        let middle = (n - 1.0) / 2.0;
        let (mut xx, mut xy) = (0.0, 0.0);
        for (index, bucket) in buckets.iter().enumerate() {
            let x = index as f64 - middle;
            (xx, xy) = (xx + x * x, xy + x * bucket);
        }
        Self { mean, slope: xy / xx }
    }
}

/// Returns the squares that the best step between two levels leaves unexplained. The bucket with the step is ignored,
/// because it may have any value.
fn best_step(buckets: &VecDeque<f64>) -> f64 {
    let steps = 1..buckets.len() - 1;
    steps
        .map(|step| squares(buckets, 0, step) + squares(buckets, step + 1, buckets.len()))
        .fold(f64::INFINITY, f64::min)
}

/// Returns the sum of squares of a range of buckets about their mean.
fn squares(buckets: &VecDeque<f64>, from: usize, to: usize) -> f64 {
    let mean = buckets.range(from..to).sum::<f64>() / (to - from) as f64;
    buckets.range(from..to).map(|bucket| (bucket - mean).powi(2)).sum()
}

/// Returns the squares that the best ramp between two levels leaves unexplained. The ramp takes `width` buckets.
fn misfit(buckets: &VecDeque<f64>, width: usize) -> f64 {
    let n = buckets.len() as f64;
    let mean = buckets.iter().sum::<f64>() / n;
    let mut best = f64::INFINITY;
    // At least half of the buckets must show the ramp, or all of a shorter ramp.
    let shown = width.min(buckets.len() / 2);
    for end in shown..=buckets.len() - 1 + width - shown {
        let share = |index: usize| ((index + width) as f64 - end as f64).clamp(0.0, width as f64) / width as f64;
        let middle = (0..buckets.len()).map(share).sum::<f64>() / n;
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (index, bucket) in buckets.iter().enumerate() {
            let (x, y) = (share(index) - middle, bucket - mean);
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
        best = f64::min(best, yy - if xx > 0.0 { xy * xy / xx } else { 0.0 });
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the first prediction and when it was made, in seconds. The pool has `limit` connections and `rate`
    /// callers a second. `utilization` is a function of the time in seconds.
    fn predicted(limit: usize, rate: f64, seconds: u64, utilization: impl Fn(f64) -> f64) -> Option<(f64, Prediction)> {
        let (begun, mut trend) = (Instant::now(), Trend::new());
        (0..seconds * 4).find_map(|tick| {
            let at = tick as f64 / 4.0;
            let in_use = (utilization(at).min(1.0) * limit as f64).round() as usize;
            let waiting = usize::from(utilization(at) > 1.0);
            let reading = Reading { in_use, limit, waiting, arrivals: (at * rate) as u64, ..Reading::default() };
            trend.tick(begun + Duration::from_secs_f64(at), &reading).map(|prediction| (at, prediction))
        })
    }

    #[test]
    fn a_surge_is_predicted_within_some_seconds() {
        let cold = predicted(50, 200.0, 60, |at| 0.6 + 0.04 * at).expect("a prediction");
        assert!((8.0..10.5).contains(&cold.0), "{cold:?}");
        let warm = predicted(50, 200.0, 700, |at| 0.6 + 0.04 * (at - 600.0).max(0.0)).expect("a prediction");
        assert!((605.0..611.0).contains(&warm.0), "{warm:?}");
    }

    #[test]
    fn slow_growth_is_predicted_half_an_hour_ahead() {
        let (at, prediction) = predicted(400, 4_000.0, 8 * 3600, |at| 0.5 + at / 36_000.0).expect("a prediction");
        let ends = at + prediction.within.as_secs_f64();
        assert!((17_000.0..19_000.0).contains(&ends), "{at} {prediction:?}");
        assert!((1_000..=1_800).contains(&prediction.within.as_secs()), "{prediction:?}");
    }

    #[test]
    fn a_step_is_no_trend() {
        for length in [1.0, 3.0, 10.0, 60.0] {
            let warm_up = predicted(50, 200.0, 3_600, |at| 0.7 * (at / length).min(1.0));
            assert_eq!(warm_up, None, "{length}");
            let restart = predicted(50, 200.0, 3_600, |at| 0.7 * (1.0 - (-at / length).exp()));
            assert_eq!(restart, None, "{length}");
        }
        assert_eq!(predicted(50, 200.0, 3_600, |at| if at < 1_800.0 { 0.4 } else { 0.85 }), None);
    }

    #[test]
    fn a_short_rise_that_ends_below_the_limit_is_no_trend() {
        let bump = |at: f64| 0.4 + 0.35 * (1.0 - (at - 1_000.0).abs() / 15.0).max(0.0);
        assert_eq!(predicted(50, 200.0, 2_000, bump), None);
    }

    #[test]
    fn a_falling_load_a_full_pool_and_an_idle_one_predict_nothing() {
        assert_eq!(predicted(50, 200.0, 3_600, |at| 0.95 - at / 7_200.0), None);
        assert_eq!(predicted(1, 10.0, 600, |_| 1.0), None);
        assert_eq!(predicted(50, 0.0, 600, |_| 0.0), None);
        // As many workers as connections.
        for begins in 0..20 {
            assert_eq!(predicted(10, 5.0, 60, |at| if at < f64::from(begins) { 0.0 } else { 1.0 }), None, "{begins}");
        }
    }

    #[test]
    fn the_detector_begins_anew_after_a_resize() {
        let (begun, mut trend) = (Instant::now(), Trend::new());
        for tick in 0..400_u32 {
            let limit = 100 - 5 * (tick as usize / 40);
            let reading = Reading { in_use: 45, limit, arrivals: u64::from(tick) * 50, ..Reading::default() };
            assert_eq!(trend.tick(begun + Duration::from_millis(250) * tick, &reading), None);
        }
    }

    #[test]
    fn the_memory_of_the_detector_is_bounded() {
        let (begun, mut trend) = (Instant::now(), Trend::new());
        for tick in 0..100_000_u32 {
            let reading = Reading { in_use: 5, limit: 10, arrivals: u64::from(tick), ..Reading::default() };
            let _ = trend.tick(begun + Duration::from_millis(250) * tick, &reading);
        }
        assert!(trend.scales.iter().all(|scale| scale.buckets.len() <= BUCKETS));
        assert_eq!(trend.scales.len(), SCALES);
    }
}
