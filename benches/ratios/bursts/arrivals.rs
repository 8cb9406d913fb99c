//! The arrival times of callers: open loop, and equal for equal seeds.

use std::time::Duration;

use fastrand::Rng;

/// How callers are spread over time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pattern {
    /// Callers arrive independently at random: a Poisson process.
    AtRandom,
    /// All callers of a period arrive at its beginning.
    Together { every: Duration },
    /// Callers come from sources that are on and off in turns, each time for an exponentially distributed while. They
    /// send evenly while they are on.
    OnOff { sources: u32, on: Duration, off: Duration },
}

impl Pattern {
    /// Returns the arrivals in the next `lasts`, sorted. There are `rate` per second on average.
    pub(super) fn arrivals(self, rate: f64, lasts: Duration, rng: &mut Rng) -> Vec<Duration> {
        let end = lasts.as_secs_f64();
        let mut seconds = match self {
            Self::AtRandom => at_random(rate, end, rng),
            Self::Together { every } => together(rate, every.as_secs_f64(), end),
            Self::OnOff { sources, on, off } => {
                let (on, off) = (on.as_secs_f64(), off.as_secs_f64());
                let rate = rate / f64::from(sources) * (on + off) / on;
                (0..sources).flat_map(|_| source(rate, on, off, end, rng)).collect()
            }
        };
        seconds.sort_by(f64::total_cmp);
        seconds.into_iter().map(Duration::from_secs_f64).collect()
    }
}

fn at_random(rate: f64, end: f64, rng: &mut Rng) -> Vec<f64> {
    let mut arrivals = Vec::new();
    let mut at = exponential(1.0 / rate, rng);
    while at < end {
        arrivals.push(at);
        at += exponential(1.0 / rate, rng);
    }
    arrivals
}

/// A fraction of a caller in one period is carried over to a later one, so that the rate is met.
fn together(rate: f64, every: f64, end: f64) -> Vec<f64> {
    let periods = (end / every).ceil() as usize;
    let until = |period: usize| (period as f64 * every * rate).round() as usize;
    let period = |period: usize| (until(period)..until(period + 1)).map(move |_| period as f64 * every);
    (0..periods).flat_map(period).collect()
}

/// Returns the arrivals of one source, which is on at the beginning as often as at any other time.
fn source(rate: f64, on: f64, off: f64, end: f64, rng: &mut Rng) -> Vec<f64> {
    let mut arrivals = Vec::new();
    let mut is_on = rng.f64() < on / (on + off);
    let mut begins = 0.0;
    // Each source has a phase of its own, so that the sources do not send in step.
    let mut due = rng.f64() / rate;
    while begins < end {
        let ends = begins + exponential(if is_on { on } else { off }, rng);
        if is_on {
            while due < ends.min(end) {
                arrivals.push(due);
                due += 1.0 / rate;
            }
        } else {
            due += ends - begins;
        }
        begins = ends;
        is_on = !is_on;
    }
    arrivals
}

fn exponential(mean: f64, rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln() * mean
}
