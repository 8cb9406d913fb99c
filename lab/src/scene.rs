//! A scenario as it was played: for each pool the figures of all seeds, and the curves of the first one.

use std::time::Duration;

use crate::checks::{self, Check};
use crate::figures::Figures;
use crate::peers::Peer;
use crate::play::Trace;
use crate::scenarios::Scenario;
use crate::series::{Bin, bins};

/// How many points a curve has.
pub(crate) const POINTS: usize = 60;

/// If callers are sent later than this, the machine is too busy.
const LAG: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) scenario: Scenario,
    pub(crate) seeds: Vec<u64>,
    pub(crate) pools: Vec<Played>,
    /// Of each seed.
    pub(crate) checks: Vec<Check>,
}

/// One pool in a scenario.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) peer: Peer,
    /// Of each seed.
    pub(crate) figures: Vec<Figures>,
    /// Of the first seed.
    pub(crate) curve: Vec<Bin>,
    /// When the incident began and ended with the first seed.
    pub(crate) struck: Duration,
    pub(crate) back: Duration,
}

/// The median of several seeds, and their range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stat {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Stat {
    /// `None` if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        // Of an even number, the lower one of the two in the middle.
        Some(Self { median: values[(values.len() - 1) / 2], least, most })
    }

    /// With `text` for each of its numbers: the median, and the range if it has one.
    pub(crate) fn show(self, text: impl Fn(f64) -> String) -> String {
        match self.range(&text) {
            None => text(self.median),
            Some(range) => format!("{} ({range})", text(self.median)),
        }
    }

    /// The range, unless all values are the same text.
    pub(crate) fn range(self, text: impl Fn(f64) -> String) -> Option<String> {
        let (least, most) = (text(self.least), text(self.most));
        (least != most).then(|| format!("{least} to {most}"))
    }
}

impl Scene {
    /// Of the traces of each seed. Every seed has the same pools.
    pub(crate) fn of(scenario: &Scenario, seeds: Vec<(u64, Vec<Trace>)>) -> Self {
        let mut scene = Self { scenario: scenario.clone(), seeds: Vec::new(), pools: Vec::new(), checks: Vec::new() };
        for (seed, traces) in seeds {
            scene.add(seed, &traces);
        }
        scene
    }

    /// Adds the traces of one more seed.
    pub(crate) fn add(&mut self, seed: u64, traces: &[Trace]) {
        let figures: Vec<_> = traces.iter().map(Figures::of).collect();
        self.checks.extend(checks::of(&self.scenario, &figures.iter().collect::<Vec<_>>()));
        self.seeds.push(seed);
        for (trace, figures) in traces.iter().zip(figures) {
            match self.pools.iter_mut().find(|played| played.peer == trace.peer) {
                Some(played) => played.figures.push(figures),
                None => self.pools.push(Played {
                    peer: trace.peer,
                    figures: vec![figures],
                    curve: bins(trace, POINTS),
                    struck: trace.struck,
                    back: trace.back,
                }),
            }
        }
    }

    pub(crate) fn pool(&self, peer: Peer) -> Option<&Played> {
        self.pools.iter().find(|played| played.peer == peer)
    }

    /// Whether nobody could be served during the incident, so that only the recovery counts.
    pub(crate) fn is_about_recovery(&self) -> bool {
        self.scenario.fault.is_outage() || self.pools.iter().all(|played| played.goodput().is_none())
    }

    /// How many checks failed, and how many there are.
    pub(crate) fn short_checks(&self) -> (usize, usize) {
        (self.checks.iter().filter(|check| check.is_short()).count(), self.checks.len())
    }

    /// Whether the machine was too busy: then the figures say little.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.lag() > LAG
    }

    /// The longest delay with which a caller was sent.
    pub(crate) fn lag(&self) -> Duration {
        let all = self.pools.iter().flat_map(|played| &played.figures);
        all.map(|figures| figures.lag).max().unwrap_or_default()
    }
}

impl Played {
    /// A figure of all seeds. Seeds without a value do not count.
    pub(crate) fn stat(&self, value: impl Fn(&Figures) -> Option<f64>) -> Option<Stat> {
        Stat::of(self.figures.iter().filter_map(value))
    }

    pub(crate) fn goodput(&self) -> Option<Stat> {
        self.stat(|figures| figures.goodput)
    }

    /// The median answer, in seconds.
    pub(crate) fn answer(&self) -> Option<Stat> {
        self.stat(|figures| figures.served_in.map(|spread| spread.p50.as_secs_f64()))
    }

    /// What 99% of the answers do not exceed, in seconds.
    pub(crate) fn slowest(&self) -> Option<Stat> {
        self.stat(|figures| figures.served_in.map(|spread| spread.p99.as_secs_f64()))
    }

    /// The median refusal or error, in seconds.
    pub(crate) fn refusal(&self) -> Option<Stat> {
        self.stat(|figures| figures.refused_in.map(|spread| spread.p50.as_secs_f64()))
    }

    /// When the pool served again, in seconds. Infinite if it did not while it was watched. `None` if the incident
    /// ended too late to watch it.
    pub(crate) fn recovered(&self) -> Option<Stat> {
        self.stat(|figures| {
            let is_watched = !figures.watched.is_zero();
            is_watched.then(|| figures.recovered.map_or(f64::INFINITY, |after| after.as_secs_f64()))
        })
    }

    /// For how long a recovery was awaited.
    pub(crate) fn watched(&self) -> Duration {
        self.figures.iter().map(|figures| figures.watched).min().unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figures::tests::trace;
    use crate::peers::Answer;

    /// A scene with failfast, which serves at once, and deadpool, which answers so late.
    pub(crate) fn scene(name: &str, late: u64) -> Scene {
        let ours = trace(name, |_| Some((40, Answer::Served)));
        let mut other = trace(name, |_| Some((late, Answer::Served)));
        other.peer = Peer::Deadpool;
        Scene::of(&ours.scenario.clone(), vec![(7, vec![ours, other])])
    }

    #[test]
    fn a_median_is_one_of_its_values() {
        let stat = |values: &[f64]| Stat::of(values.iter().copied()).map(|stat| (stat.median, stat.least, stat.most));
        assert_eq!(stat(&[]), None);
        assert_eq!(stat(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(stat(&[3.0, 1.0, 2.0, 9.0, 4.0]), Some((3.0, 1.0, 9.0)));
        assert_eq!(stat(&[2.0, 1.0]), Some((1.0, 1.0, 2.0)));
        assert_eq!(stat(&[1.0, f64::INFINITY, 2.0]), Some((2.0, 1.0, f64::INFINITY)));
    }

    #[test]
    fn a_range_is_shown_if_there_is_one() {
        let stat = |values: [f64; 3]| Stat::of(values).unwrap().show(|value| format!("{value:.0}"));
        assert_eq!(stat([2.0, 1.0, 3.0]), "2 (1 to 3)");
        assert_eq!(stat([2.0, 2.1, 1.9]), "2");
    }

    #[test]
    fn seeds_are_gathered_by_pool() {
        let mut scene = scene("surge-3x", 600);
        let mut again = trace("surge-3x", |_| Some((80, Answer::Served)));
        scene.add(8, &[trace("surge-3x", |_| Some((60, Answer::Served)))]);
        again.peer = Peer::Deadpool;
        scene.add(9, &[again]);
        assert_eq!(scene.seeds, [7, 8, 9]);
        let answer = |peer| scene.pool(peer).unwrap().answer().unwrap();
        assert_eq!(answer(Peer::Failfast), Stat { median: 0.04, least: 0.04, most: 0.06 });
        assert_eq!(answer(Peer::Deadpool), Stat { median: 0.08, least: 0.08, most: 0.6 });
        assert_eq!(scene.pool(Peer::Failfast).unwrap().curve.len(), POINTS);
        assert!(scene.short_checks().1 > 0);
    }
}
