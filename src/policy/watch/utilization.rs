//! Is the pool nearly full, or exhausted?
//!
//! One look says little: a pool that is 70% busy on average is full now and then. So the average of the last 10 s has
//! to be above a threshold. The averages of both halves of the 10 s may be at most a little below it, so that peaks of
//! a few seconds are not reported.
//!
//! The pool is exhausted when each look for 2 s finds all connections in use *and* a caller that waits. A busy pool of
//! one connection is always fully in use, and that alone is no fault.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::finding::Finding;
use super::lasting::{DueReport, Lasting, Sign};
use super::reading::Reading;

const HIGH: f64 = 0.8;
const CRITICAL: f64 = 0.9;
/// How far below a threshold the average of one half may be. The whole average has to be as far below for an end.
const SLACK: f64 = 0.05;
/// The time that averages cover, and the time below a threshold before the end is reported.
const HELD: Duration = Duration::from_secs(10);
/// The largest number of looks within that time.
const LOOKS: usize = 100;
/// How long all connections are in use, with a caller waiting, before the pool is exhausted.
const EXHAUSTED: Duration = Duration::from_secs(2);
/// How long no caller waits before the exhaustion has ended.
const RELIEVED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Utilization {
    begun: Option<Instant>,
    /// The looks of the last 10 s, oldest first.
    looks: VecDeque<(Instant, f64)>,
    high: Lasting,
    critical: Lasting,
    exhausted: Lasting,
}

/// The average of the last 10 s, and the lower of the averages of their two halves.
struct Averages {
    all: f64,
    lower_half: f64,
}

impl Utilization {
    pub(super) fn new() -> Self {
        let (high, critical) = (Lasting::new(Duration::ZERO, HELD), Lasting::new(Duration::ZERO, HELD));
        let exhausted = Lasting::new(EXHAUSTED, RELIEVED);
        Self { begun: None, looks: VecDeque::new(), high, critical, exhausted }
    }

    /// Returns whether exhaustion has been reported and its end has not.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.is_reported()
    }

    pub(super) fn tick(&mut self, now: Instant, reading: &Reading) -> Vec<Finding> {
        let averages = self.average(now, reading.utilization());
        let exhausted = self.exhausted.look(now, exhausted(reading));
        // A worse level is reported instead of a milder one, except for the milder one's first report.
        let critical = sign(&self.critical, &averages, CRITICAL, self.exhausted.is_reported());
        let critical = self.critical.look(now, critical);
        let high = sign(&self.high, &averages, HIGH, self.critical.is_reported() || self.exhausted.is_reported());
        let high = self.high.look(now, high);
        let high = high.map(|reported| match reported {
            DueReport::Lasts(lasting) => Finding::UtilizationHigh { lasting: lasting + HELD },
            DueReport::Ended(lasted) => Finding::UtilizationNormal { lasted },
        });
        let critical = critical.and_then(|reported| match reported {
            DueReport::Lasts(lasting) => Some(Finding::UtilizationCritical { lasting: lasting + HELD }),
            DueReport::Ended(_) => None,
        });
        let exhausted = exhausted.map(|reported| match reported {
            DueReport::Lasts(lasting) => Finding::Exhausted { lasting },
            DueReport::Ended(lasted) => Finding::ExhaustionEnded { lasted },
        });
        [high, critical, exhausted].into_iter().flatten().collect()
    }

    /// Adds a look and returns the averages. `None` in the first 10 s.
    fn average(&mut self, now: Instant, utilization: f64) -> Option<Averages> {
        let age = |then: Instant| now.saturating_duration_since(then);
        let begun = *self.begun.get_or_insert(now);
        while self.looks.len() >= LOOKS || self.looks.front().is_some_and(|(then, _)| age(*then) >= HELD) {
            self.looks.pop_front();
        }
        self.looks.push_back((now, utilization));
        let older = self.looks.partition_point(|(then, _)| age(*then) >= HELD / 2);
        let mean = |looks: &mut dyn Iterator<Item = &(Instant, f64)>| {
            let (sum, count) = looks.fold((0.0, 0.0), |(sum, count), (_, look)| (sum + look, count + 1.0));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        let all = mean(&mut self.looks.iter());
        let lower_half = f64::min(mean(&mut self.looks.range(..older)), mean(&mut self.looks.range(older..)));
        (age(begun) >= HELD).then_some(Averages { all, lower_half })
    }
}

fn sign(level: &Lasting, averages: &Option<Averages>, threshold: f64, is_spoken_for: bool) -> Sign {
    let Some(averages) = averages else { return Sign::No };
    let has_held = averages.all >= threshold && averages.lower_half >= threshold - SLACK;
    if averages.all < threshold - SLACK {
        Sign::No
    } else if !has_held || (is_spoken_for && level.is_reported()) {
        Sign::Near
    } else {
        Sign::Yes
    }
}

/// A caller may also wait while the pool makes or cleans up a connection, so waiting alone is only a near sign.
fn exhausted(reading: &Reading) -> Sign {
    match (reading.waiting > 0, reading.in_use >= reading.limit) {
        (false, _) => Sign::No,
        (true, false) => Sign::Near,
        (true, true) => Sign::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is found in a pool of 20 connections and after how many seconds. Each phase has the connections in
    /// use, the waiters, and its length in seconds.
    fn play(phases: &[(usize, usize, u64)]) -> Vec<(u64, &'static str)> {
        let begun = Instant::now();
        let (mut utilization, mut at, mut all) = (Utilization::new(), Duration::ZERO, Vec::new());
        for (in_use, waiting, seconds) in phases {
            for _ in 0..seconds * 4 {
                let reading = Reading { in_use: *in_use, limit: 20, waiting: *waiting, ..Reading::default() };
                for finding in utilization.tick(begun + at, &reading) {
                    all.push((at.as_secs(), name(&finding)));
                }
                at += Duration::from_millis(250);
            }
        }
        all
    }

    fn name(finding: &Finding) -> &'static str {
        match finding {
            Finding::UtilizationHigh { .. } => "high",
            Finding::UtilizationCritical { .. } => "critical",
            Finding::UtilizationNormal { .. } => "normal",
            Finding::Exhausted { .. } => "exhausted",
            Finding::ExhaustionEnded { .. } => "relieved",
            _ => "something else",
        }
    }

    #[test]
    fn a_threshold_is_reported_after_10_s_and_only_the_worse_one_is_repeated() {
        assert_eq!(play(&[(17, 0, 50)]), [(10, "high"), (40, "high")]);
        assert_eq!(play(&[(19, 0, 50)]), [(10, "high"), (10, "critical"), (40, "critical")]);
        assert_eq!(play(&[(15, 0, 100)]), []);
    }

    #[test]
    fn a_peak_of_a_few_seconds_is_not_reported() {
        assert_eq!(play(&[(10, 0, 20), (20, 0, 5), (10, 0, 20), (20, 0, 5), (10, 0, 20)]), []);
    }

    #[test]
    fn utilization_is_normal_again_only_well_below_the_threshold() {
        let reported = play(&[(17, 0, 30), (15, 0, 60), (12, 0, 30)]);
        assert_eq!(reported, [(10, "high"), (100, "normal")]);
    }

    #[test]
    fn a_full_pool_without_waiters_is_not_exhausted() {
        let reported = play(&[(20, 0, 30)]);
        assert!(reported.iter().all(|(_, name)| *name != "exhausted"), "{reported:?}");
        let reported = play(&[(10, 0, 5), (20, 3, 1), (20, 0, 1), (20, 3, 1)]);
        assert_eq!(reported, []);
        assert_eq!(play(&[(10, 0, 5), (20, 3, 3), (10, 0, 9)]), [(7, "exhausted"), (13, "relieved")]);
    }
}
