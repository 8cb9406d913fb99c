//! What came of it: the figures of one pool in one scenario.

use std::collections::HashMap;
use std::time::Duration;

use super::DEADLINE;
use super::load::Sample;
use super::peers::{Answer, Peer};
use super::play::Trace;
use super::scenarios::Fault;

/// Recovered is who serves this share of a second's callers in time, from then on.
const GOES_ON: f64 = 0.95;
const FOR: Duration = Duration::from_secs(1);

/// Counted are the callers who came during the incident; if it was a fault of the server, those who came after it too.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) scenario: &'static str,
    pub(crate) peer: Peer,
    pub(crate) offered: usize,
    /// Served in time, as a share of what is possible: of all callers, or of what the connections can do if more was asked. After a fault: of those who came when the
    /// server accepted again. `None` if nothing is possible.
    pub(crate) goodput: Option<f64>,
    /// Served after the deadline.
    pub(crate) late: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// Without an answer when the scenario was over.
    pub(crate) unanswered: usize,
    /// How long it took until answers, in time or late, and until refusals and errors.
    pub(crate) served_in: Option<Spread>,
    pub(crate) refused_in: Option<Spread>,
    /// Only of refusals before any wait.
    pub(crate) refused_at_entry_in: Option<Spread>,
    /// From the end of the incident to the first success after which successes go on. `None`: not within `watched`.
    pub(crate) recovered: Option<Duration>,
    pub(crate) watched: Duration,
    /// Errors, not refusals, of callers who came when the server accepted again.
    pub(crate) failed_after: usize,
    /// Connections made from the beginning on, but for the first ones; and how many that were in each second of the incident.
    pub(crate) made: i64,
    pub(crate) made_per_second: f64,
    /// From the beginning of the incident.
    pub(crate) warned: Option<Duration>,
    pub(crate) warning: Option<String>,
    pub(crate) first_error: Option<Duration>,
    /// How late the latest caller was sent.
    pub(crate) lag: Duration,
}

/// The median, and what 99 of 100 do not exceed.
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

impl Sample {
    pub(crate) fn is_served(&self) -> bool {
        self.answer == Answer::Served
    }

    pub(crate) fn is_in_time(&self) -> bool {
        self.is_served() && self.took <= DEADLINE
    }
}

impl Figures {
    pub(crate) fn of(trace: &Trace) -> Self {
        let end = trace.scenario.length();
        let judged = trace.struck..if trace.scenario.fault == Fault::None { trace.back } else { end };
        let offered = trace.arrivals.iter().filter(|due| judged.contains(due)).count();
        let samples: Vec<&Sample> = trace.samples.iter().filter(|sample| judged.contains(&sample.due)).collect();
        let spread = |wanted: fn(&Sample) -> bool| Spread::of(samples.iter().copied().filter(|sample| wanted(sample)));
        let count = |wanted: fn(&Sample) -> bool| samples.iter().filter(|sample| wanted(sample)).count();
        let is_refused = |sample: &Sample| matches!(sample.answer, Answer::Refused | Answer::RefusedAtEntry);
        let hurt = trace.samples.iter().filter(|sample| !sample.is_served() && sample.answered >= trace.struck);
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
            failed_after: trace.samples.iter().filter(|s| s.due >= trace.back && s.answer == Answer::Failed).count(),
            made: trace.made,
            made_per_second: trace.made as f64 / trace.scenario.lasts[1].as_secs_f64(),
            warned: trace.warning.as_ref().map(|(at, _)| at.saturating_sub(trace.struck)),
            warning: trace.warning.as_ref().map(|(_, line)| line.clone()),
            first_error: hurt.map(|sample| sample.answered - trace.struck).min(),
            lag: trace.lag,
        }
    }
}

fn goodput(trace: &Trace) -> Option<f64> {
    if trace.scenario.hold > DEADLINE {
        return None;
    }
    let is_fault = trace.scenario.fault != Fault::None;
    let up = if is_fault { trace.back..trace.scenario.length() } else { trace.struck..trace.back };
    let offered = trace.arrivals.iter().filter(|due| up.contains(due)).count() as f64;
    let possible = trace.capacity_during * (up.end.saturating_sub(up.start)).as_secs_f64();
    let good = trace.samples.iter().filter(|sample| sample.is_in_time() && up.contains(&sample.due));
    if offered <= possible {
        return Some(good.count() as f64 / offered.max(1.0));
    }
    // What is begun before the incident is over may end one service time later; what waited any longer does not count.
    let answered = up.start..up.end + trace.service_during;
    Some(good.filter(|sample| answered.contains(&sample.answered)).count() as f64 / possible)
}

/// By those who came when the incident was over: the first who was served in time, and after whom nearly all were.
fn recovered(trace: &Trace) -> Option<Duration> {
    let answers: HashMap<Duration, &Sample> = trace.samples.iter().map(|sample| (sample.due, sample)).collect();
    let callers: Vec<_> = trace.arrivals.iter().filter(|due| **due >= trace.back).collect();
    let is_good = |due: &Duration| answers.get(due).is_some_and(|sample| sample.is_in_time());
    let last = trace.scenario.length().checked_sub(FOR)?;
    let first = callers.iter().enumerate().take_while(|(_, due)| ***due <= last).find(|(index, due)| {
        let next = callers[*index..].iter().take_while(|other| ***other < ***due + FOR);
        let (good, all) = next.fold((0.0, 0.0), |(good, all), due| (good + f64::from(is_good(due)), all + 1.0));
        is_good(due) && good >= GOES_ON * all
    });
    first.and_then(|(_, due)| answers.get(*due)).map(|sample| sample.answered - trace.back)
}
