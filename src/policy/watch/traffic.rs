//! Do many more callers come than in the last hour?
//!
//! The detector counts calls in quarters of a minute, and keeps the last hour minute by minute. Traffic is unusual when
//! all of these hold for the last minute:
//!
//! - It has more calls than the median minute of the last hour by five deviations. The deviation is the median absolute
//!   deviation (MAD), scaled to the standard deviation of a normal distribution.
//! - It has more than twice the calls of the median minute, and at least 100. So a deviation of zero does no harm.
//! - Each of its quarters has clearly more calls than a usual one, so that a burst of a few seconds is not reported.
//! - It has clearly more calls than an hour before, so that an hourly job is reported once and not every hour.
//!
//! Minutes without a call say nothing about how busy the pool is when it is used, so they are left out. So are minutes
//! in which the process stood still. A level that has lasted for half an hour is the median, and so is usual.
//!
//! A drop is no finding: `docs/decisions/0065-when-traffic-is-an-anomaly.md` says why.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::finding::Finding;
use super::lasting::{DueReport, Lasting, Sign};
use super::reading::Reading;

/// The time over which calls are counted. The detector judges at its end.
const QUARTER: Duration = Duration::from_secs(15);
const QUARTERS: usize = 4;
/// The number of full minutes of which the median is taken.
const HOUR: usize = 60;
/// With fewer known minutes than this, the usual traffic is unknown.
const ENOUGH: usize = 10;
/// An hourly job may begin this many minutes earlier or later than the last time.
const AROUND: usize = 2;
/// After a gap of this many quarters nothing is known any more.
const MOST_QUARTERS: u64 = (QUARTERS * (HOUR + AROUND)) as u64;
/// The least deviation from the median, in scaled median absolute deviations.
const DEVIATIONS: f64 = 5.0;
/// Makes a median absolute deviation comparable with a standard deviation.
const SCALE: f64 = 1.482_6;
/// The least number of calls, in medians.
const TIMES: f64 = 2.0;
/// The least number of calls in a minute that is worth an event.
const NOTICEABLE: f64 = 100.0;
/// The least number of calls in a quarter, in usual quarters.
const STEADY: f64 = 1.5;
/// The least number of calls, in those of the busiest minute about an hour ago.
const NEW: f64 = 1.5;
/// An anomaly lasts while traffic is above the median by this share of what made it unusual.
const NEAR: f64 = 0.6;
/// How long traffic is usual before the anomaly has ended.
const CALM: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Traffic {
    begun: Option<Instant>,
    /// The number of the present quarter.
    quarter: u64,
    /// The calls before the present quarter. `None` if the detector has not seen its beginning.
    before: Option<u64>,
    /// The calls of the last four quarters, oldest first. `None` if they are not known.
    quarters: [Option<u64>; QUARTERS],
    /// The calls of the last full minutes, oldest first.
    minutes: VecDeque<Option<u64>>,
    usual: Option<Usual>,
    sign: Sign,
    lasting: Lasting,
}

/// The calls in a minute of the last hour.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usual {
    median: f64,
    /// The scaled median absolute deviation.
    deviation: f64,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            begun: None,
            quarter: 0,
            before: None,
            quarters: [None; QUARTERS],
            minutes: VecDeque::with_capacity(HOUR + AROUND),
            usual: None,
            sign: Sign::No,
            lasting: Lasting::new(Duration::ZERO, CALM),
        }
    }

    pub(super) fn tick(&mut self, now: Instant, reading: &Reading) -> Option<Finding> {
        self.count(now, reading.calls());
        let (calls, usual) = (self.last_minute().unwrap_or(0), self.usual.map_or(0.0, |usual| usual.median));
        self.lasting.look(now, self.sign).map(|due| match due {
            DueReport::Lasts(lasting) => Finding::TrafficAnomaly { calls, usual: usual.round() as u64, lasting },
            DueReport::Ended(lasted) => Finding::TrafficNormal { calls, lasted },
        })
    }

    /// `calls` counts from the start of the pool.
    fn count(&mut self, now: Instant, calls: u64) {
        let Some(begun) = self.begun else {
            (self.begun, self.before) = (Some(now), Some(calls));
            return;
        };
        let quarter = now.saturating_duration_since(begun).as_secs() / QUARTER.as_secs();
        let passed = quarter.saturating_sub(self.quarter);
        if passed == 0 {
            return;
        }
        // Over a gap, nobody knows which quarter had the calls. The present quarter has calls from the gap, too.
        let is_gap = passed > 1;
        for _ in 0..passed.min(MOST_QUARTERS) {
            self.quarters.rotate_left(1);
            self.quarters[QUARTERS - 1] = self.before.filter(|_| !is_gap).map(|before| calls.saturating_sub(before));
            self.quarter += 1;
            if self.quarter % QUARTERS as u64 == 0 {
                self.end_minute();
            }
        }
        (self.quarter, self.before) = (quarter, (!is_gap).then_some(calls));
        self.sign = self.judge();
    }

    fn end_minute(&mut self) {
        if self.minutes.len() >= HOUR + AROUND {
            self.minutes.pop_front();
        }
        self.minutes.push_back(self.last_minute().filter(|calls| *calls > 0));
        let mut known: Vec<f64> = self.minutes.iter().rev().take(HOUR).flatten().map(|calls| *calls as f64).collect();
        self.usual = (known.len() >= ENOUGH).then(|| Usual::of(&mut known));
    }

    /// Returns the calls of the last four quarters.
    fn last_minute(&self) -> Option<u64> {
        self.quarters.into_iter().sum()
    }

    fn judge(&self) -> Sign {
        let Some(usual) = self.usual else { return Sign::No };
        let near = if self.lasting.is_reported() { Sign::Near } else { Sign::No };
        let Some(calls) = self.last_minute().map(|calls| calls as f64) else { return near };
        let least = usual.least();
        let least_quarter = STEADY * usual.median / QUARTERS as f64;
        let is_steady = self.quarters.iter().flatten().all(|calls| *calls as f64 > least_quarter);
        let an_hour_ago = self.minutes.iter().rev().skip(HOUR - AROUND).flatten().max();
        let is_new = an_hour_ago.is_none_or(|before| calls > NEW * *before as f64);
        if calls > least && is_steady && is_new {
            Sign::Yes
        } else if calls > usual.median + (least - usual.median) * NEAR {
            near
        } else {
            Sign::No
        }
    }
}

impl Usual {
    fn of(minutes: &mut [f64]) -> Self {
        let middle = median(minutes);
        minutes.iter_mut().for_each(|calls| *calls = (*calls - middle).abs());
        Self { median: middle, deviation: SCALE * median(minutes) }
    }

    /// Returns the number of calls in a minute above which traffic is unusual.
    fn least(self) -> f64 {
        (self.median + DEVIATIONS * self.deviation).max(TIMES * self.median).max(NOTICEABLE)
    }
}

/// The median of at least one value. For an even number of values it is the upper one of the middle.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests;
