//! Is the pool nearly full, or exhausted?
//!
//! One look says little: a pool that is 70% busy on average is full now and then. So a threshold is crossed when the
//! average of the last 10 s is above it, and those of both halves of them at most a little below: what comes and goes
//! within a few seconds is not told, and a surge costs no further delay.
//!
//! Exhausted is another thing: all are in use *and* somebody waits, in each look for 2 s. A pool of one connection is
//! all in use whenever it works, and nothing is wrong with that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::finding::Finding;
use super::lasting::{Lasting, Sign, Told};
use super::reading::Reading;

const HIGH: f64 = 0.8;
const CRITICAL: f64 = 0.9;
/// So far below a threshold half of the time may be, and all of it has to be for an end.
const SLACK: f64 = 0.05;
/// The time that averages are of; and for so long a threshold is not crossed any more before that is told.
const HELD: Duration = Duration::from_secs(10);
/// As many looks within that time, at most.
const LOOKS: usize = 100;
/// All in use and somebody waiting for so long; and nobody any more.
const EXHAUSTED: Duration = Duration::from_secs(2);
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

/// Averages of the last 10 s, and of the halves of them.
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

    /// All are in use, and somebody has been waiting for some time.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.is_told()
    }

    pub(super) fn tick(&mut self, now: Instant, reading: &Reading) -> Vec<Finding> {
        let averages = self.average(now, reading.utilization());
        let exhausted = self.exhausted.look(now, exhausted(reading));
        // What is worse speaks for what is less bad, but for the first time.
        let critical = sign(&self.critical, &averages, CRITICAL, self.exhausted.is_told());
        let critical = self.critical.look(now, critical);
        let high = sign(&self.high, &averages, HIGH, self.critical.is_told() || self.exhausted.is_told());
        let high = self.high.look(now, high);
        let high = high.map(|told| match told {
            Told::Lasts(lasting) => Finding::UtilizationHigh { lasting: lasting + HELD },
            Told::Ended(lasted) => Finding::UtilizationNormal { lasted },
        });
        let critical = critical.and_then(|told| match told {
            Told::Lasts(lasting) => Some(Finding::UtilizationCritical { lasting: lasting + HELD }),
            Told::Ended(_) => None,
        });
        let exhausted = exhausted.map(|told| match told {
            Told::Lasts(lasting) => Finding::Exhausted { lasting },
            Told::Ended(lasted) => Finding::ExhaustionEnded { lasted },
        });
        [high, critical, exhausted].into_iter().flatten().collect()
    }

    /// `None` before there have been 10 s to look at.
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
    } else if !has_held || (is_spoken_for && level.is_told()) {
        Sign::Near
    } else {
        Sign::Yes
    }
}

/// Somebody may wait for another reason: a connection is made, or cleaned up.
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

    /// What is found in a pool of 20, and after how many seconds, if each of these (in use, waiting) holds for so many
    /// seconds.
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
    fn a_threshold_is_told_after_10_s_and_the_worse_one_speaks_for_both() {
        assert_eq!(play(&[(17, 0, 50)]), [(10, "high"), (40, "high")]);
        assert_eq!(play(&[(19, 0, 50)]), [(10, "high"), (10, "critical"), (40, "critical")]);
        assert_eq!(play(&[(15, 0, 100)]), []);
    }

    #[test]
    fn a_peak_of_a_few_seconds_is_not_told() {
        assert_eq!(play(&[(10, 0, 20), (20, 0, 5), (10, 0, 20), (20, 0, 5), (10, 0, 20)]), []);
    }

    #[test]
    fn it_is_normal_again_only_well_below() {
        let told = play(&[(17, 0, 30), (15, 0, 60), (12, 0, 30)]);
        assert_eq!(told, [(10, "high"), (100, "normal")]);
    }

    #[test]
    fn full_and_nobody_waiting_is_not_exhausted() {
        let told = play(&[(20, 0, 30)]);
        assert!(told.iter().all(|(_, name)| *name != "exhausted"), "{told:?}");
        let told = play(&[(10, 0, 5), (20, 3, 1), (20, 0, 1), (20, 3, 1)]);
        assert_eq!(told, []);
        assert_eq!(play(&[(10, 0, 5), (20, 3, 3), (10, 0, 9)]), [(7, "exhausted"), (13, "relieved")]);
    }
}
