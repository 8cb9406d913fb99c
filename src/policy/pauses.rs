//! When the next dial may begin after one that failed.

use std::time::{Duration, Instant};

/// The pause after the first failed dial. It doubles with each further failure.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause. The pool finds a recovered server within about a second.
const LONGEST: Duration = Duration::from_secs(1);
/// The first pause if the trouble is lasting.
const FIRST_OF_LASTING: Duration = Duration::from_secs(1);
/// The longest pause if the trouble is lasting.
const LONGEST_OF_LASTING: Duration = Duration::from_secs(60);

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The trouble may end by itself at any moment.
    Passing,
    /// Only an operator can end the trouble. Another dial may do harm: a wrong password may lock an account.
    Lasting,
}

#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// Failures since the last success. Failures during one pause count once.
    failures: u32,
    /// How many of these failures were lasting trouble.
    lasting: u32,
    until: Option<(Instant, Trouble)>,
}

impl Pauses {
    /// Returns how long the pause still lasts. `None` if the next dial may begin at once.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.0.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn until(&self) -> Option<Instant> {
        self.until.map(|(until, _)| until)
    }

    /// Returns whether even a check of the server has to wait.
    pub(crate) fn are_lasting(&self, now: Instant) -> bool {
        self.left(now).is_some() && matches!(self.until, Some((_, Trouble::Lasting)))
    }

    pub(crate) fn are_failing(&self) -> bool {
        self.failures > 0
    }

    /// A dial failed. `jitter`, from 0 to 1, shortens the pause by up to a half, or by up to a tenth if the trouble is
    /// lasting.
    pub(crate) fn failed(&mut self, now: Instant, trouble: Trouble, jitter: f64) {
        let is_known = self.left(now).is_some() && (trouble == Trouble::Passing || self.are_lasting(now));
        if is_known {
            return;
        }
        let pause = match trouble {
            Trouble::Passing => doubled(FIRST, self.failures, LONGEST).mul_f64(1.0 - jitter / 2.0),
            Trouble::Lasting => {
                let pause = doubled(FIRST_OF_LASTING, self.lasting, LONGEST_OF_LASTING);
                self.lasting += 1;
                pause.mul_f64(1.0 - jitter / 10.0)
            }
        };
        self.failures += 1;
        self.until = Some((now + pause, trouble));
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The cause may have been removed. The next dial may begin now, and lasting trouble begins with its first pause
    /// again.
    pub(crate) fn try_at_once(&mut self) {
        (self.until, self.lasting) = (None, 0);
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(10)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns when each of `count` failing dials begins, in milliseconds, if each begins as soon as it may.
    fn attempts(pauses: &mut Pauses, trouble: Trouble, count: usize) -> Vec<u128> {
        let begun = Instant::now();
        let mut now = begun;
        let attempt = |_| {
            let at = (now - begun).as_millis();
            pauses.failed(now, trouble, 0.0);
            now += pauses.left(now).expect("a pause");
            at
        };
        (0..count).map(attempt).collect()
    }

    #[test]
    fn pauses_of_lasting_trouble_grow_longer_than_others() {
        let mut pauses = Pauses::default();
        let seconds = [0, 1, 3, 7, 15, 31, 63, 123, 183];
        assert_eq!(attempts(&mut pauses, Trouble::Lasting, 9), seconds.map(|second| second * 1_000));
        pauses.try_at_once();
        assert_eq!(attempts(&mut pauses, Trouble::Lasting, 3), [0, 1_000, 3_000]);
        assert_eq!(attempts(&mut Pauses::default(), Trouble::Passing, 8), [0, 50, 150, 350, 750, 1_550, 2_550, 3_550]);
    }

    #[test]
    fn failures_of_one_burst_count_once_and_lasting_trouble_decides() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        pauses.failed(now, Trouble::Passing, 0.0);
        assert!(!pauses.are_lasting(now));
        pauses.failed(now, Trouble::Lasting, 0.0);
        assert_eq!(pauses.left(now), Some(FIRST_OF_LASTING));
        for trouble in [Trouble::Lasting, Trouble::Passing] {
            pauses.failed(now, trouble, 0.0);
            assert_eq!(pauses.left(now), Some(FIRST_OF_LASTING));
        }
        assert!(pauses.are_lasting(now));
        pauses.succeeded();
        assert_eq!((pauses.left(now), pauses.are_failing()), (None, false));
    }
}
