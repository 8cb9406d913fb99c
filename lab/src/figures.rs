//! The figures of one pool in one scenario.

use std::collections::HashMap;
use std::time::Duration;

use crate::callers::Caller;
use crate::peers::{Answer, Peer};
use crate::play::{Sample, Trace};
use crate::terms::DEADLINE;

/// A pool has recovered when it serves this share of a second's callers in time, and goes on doing so.
const GOES_ON: f64 = 0.95;
const FOR: Duration = Duration::from_secs(1);

/// The figures count the usual callers that came during the incident, and after it if it was a fault of the server.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) scenario: &'static str,
    pub(crate) peer: Peer,
    pub(crate) offered: usize,
    /// Served in time, as a share of what is possible: of all callers, or of what the connections can do if more was
    /// asked. After a fault: of those who came when the server accepted again. `None` if nothing is possible.
    pub(crate) goodput: Option<f64>,
    /// Served after the deadline.
    pub(crate) late: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// Callers without an answer at the end of the scenario.
    pub(crate) unanswered: usize,
    /// The time until an answer, in time or late, and until a refusal or an error.
    pub(crate) served_in: Option<Spread>,
    pub(crate) refused_in: Option<Spread>,
    /// Only refusals without a wait.
    pub(crate) refused_at_entry_in: Option<Spread>,
    /// From the end of the incident to the first lasting success. `None`: there was none within `watched`.
    pub(crate) recovered: Option<Duration>,
    pub(crate) watched: Duration,
    /// Errors, without refusals, of callers that came when the server accepted connections again.
    pub(crate) failed_after: usize,
    /// Callers without an answer in time, of those that came later than a deadline after the incident.
    pub(crate) unserved_after: usize,
    /// Connections that the pool made, without the first ones; and how many per second during the incident.
    pub(crate) made: Option<i64>,
    pub(crate) made_per_second: Option<f64>,
    /// From the beginning of the incident.
    pub(crate) warned: Option<Duration>,
    pub(crate) warning: Option<String>,
    pub(crate) first_error: Option<Duration>,
    /// Of the callers with other work: how many came, and how many were served, in time or late.
    pub(crate) others: Option<(usize, usize)>,
    /// The longest delay with which a caller was sent.
    pub(crate) lag: Duration,
}

/// The median and the 99th percentile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Spread {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Self> {
        let mut times: Vec<_> = samples.map(|sample| sample.took).collect();
        times.sort();
        Some(Self { p50: percentile(&times, 50)?, p99: percentile(&times, 99)? })
    }
}

/// The nearest rank: the smallest of these sorted times that so many percent do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

impl Figures {
    pub(crate) fn of(trace: &Trace) -> Self {
        let end = trace.scenario.length();
        let judged = trace.struck..if trace.scenario.fault.is_outage() { end } else { trace.back };
        let offered = trace.usual_callers().filter(|caller| judged.contains(&caller.due)).count();
        let samples: Vec<&Sample> = trace.usual().filter(|sample| judged.contains(&sample.caller.due)).collect();
        let spread = |wanted: fn(&Sample) -> bool| Spread::of(samples.iter().copied().filter(|sample| wanted(sample)));
        let count = |wanted: fn(&Sample) -> bool| samples.iter().filter(|sample| wanted(sample)).count();
        let is_refused = |sample: &Sample| matches!(sample.answer, Answer::Refused | Answer::RefusedAtEntry);
        let hurt = trace.usual().filter(|sample| !sample.is_served() && sample.answered >= trace.struck);
        Self {
            scenario: trace.scenario.name,
            peer: trace.peer,
            offered,
            goodput: goodput(trace),
            late: count(|sample| sample.is_served() && !sample.is_in_time()),
            refused: count(is_refused),
            failed: count(|sample| sample.answer == Answer::Failed),
            unanswered: offered - samples.len(),
            served_in: spread(Sample::is_served),
            refused_in: spread(|sample| !sample.is_served()),
            refused_at_entry_in: spread(|sample| sample.answer == Answer::RefusedAtEntry),
            recovered: recovered(trace),
            watched: end.saturating_sub(trace.back + FOR),
            failed_after: trace
                .usual()
                .filter(|sample| sample.caller.due >= trace.back && sample.answer == Answer::Failed)
                .count(),
            unserved_after: unserved_after(trace),
            made: trace.made,
            made_per_second: trace.made.map(|made| made as f64 / trace.scenario.lasts[1].as_secs_f64()),
            warned: trace.warning.as_ref().map(|(at, _)| at.saturating_sub(trace.struck)),
            warning: trace.warning.as_ref().map(|(_, line)| line.clone()),
            first_error: hurt.map(|sample| sample.answered - trace.struck).min(),
            others: others(trace),
            lag: trace.lag,
        }
    }
}

impl Trace {
    /// The callers whose work the figures are about.
    pub(crate) fn usual_callers(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter().filter(|caller| caller.work.is_usual())
    }

    /// The answers that these callers got.
    pub(crate) fn usual(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.caller.work.is_usual())
    }
}

fn goodput(trace: &Trace) -> Option<f64> {
    if trace.scenario.hold > DEADLINE {
        return None;
    }
    let is_fault = trace.scenario.fault.is_outage();
    let up = if is_fault { trace.back..trace.scenario.length() } else { trace.struck..trace.back };
    let offered = trace.usual_callers().filter(|caller| up.contains(&caller.due)).count() as f64;
    let possible = trace.capacity_during * (up.end.saturating_sub(up.start)).as_secs_f64();
    let in_time = || trace.usual().filter(|sample| sample.is_in_time());
    if offered <= possible {
        return Some(in_time().filter(|sample| up.contains(&sample.caller.due)).count() as f64 / offered.max(1.0));
    }
    // Of each call's work, what was done in this time, in calls of this time. Where calls are long, a whole one more or
    // less at the edges is several percent.
    let work = |sample: &Sample| {
        let longer = trace.scenario.hold_at(sample.caller.due).as_secs_f64() / trace.scenario.hold.as_secs_f64();
        let service = trace.service_during.mul_f64(longer);
        let begun = sample.answered.saturating_sub(service);
        let within = sample.answered.min(up.end).saturating_sub(begun.max(up.start));
        within.as_secs_f64() / trace.service_during.as_secs_f64()
    };
    let good: f64 = in_time().filter(|sample| sample.caller.due < up.end).map(work).sum();
    Some(good / possible)
}

fn unserved_after(trace: &Trace) -> usize {
    let longest = trace.scenario.longest_deadline();
    let came = |due: Duration| due >= trace.back + longest;
    let all = trace.usual_callers().filter(|caller| came(caller.due)).count();
    all - trace.usual().filter(|sample| came(sample.caller.due) && sample.is_in_time()).count()
}

fn others(trace: &Trace) -> Option<(usize, usize)> {
    trace.scenario.others?;
    let came = trace.callers.iter().filter(|caller| !caller.work.is_usual()).count();
    let served = trace.samples.iter().filter(|sample| !sample.caller.work.is_usual() && sample.is_served()).count();
    Some((came, served))
}

/// Finds the first caller after the incident that was served in time, and after which nearly all were.
fn recovered(trace: &Trace) -> Option<Duration> {
    let answers: HashMap<usize, &Sample> = trace.usual().map(|sample| (sample.number, sample)).collect();
    let usual = trace.callers.iter().enumerate().filter(|(_, caller)| caller.work.is_usual());
    let callers: Vec<(usize, Duration)> =
        usual.map(|(number, caller)| (number, caller.due)).filter(|(_, due)| *due >= trace.back).collect();
    let is_good = |caller: usize| answers.get(&caller).is_some_and(|sample| sample.is_in_time());
    let last = trace.scenario.length().checked_sub(FOR)?;
    let until_last = callers.iter().enumerate().take_while(|(_, (_, due))| *due <= last);
    let first = until_last.map(|(index, (caller, due))| (index, *caller, *due)).find(|(index, caller, due)| {
        let next = callers[*index..].iter().take_while(|(_, other)| *other < *due + FOR);
        let (good, all) =
            next.fold((0.0, 0.0), |(good, all), (caller, _)| (good + f64::from(is_good(*caller)), all + 1.0));
        is_good(*caller) && good >= GOES_ON * all
    });
    first.and_then(|(_, caller, _)| answers.get(&caller)).map(|sample| sample.answered - trace.back)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::scenarios::tests::named;
    use crate::work::Work;

    const CAPACITY: f64 = 100.0;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A trace with a caller every 10 ms, whose result `answer` returns.
    pub(crate) fn trace(name: &str, answer: impl Fn(u64) -> Option<(u64, Answer)>) -> Trace {
        let scenario = named(name);
        let dues = (0..scenario.length().as_millis() as u64).step_by(10);
        let work = Work::Query(scenario.hold);
        let callers: Vec<_> = dues.map(|due| Caller { due: ms(due), work, deadline: DEADLINE }).collect();
        let sample = |(number, caller): (usize, &Caller)| {
            let (took, answer) = answer(caller.due.as_millis() as u64)?;
            Some(Sample { number, caller: *caller, answered: caller.due + ms(took), took: ms(took), answer })
        };
        Trace {
            peer: Peer::Failfast,
            samples: callers.iter().enumerate().filter_map(sample).collect(),
            callers: callers.into(),
            struck: scenario.begins(),
            back: scenario.ends(),
            capacity_during: CAPACITY,
            service_during: ms(40),
            connections: Vec::new(),
            made: Some(0),
            warning: None,
            lag: Duration::ZERO,
            scenario,
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<_> = (1..=10).map(ms).collect();
        assert_eq!([0, 1, 50, 51, 99, 100].map(|p| percentile(&times, p).unwrap()), [1, 1, 5, 6, 10, 10].map(ms));
        assert_eq!(percentile(&[ms(7)], 50), Some(ms(7)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn callers_of_the_incident_are_told_apart() {
        let figures = Figures::of(&trace("surge-3x", |due| match due {
            ..1_000 | 5_000.. => Some((40, Answer::Served)),
            1_000..2_000 => Some((500, Answer::Served)),
            2_000..3_000 => Some((501, Answer::Served)),
            3_000..3_500 => Some((1, Answer::RefusedAtEntry)),
            3_500..4_000 => Some((300, Answer::Refused)),
            4_000..4_500 => Some((200, Answer::Failed)),
            _ => None,
        }));
        assert_eq!((figures.offered, figures.late, figures.refused, figures.failed), (400, 100, 100, 50));
        assert_eq!((figures.unanswered, figures.goodput), (50, Some(0.25)));
        assert_eq!(figures.served_in, Some(Spread { p50: ms(500), p99: ms(501) }));
        assert_eq!(figures.refused_in, Some(Spread { p50: ms(200), p99: ms(300) }));
        assert_eq!(figures.refused_at_entry_in, Some(Spread { p50: ms(1), p99: ms(1) }));
        assert_eq!(figures.first_error, Some(ms(2_001)));
    }

    #[test]
    fn more_than_is_possible_is_not_asked_of_a_pool() {
        let mut overloaded = trace("surge-3x", |due| Some((if due < 4_800 { 40 } else { 300 }, Answer::Served)));
        overloaded.capacity_during = 50.0;
        // 200 are possible. The last 20 had no connection before the end; of the work of the three before the first,
        // 10, 20 and 30 of 40 ms remained.
        let goodput = Figures::of(&overloaded).goodput.unwrap();
        assert!((goodput - 381.5 / 200.0).abs() < 1e-9, "{goodput}");
        assert_eq!(Figures::of(&trace("storm", |_| None)).goodput, None);
    }

    #[test]
    fn recovered_is_who_goes_on_succeeding() {
        let recovered = |answer: fn(u64) -> Option<(u64, Answer)>| Figures::of(&trace("surge-3x", answer)).recovered;
        assert_eq!(recovered(|_| Some((40, Answer::Served))), Some(ms(40)));
        let five_fail = |due| (!(5_300..5_350).contains(&due)).then_some((40, Answer::Served));
        assert_eq!(recovered(five_fail), Some(ms(40)), "of a hundred");
        let six_fail = |due| (!(5_300..5_360).contains(&due)).then_some((40, Answer::Served));
        assert_eq!(recovered(six_fail), Some(ms(360 + 40)), "are too many");
        assert_eq!(recovered(|due| Some((if due < 5_600 { 501 } else { 40 }, Answer::Served))), Some(ms(600 + 40)));
        assert_eq!(
            recovered(|due| Some((if due < 6_500 { 501 } else { 40 }, Answer::Served))),
            None,
            "too late to be sure"
        );
    }

    #[test]
    fn callers_who_arrive_together_are_told_apart() {
        let mut trace =
            trace("surge-3x", |due| Some((40, if due % 100 > 0 { Answer::Served } else { Answer::Refused })));
        let together = |caller: &Caller| Caller { due: ms(caller.due.as_millis() as u64 / 100 * 100), ..*caller };
        trace.callers = trace.callers.iter().map(together).collect();
        for sample in &mut trace.samples {
            sample.caller = together(&sample.caller);
        }
        assert_eq!(Figures::of(&trace).recovered, None, "one of each ten is refused");
    }

    #[test]
    fn who_is_refused_long_after_the_end_is_counted() {
        let unserved =
            |answer: fn(u64) -> Option<(u64, Answer)>| Figures::of(&trace("surge-3x", answer)).unserved_after;
        assert_eq!(unserved(|due| (due < 5_500).then_some((1, Answer::Refused)).or(Some((40, Answer::Served)))), 0);
        assert_eq!(unserved(|due| Some((1, if due == 6_000 { Answer::RefusedAtEntry } else { Answer::Served }))), 1);
        assert_eq!(unserved(|due| (due != 6_000).then_some((40, Answer::Served))), 1, "no answer at all");
        assert_eq!(unserved(|due| Some((if due == 6_000 { 501 } else { 40 }, Answer::Served))), 1, "too late");
    }

    #[test]
    fn after_a_fault_those_count_who_came_when_it_was_over() {
        let figures = Figures::of(&trace("outage", |due| match due {
            1_000..3_000 => Some((1, Answer::Refused)),
            3_000..3_020 => Some((1, Answer::Failed)),
            _ => Some((40, Answer::Served)),
        }));
        assert_eq!((figures.offered, figures.refused, figures.failed, figures.failed_after), (700, 200, 2, 2));
        assert_eq!(figures.goodput, Some(498.0 / 500.0));
        assert_eq!(figures.recovered, Some(ms(20 + 40)));
    }

    #[test]
    fn each_caller_is_in_time_by_its_own_deadline() {
        let mut trace = trace("mixed", |_| Some((400, Answer::Served)));
        trace.capacity_during = 1_000.0;
        for (number, sample) in trace.samples.iter_mut().enumerate() {
            sample.caller.deadline = ms(if number % 2 == 0 { 399 } else { 400 });
        }
        let figures = Figures::of(&trace);
        assert_eq!((figures.goodput, figures.late), (Some(0.5), 200));
    }

    #[test]
    fn other_work_has_its_own_figure() {
        let mut trace = trace("flood", |due| (due != 2_000).then_some((40, Answer::Served)));
        let other = |number: usize, caller: &Caller| match number % 4 {
            0 => Caller { work: Work::Report, ..*caller },
            _ => *caller,
        };
        trace.callers = trace.callers.iter().enumerate().map(|(number, caller)| other(number, caller)).collect();
        for sample in &mut trace.samples {
            sample.caller = trace.callers[sample.number];
        }
        let figures = Figures::of(&trace);
        assert_eq!((figures.offered, figures.goodput, figures.unanswered), (300, Some(1.0), 0));
        assert_eq!(figures.others, Some((175, 174)));
        assert_eq!(Figures::of(&tests::trace("slow-query", |_| None)).others, None);
    }
}
