//! Is a replica fit for reads with a bound, or did it only just catch up?
//!
//! A replica that lags around the bound would come and go with each look. So two bad samples take it out, and three
//! good ones in a row bring it back, each below 80% of the bound. Each read has a bound of its own, so the rule is
//! applied to the recent samples when a read asks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Looks;

/// The number of samples that are remembered.
const KEPT: usize = 16;
/// Callers may ask for looks in quick succession. Samples that are closer together than this do not show that a state
/// lasts.
const APART: Duration = Duration::from_millis(400);
/// How many bad samples in a row take a replica out.
const OUT: u32 = 2;
/// How many good samples in a row bring it back.
const BACK: u32 = 3;
/// A sample is good again below this part of the bound.
const GOOD: f64 = 0.8;
/// How long a newcomer gets less than its share of the reads, because its caches are cold.
const RAMP: Duration = Duration::from_secs(10);
/// The share of a newcomer at the beginning.
const FIRST_SHARE: f64 = 0.1;

/// What is known of one replica.
#[derive(Debug, Default)]
pub(crate) struct Fitness {
    looks: Looks,
    /// The lag at each look, oldest first. `None` if it could not be bounded.
    lags: VecDeque<Option<Duration>>,
    sampled: Option<Instant>,
    answered: Option<Instant>,
    /// When it came, or came back after a silence.
    since: Option<Instant>,
}

impl Fitness {
    pub(crate) fn new(looks: Looks) -> Self {
        Self { looks, ..Self::default() }
    }

    /// The replica has answered.
    pub(crate) fn on_answer(&mut self, now: Instant) {
        if self.is_silent(now) {
            self.since = Some(now);
            self.forget_samples();
        }
        self.answered = Some(now);
    }

    /// The replica has answered. `lag` is the bound of its lag, or `None` if there is none although the primary has
    /// been asked for long enough.
    pub(crate) fn on_sample(&mut self, now: Instant, lag: Option<Duration>) {
        if self.sampled.is_some_and(|sampled| now.saturating_duration_since(sampled) < APART) {
            return;
        }
        if self.lags.len() == KEPT {
            self.lags.pop_front();
        }
        self.lags.push_back(lag);
        self.sampled = Some(now);
    }

    /// Forgets the samples, because they belong to another history.
    pub(crate) fn forget_samples(&mut self) {
        self.lags.clear();
        self.sampled = None;
    }

    /// Another server answers, or the same one with another role.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::new(self.looks);
    }

    /// Returns whether the replica has not answered lately.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.answered.is_none_or(|answered| self.looks.is_silent(answered, now))
    }

    /// Returns whether the replica may serve reads with this bound, as far as its recent samples say.
    pub(crate) fn is_fit(&self, bound: Duration) -> bool {
        let good = bound.mul_f64(GOOD);
        let (mut is_in, mut bad, mut fine) = (true, 0, 0);
        for (index, lag) in self.lags.iter().enumerate() {
            let is_bad = lag.is_none_or(|lag| lag > bound);
            bad = if is_bad { bad + 1 } else { 0 };
            fine = if lag.is_some_and(|lag| lag < good) { fine + 1 } else { 0 };
            is_in = if is_in { bad < OUT && !(is_bad && index == 0) } else { fine >= BACK };
        }
        is_in && !self.lags.is_empty()
    }

    /// Returns which part of its usual share of the reads the replica gets now: 1 for all of it.
    pub(crate) fn share(&self, now: Instant) -> f64 {
        let age = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (age.as_secs_f64() / RAMP.as_secs_f64()).clamp(FIRST_SHARE, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A look each second, with these lags in milliseconds. Returns after which of them the replica is fit for 2 s.
    fn fit(lags: &[u64]) -> Vec<bool> {
        let (mut fitness, begun) = (Fitness::default(), Instant::now());
        let mut second = 0;
        let look = |lag: &u64| {
            second += 1;
            fitness.on_answer(begun + SECOND * second);
            fitness.on_sample(begun + SECOND * second, Some(Duration::from_millis(*lag)));
            // A caller wants to know.
            fitness.on_sample(begun + SECOND * second + APART / 2, Some(SECOND * 3));
            fitness.is_fit(SECOND * 2)
        };
        lags.iter().map(look).collect()
    }

    #[test]
    fn two_bad_samples_take_it_out_and_three_good_ones_bring_it_back() {
        assert_eq!(fit(&[100, 2_100, 100, 2_100, 2_200]), [true, true, true, true, false]);
        assert_eq!(fit(&[100, 2_100, 2_100, 100, 100, 100]), [true, true, false, false, false, true]);
        assert_eq!(
            fit(&[100, 2_100, 2_100, 100, 1_700, 100, 100, 100]),
            [true, true, false, false, false, false, false, true]
        );
        assert_eq!(fit(&[2_100, 100, 100, 100]), [false, false, false, true], "it has to begin well");
    }

    #[test]
    fn a_lag_without_a_bound_is_bad() {
        let (mut fitness, now) = (Fitness::default(), Instant::now());
        assert!(!fitness.is_fit(SECOND), "nothing is known");
        fitness.on_sample(now, None);
        assert!(!fitness.is_fit(Duration::MAX));
    }

    #[test]
    fn a_newcomer_gets_its_full_share_after_ten_seconds() {
        let (mut fitness, begun) = (Fitness::default(), Instant::now());
        assert!(fitness.is_silent(begun));
        for second in 0..=10 {
            fitness.on_answer(begun + SECOND * second);
        }
        assert!(!fitness.is_silent(begun + SECOND * 10));
        let shares = [0, 1, 5, 10, 20].map(|second| fitness.share(begun + SECOND * second));
        assert_eq!(shares, [0.1, 0.1, 0.5, 1.0, 1.0]);
        assert!(fitness.is_silent(begun + SECOND * 13));
        fitness.on_answer(begun + SECOND * 14);
        assert_eq!(fitness.share(begun + SECOND * 14), 0.1, "after a silence it is a newcomer");
    }
}
