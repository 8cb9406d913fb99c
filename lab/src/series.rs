//! The figures over time, for charts: a trace is cut into equal parts.

use std::time::Duration;

use crate::figures::percentile;
use crate::play::Trace;
use crate::terms::{HOLD, capacity};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Bin {
    /// The usual callers who came, as a share of what the pool can usually serve.
    pub(crate) offered: f64,
    /// The usual callers who were served in time, as the same share.
    pub(crate) goodput: f64,
    /// The median of their answers, in time or late; `None` if there was none.
    pub(crate) answer: Option<Duration>,
    /// The median time until a refusal or an error.
    pub(crate) refusal: Option<Duration>,
    /// The pool's connections on average. `None` if the server did not say.
    pub(crate) connections: Option<f64>,
}

pub(crate) fn bins(trace: &Trace, count: usize) -> Vec<Bin> {
    let width = trace.scenario.length() / count as u32;
    let possible = capacity(HOLD) * width.as_secs_f64();
    let mut bins = vec![Bin::default(); count];
    for caller in trace.callers.iter().filter(|caller| caller.work.is_usual()) {
        if let Some(bin) = bins.get_mut(place(caller.due, width)) {
            bin.offered += 1.0 / possible;
        }
    }
    let (mut answers, mut refusals) = (vec![Vec::new(); count], vec![Vec::new(); count]);
    for sample in trace.samples.iter().filter(|sample| sample.caller.work.is_usual()) {
        let index = place(sample.answered, width);
        let Some(bin) = bins.get_mut(index) else { continue };
        bin.goodput += if sample.is_in_time() { 1.0 / possible } else { 0.0 };
        let times = if sample.is_served() { &mut answers } else { &mut refusals };
        times[index].push(sample.took);
    }
    for (index, bin) in bins.iter_mut().enumerate() {
        bin.answer = median(&mut answers[index]);
        bin.refusal = median(&mut refusals[index]);
        let counted = trace.connections.iter().filter(|(at, _)| place(*at, width) == index);
        let counted: Vec<_> = counted.map(|(_, connections)| *connections as f64).collect();
        if !counted.is_empty() {
            bin.connections = Some(counted.iter().sum::<f64>() / counted.len() as f64);
        }
    }
    bins
}

fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort();
    percentile(times, 50)
}

/// In which part of this width a time lies.
pub(crate) fn place(at: Duration, width: Duration) -> usize {
    (at.as_nanos() / width.as_nanos().max(1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::Caller;
    use crate::figures::tests::trace;
    use crate::peers::Answer;
    use crate::work::Work;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn answers_lie_where_they_were_given() {
        // 7 s in 70 bins: ten callers in each, of 25 that the pool can serve.
        let mut trace = trace("surge-3x", |due| match due {
            ..1_000 => Some((100, Answer::Served)),
            1_000..2_000 => Some((501, Answer::Served)),
            _ => Some((1, Answer::Refused)),
        });
        trace.connections = vec![(ms(150), 10), (ms(160), 11), (ms(350), 7)];
        let bins = bins(&trace, 70);
        assert!(bins.iter().all(|bin| (bin.offered - 0.4).abs() < 1e-9), "{bins:?}");
        assert_eq!((bins[0].goodput, bins[0].answer), (0.0, None));
        assert!((bins[1].goodput - 0.4).abs() < 1e-9, "{:?}", bins[1]);
        assert_eq!((bins[1].answer, bins[1].refusal), (Some(ms(100)), None));
        assert_eq!((bins[20].goodput, bins[20].answer), (0.0, Some(ms(501))));
        assert_eq!((bins[40].goodput, bins[40].answer, bins[40].refusal), (0.0, None, Some(ms(1))));
        assert_eq!([0, 1, 3].map(|bin| bins[bin].connections), [None, Some(10.5), Some(7.0)]);
    }

    #[test]
    fn other_work_is_not_drawn() {
        let mut trace = trace("flood", |_| Some((40, Answer::Served)));
        trace.callers = trace.callers.iter().map(|caller| Caller { work: Work::Report, ..*caller }).collect();
        for sample in &mut trace.samples {
            sample.caller.work = Work::Report;
        }
        assert!(bins(&trace, 70).iter().all(|bin| *bin == Bin::default()));
    }
}
