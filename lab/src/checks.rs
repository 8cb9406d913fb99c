//! Compares the figures of failfast with their limits.

use std::fmt;

use crate::figures::Figures;
use crate::peers::Peer;
use crate::scenarios::{Pattern, Scenario};
use crate::terms::HOLD;

/// The limit of new connections per second while every query times out: the default of `max_connecting`.
const MADE_PER_SECOND: f64 = 4.0;

/// One figure with a limit.
#[derive(Debug)]
pub(crate) struct Check {
    name: String,
    /// `None`: there was nothing to measure, which fails every limit.
    value: Option<f64>,
    limit: f64,
    is_ok: bool,
}

impl Check {
    fn at_least(name: &str, value: Option<f64>, limit: f64) -> Self {
        Self { name: format!("{name}, at least"), value, limit, is_ok: value.is_some_and(|value| value >= limit) }
    }

    fn at_most(name: &str, value: Option<f64>, limit: f64) -> Self {
        Self { name: format!("{name}, at most"), value, limit, is_ok: value.is_some_and(|value| value <= limit) }
    }

    pub(crate) fn is_short(&self) -> bool {
        !self.is_ok
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let verdict = if self.is_ok { "ok" } else { "SHORT" };
        write!(f, "{verdict:<5} {} {}: {value}", self.name, self.limit)
    }
}

/// The checks of a scenario; none if failfast did not take part.
pub(crate) fn of(scenario: &Scenario, all: &[&Figures]) -> Vec<Check> {
    let Some(figures) = all.iter().find(|figures| figures.peer == Peer::Failfast) else { return Vec::new() };
    let goodput = |limit| Check::at_least("goodput", figures.goodput, limit);
    let mut checks = match scenario.name {
        "surge-3x" | "surge-10x" => vec![
            goodput(0.98),
            Check::at_most(
                "median answer in holds",
                figures.served_in.map(|served| served.p50.as_secs_f64() / HOLD.as_secs_f64()),
                2.0,
            ),
            refusals_at_entry(figures),
        ],
        "bursty-20ms" | "bursty-50ms" | "bursty-100ms" => vec![
            refusals_at_entry(figures),
            Check::at_most("not served long after it", Some(figures.unserved_after as f64), 0.0),
        ],
        "slow-query" => vec![goodput(0.95)],
        "lock" | "flood" | "slow-clients" => vec![goodput(0.98)],
        "outage" | "freeze" | "stale" | "failover" => vec![
            Check::at_most("recovered after seconds", figures.recovered.map(|after| after.as_secs_f64()), 1.5),
            Check::at_most("errors of callers who came after it", Some(figures.failed_after as f64), 0.0),
        ],
        "storm" => vec![Check::at_most("connections made per second", figures.made_per_second, MADE_PER_SECOND)],
        _ => Vec::new(),
    };
    if let Some(tuned) = all.iter().find(|figures| figures.peer == Peer::DeadpoolTuned) {
        if scenario.is_overload() {
            checks.extend(beside_a_plain_queue(scenario, figures, tuned));
        }
    }
    checks
}

fn refusals_at_entry(figures: &Figures) -> Check {
    let p99 = figures.refused_at_entry_in.map(|refused| refused.p99.as_secs_f64() * 1e3);
    Check::at_most("p99 of refusals at entry in ms", p99, 1.0)
}

/// How deep a queue must be depends on the callers. So the reference is a plain queue: that of tuned deadpool.
fn beside_a_plain_queue(scenario: &Scenario, figures: &Figures, tuned: &Figures) -> Vec<Check> {
    let Some((ours, theirs)) = figures.goodput.zip(tuned.goodput) else { return Vec::new() };
    let median = |figures: &Figures| figures.served_in.map(|served| served.p50.as_secs_f64());
    let answer = median(figures).zip(median(tuned)).map(|(ours, tuned)| ours / tuned);
    let limit = if scenario.pattern == Pattern::AtRandom { 1.0 } else { 0.5 };
    vec![
        Check::at_least("goodput as a share of tuned deadpool's", Some(ours / theirs), 0.98),
        Check::at_most("median answer as a share of tuned deadpool's", answer, limit),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::trace;
    use crate::peers::Answer;

    fn short(name: &str, answer: impl Fn(u64) -> Option<(u64, Answer)>) -> Vec<bool> {
        let trace = trace(name, answer);
        of(&trace.scenario, &[&Figures::of(&trace)]).iter().map(Check::is_short).collect()
    }

    #[test]
    fn what_is_promised_is_enough() {
        assert_eq!(short("surge-3x", |_| Some((40, Answer::Served))), [false, false, true], "nobody was refused");
        assert_eq!(short("surge-5x", |_| None), [false; 0], "nothing is promised");
        assert_eq!(short("slow-query", |due| (due % 100 > 0).then_some((40, Answer::Served))), [true]);
        assert_eq!(short("outage", |_| Some((40, Answer::Served))), [false, false]);
        assert_eq!(short("stale", |due| (due != 2_000).then_some((40, Answer::Served))), [false, false]);
        assert_eq!(
            short("freeze", |due| Some((1, if due < 5_500 { Answer::Failed } else { Answer::Served }))),
            [true, true]
        );
    }

    #[test]
    fn bursts_are_judged_beside_tuned_deadpool() {
        let ours = |due: u64, refused: Answer| if due % 30 == 0 { (40, Answer::Served) } else { (0, refused) };
        let judged = |answer: &dyn Fn(u64) -> Option<(u64, Answer)>| {
            let trace = trace("bursty-100ms", answer);
            let mut tuned = crate::figures::tests::trace("bursty-100ms", |due| {
                Some(if due % 30 == 0 { (90, Answer::Served) } else { (400, Answer::Refused) })
            });
            tuned.peer = Peer::DeadpoolTuned;
            let checks = of(&trace.scenario, &[&Figures::of(&trace), &Figures::of(&tuned)]);
            checks.iter().map(Check::is_short).collect::<Vec<_>>()
        };
        let calm = |due: u64| !(1_000..4_500).contains(&due);
        let right = |due| Some(if calm(due) { (40, Answer::Served) } else { ours(due, Answer::RefusedAtEntry) });
        assert_eq!(judged(&right), [false; 4]);
        assert_eq!(judged(&|due| Some(ours(due, Answer::RefusedAtEntry))), [false, true, false, false], "no end");
        let few = |due| if due % 60 == 0 { right(due) } else { right(due).map(|_| (0, Answer::RefusedAtEntry)) };
        assert!(judged(&few)[2], "half as many");
        let slow = |due| right(due).map(|(took, answer)| (if took > 0 { 46 } else { took }, answer));
        assert_eq!(judged(&slow), [false, false, false, true], "more than half of 90");
        assert!(judged(&|due| right(due).map(|(took, answer)| (took + 2, answer)))[0], "refusals of 2 ms");
        assert_eq!(short("bursty-20ms", |_| Some((40, Answer::Served))), [true, false], "alone, nobody was refused");
    }

    #[test]
    fn only_failfast_is_checked() {
        let mut trace = trace("slow-query", |_| None);
        trace.peer = Peer::Bb8;
        assert!(of(&trace.scenario, &[&Figures::of(&trace)]).is_empty());
    }
}
