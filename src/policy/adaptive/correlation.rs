//! Do more connections in use bring more throughput?
//!
//! The correlation of both over the last windows in which at least half of the connections were in use. If the server
//! is saturated, more connections in use bring nothing: leases only take longer.

use std::collections::VecDeque;
use std::time::Instant;

use super::window::WINDOW;

/// So many windows are remembered.
const WINDOWS: u32 = 50;
/// Fewer say nothing.
const ENOUGH: usize = 5;
/// A number has not changed if its standard deviation is a smaller part of its mean: of connections in use, and of
/// throughput.
const STEADY: (f64, f64) = (0.05, 0.02);

#[derive(Debug, Default)]
pub(super) struct Correlation(VecDeque<(Instant, f64, f64)>);

impl Correlation {
    pub(super) fn push(&mut self, now: Instant, in_use: f64, throughput: f64) {
        self.0.push_back((now, in_use, throughput));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |(at, ..): &(Instant, f64, f64)| now.saturating_duration_since(*at) >= WINDOW * WINDOWS;
        while self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }

    /// From -1 to 1. 0 if one of them did not change. `None` while too few windows are known.
    pub(super) fn value(&mut self, now: Instant) -> Option<f64> {
        self.forget(now);
        if self.0.len() < ENOUGH {
            return None;
        }
        let count = self.0.len() as f64;
        let in_use = self.0.iter().map(|(_, in_use, _)| in_use).sum::<f64>() / count;
        let throughput = self.0.iter().map(|(_, _, throughput)| throughput).sum::<f64>() / count;
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            self.0.iter().map(|(_, x, y)| of(x - in_use, y - throughput)).sum()
        };
        let (both, one, other) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
        let is_steady = |squares: f64, mean: f64, least: f64| (squares / count).sqrt() <= mean.abs() * least;
        let is_flat = is_steady(one, in_use, STEADY.0) || is_steady(other, throughput, STEADY.1);
        Some(if is_flat { 0.0 } else { both / (one * other).sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
        let (mut correlation, mut now) = (Correlation::default(), Instant::now());
        for (in_use, throughput) in pairs {
            now += WINDOW;
            correlation.push(now, in_use, throughput);
        }
        correlation.value(now)
    }

    #[test]
    fn it_tells_growth_from_saturation() {
        let rising = |n: i32| (f64::from(n), 10.0 * f64::from(n));
        assert_eq!(of((0..4).map(rising)), None);
        assert!(of((0..20).map(rising)).unwrap() > 0.99);
        assert!(of((0..20).map(|n| (f64::from(n), -f64::from(n)))).unwrap() < -0.99);
        assert_eq!(of((0..20).map(|n| (15.0, f64::from(n)))), Some(0.0), "connections in use did not change");
    }

    /// A pool that is always full: the noise of both goes together, which says nothing. The figures are those of
    /// failsafe-go's tests.
    #[test]
    fn noise_is_no_correlation() {
        let repeated = |pairs: [(f64, f64); 3]| of(pairs.into_iter().cycle().take(6));
        assert_eq!(repeated([(100.0, 200.0), (100.1, 200.1), (100.05, 200.05)]), Some(0.0));
        assert!(repeated([(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]).unwrap() > 0.99);
        assert!(repeated([(1.0, 30.0), (2.0, 20.0), (3.0, 10.0)]).unwrap() < -0.99);
    }

    #[test]
    fn only_the_last_windows_count() {
        let pairs = (0..50).map(|n| (f64::from(n), f64::from(n))).chain((0..50).map(|n| (f64::from(n), -f64::from(n))));
        assert!(of(pairs).unwrap() < -0.99);
    }
}
