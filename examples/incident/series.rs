//! The figures over time, for charts: a trace is cut into equal parts.

use std::time::Duration;

use super::measure::percentile;
use super::play::Trace;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bin {
    /// Served in time, as a share of the usual capacity.
    pub(crate) goodput: f64,
    /// The median of the answers, in time or late; `None` if there was none.
    pub(crate) latency: Option<Duration>,
}

pub(crate) fn bins(trace: &Trace, count: usize) -> Vec<Bin> {
    let width = trace.scenario.length() / count as u32;
    let mut good = vec![0; count];
    let mut times = vec![Vec::new(); count];
    for sample in trace.samples.iter().filter(|sample| sample.is_served()) {
        let index = place(sample.answered, width);
        if index < count {
            good[index] += usize::from(sample.is_in_time());
            times[index].push(sample.took);
        }
    }
    let possible = trace.capacity * width.as_secs_f64();
    let bin = |(good, mut times): (usize, Vec<_>)| {
        times.sort();
        Bin { goodput: good as f64 / possible, latency: percentile(&times, 50) }
    };
    good.into_iter().zip(times).map(bin).collect()
}

/// In which part of this width a time lies.
pub(crate) fn place(at: Duration, width: Duration) -> usize {
    (at.as_secs_f64() / width.as_secs_f64()) as usize
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::trace;
    use super::super::peers::Answer;
    use super::*;

    #[test]
    fn answers_lie_where_they_were_given() {
        // 7 s in 70 bins: ten callers in each, of as many as the pool could serve.
        let trace = trace("surge-3x", |due| match due {
            ..1_000 => Some((100, Answer::Served)),
            1_000..2_000 => Some((501, Answer::Served)),
            _ => Some((1, Answer::Refused)),
        });
        let bins = bins(&trace, 70);
        assert_eq!(bins[0], Bin { goodput: 0.0, latency: None });
        assert_eq!(bins[1], Bin { goodput: 1.0, latency: Some(Duration::from_millis(100)) });
        assert_eq!(bins[20], Bin { goodput: 0.0, latency: Some(Duration::from_millis(501)) });
        assert_eq!(bins[40], Bin { goodput: 0.0, latency: None });
    }
}
