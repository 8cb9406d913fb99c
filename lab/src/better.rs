//! Where another pool is better than failfast, so that the report says so first.

use crate::peers::Peer;
use crate::scene::{Played, Scene, Stat};
use crate::text::{percent, seconds};

/// A goodput is better by at least this much.
const SHARE: f64 = 0.01;
/// A time is better if it is at most this part of failfast's.
const PART: f64 = 0.8;

/// One figure in which another pool is better, in words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Better {
    pub(crate) scenario: &'static str,
    pub(crate) peer: Peer,
    pub(crate) figure: &'static str,
    pub(crate) theirs: String,
    pub(crate) ours: String,
}

/// The best other pool of each figure, where it is better. With several seeds, the ranges do not touch.
pub(crate) fn all(scenes: &[Scene]) -> Vec<Better> {
    scenes.iter().flat_map(of).collect()
}

fn of(scene: &Scene) -> Vec<Better> {
    let Some(ours) = scene.pool(Peer::Failfast) else { return Vec::new() };
    let others: Vec<_> = scene.pools.iter().filter(|played| played.peer != Peer::Failfast).collect();
    let mut found = Vec::new();
    let mut note = |figure, best: Option<(Peer, Stat)>, ours: Stat, text: fn(f64) -> String| {
        if let Some((peer, theirs)) = best {
            let (theirs, ours) = (theirs.show(text), ours.show(text));
            found.push(Better { scenario: scene.scenario.name, peer, figure, theirs, ours });
        }
    };
    if let Some(ours) = ours.goodput() {
        let better = |theirs: Stat| theirs.median >= ours.median + SHARE && theirs.least > ours.most;
        let best = pick(&others, Played::goodput, better, |one, two| one > two);
        note("goodput", best, ours, percent);
    }
    // A pool that serves few callers serves them fast: that is not better.
    let serves_as_many = |played: &Played| match (played.goodput(), ours.goodput()) {
        (Some(theirs), Some(ours)) => theirs.median >= ours.median - SHARE,
        _ => true,
    };
    let as_many: Vec<_> = others.iter().copied().filter(|played| serves_as_many(played)).collect();
    for (figure, value) in
        [("median answer", Played::answer as fn(&Played) -> Option<Stat>), ("99% of the answers", Played::slowest)]
    {
        if let Some(ours) = value(ours) {
            let best = pick(&as_many, value, |theirs| is_sooner(theirs, ours), |one, two| one < two);
            note(figure, best, ours, seconds);
        }
    }
    if scene.is_about_recovery() {
        if let Some(ours) = ours.recovered() {
            let best = pick(&others, Played::recovered, |theirs| is_sooner(theirs, ours), |one, two| one < two);
            note("served again after", best, ours, seconds);
        }
    }
    found
}

fn is_sooner(theirs: Stat, ours: Stat) -> bool {
    theirs.median <= PART * ours.median && theirs.most < ours.least
}

/// The best of the pools that are better.
fn pick(
    pools: &[&Played],
    value: impl Fn(&Played) -> Option<Stat>,
    is_better: impl Fn(Stat) -> bool,
    is_first: impl Fn(f64, f64) -> bool,
) -> Option<(Peer, Stat)> {
    let values = pools.iter().filter_map(|played| Some((played.peer, value(played)?)));
    let better = values.filter(|(_, stat)| is_better(*stat));
    better.reduce(|best, next| if is_first(next.1.median, best.1.median) { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::trace;
    use crate::peers::Answer;

    fn better(name: &str, ours: u64, theirs: u64) -> Vec<(&'static str, String, String)> {
        let ours = trace(name, |_| Some((ours, Answer::Served)));
        let mut other = trace(name, |_| Some((theirs, Answer::Served)));
        other.peer = Peer::Sqlx;
        let scene = Scene::of(&ours.scenario.clone(), vec![(7, vec![ours, other])]);
        let found = all(&[scene]).into_iter();
        found.map(|better| (better.figure, better.theirs, better.ours)).collect()
    }

    #[test]
    fn the_figures_are_named() {
        assert_eq!(better("slow-clients", 40, 40), []);
        assert_eq!(better("slow-clients", 40, 600), [], "the other one is worse");
        let found = better("slow-clients", 600, 40);
        assert_eq!(found[0], ("goodput", "100.0%".to_owned(), "0.0%".to_owned()));
        assert_eq!(found[1], ("median answer", "40ms".to_owned(), "600ms".to_owned()));
        assert_eq!(found.len(), 3);
        assert_eq!(better("outage", 400, 40)[2], ("served again after", "40ms".to_owned(), "400ms".to_owned()));
    }

    #[test]
    fn few_answers_are_not_better_because_they_are_fast() {
        let ours = trace("slow-clients", |_| Some((400, Answer::Served)));
        let mut other = trace("slow-clients", |due| (due % 100 == 0).then_some((40, Answer::Served)));
        other.peer = Peer::Bb8;
        let scene = Scene::of(&ours.scenario.clone(), vec![(7, vec![ours, other])]);
        assert_eq!(all(&[scene]), []);
    }

    #[test]
    fn ranges_that_touch_are_no_difference() {
        let at = |peer, took| {
            let mut trace = trace("slow-clients", |_| Some((took, Answer::Served)));
            trace.peer = peer;
            trace
        };
        let scenario = at(Peer::Failfast, 0).scenario;
        let seeds = |ours: [u64; 3]| {
            let seeds = ours.map(|ours| (ours, vec![at(Peer::Failfast, ours), at(Peer::Deadpool, 100)]));
            all(&[Scene::of(&scenario, seeds.into())]).len()
        };
        assert_eq!(seeds([200, 210, 300]), 2);
        assert_eq!(seeds([90, 210, 300]), 0);
    }
}
