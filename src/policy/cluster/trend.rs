//! Should an operator know of a replica's lag?
//!
//! A failover to a replica that lags loses as much. So lag is worth a warning long before anybody reads stale rows:
//! from 15 s on, or while it rises by 3 s in a minute. From 45 s on it is critical.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Worth a warning.
const WARNING: Duration = Duration::from_secs(15);
const CRITICAL: Duration = Duration::from_secs(45);
/// A rise of this much in [`OVER`] is worth a warning.
const RISE: Duration = Duration::from_secs(3);
/// The time over which a rise is measured.
const OVER: Duration = Duration::from_secs(60);
/// The shortest time between two samples that are kept.
const APART: Duration = Duration::from_secs(5);

/// How much a replica's lag matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lag {
    Calm,
    /// It rises by 3 s in a minute.
    Rising,
    /// 15 s or more.
    Warning,
    /// 45 s or more, or more than can be measured.
    Critical,
}

/// The lag of one replica over the last minute.
#[derive(Debug, Default)]
pub(crate) struct Trend {
    samples: VecDeque<(Instant, Duration)>,
}

impl Trend {
    /// Records a lag, `None` if it is longer than can be measured. Returns how much it matters.
    pub(crate) fn look(&mut self, now: Instant, lag: Option<Duration>) -> Lag {
        let Some(lag) = lag else {
            self.samples.clear();
            return Lag::Critical;
        };
        while self.samples.len() > 1 && now.saturating_duration_since(self.samples[1].0) >= OVER {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= APART) {
            self.samples.push_back((now, lag));
        }
        if lag >= CRITICAL {
            Lag::Critical
        } else if lag >= WARNING {
            Lag::Warning
        } else if self.is_rising(now, lag) {
            Lag::Rising
        } else {
            Lag::Calm
        }
    }

    /// A short wave is no trend: the lag has to be higher than all that it was in the minute before.
    fn is_rising(&self, now: Instant, lag: Duration) -> bool {
        let Some((first, least)) = self.samples.front() else { return false };
        let has_minute = now.saturating_duration_since(*first) >= OVER;
        has_minute && lag >= *least + RISE && self.samples.iter().all(|(at, before)| *at == now || *before < lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A look each second. Returns how much the last one matters.
    fn after(seconds: u32, lag: impl Fn(u32) -> Duration) -> Lag {
        let (mut trend, begun) = (Trend::default(), Instant::now());
        let mut last = Lag::Calm;
        for second in 0..=seconds {
            last = trend.look(begun + SECOND * second, Some(lag(second)));
        }
        last
    }

    #[test]
    fn lag_matters_from_15_and_from_45_seconds_on() {
        assert_eq!(after(100, |_| SECOND * 14), Lag::Calm);
        assert_eq!(after(0, |_| SECOND * 15), Lag::Warning);
        assert_eq!(after(0, |_| SECOND * 45), Lag::Critical);
        assert_eq!(Trend::default().look(Instant::now(), None), Lag::Critical);
    }

    #[test]
    fn three_seconds_a_minute_are_a_trend_and_a_wave_is_none() {
        assert_eq!(after(60, |second| SECOND * second / 20), Lag::Rising);
        assert_eq!(after(59, |second| SECOND * second / 20), Lag::Calm, "not a minute yet");
        assert_eq!(after(120, |second| SECOND * second / 40), Lag::Calm, "half as fast");
        assert_eq!(after(120, |second| SECOND * (second % 10)), Lag::Calm);
    }
}
