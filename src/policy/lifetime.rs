//! How long each connection may live: at most the longest lifetime, and each a little differently.
//!
//! Otherwise connections that were made together would end together, and the pool would dial them anew together. Random
//! lifetimes would leave clusters. So lifetimes follow van der Corput's sequence in base 10: of ten lifetimes, one
//! falls into each tenth of the window; of a hundred, one into each hundredth.

use std::time::Duration;

/// The largest share by which a lifetime is shortened.
const WINDOW: f64 = 0.2;
/// The sequence begins anew after this many lifetimes.
const STEPS: u32 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lifetimes {
    /// `None` if connections live for ever.
    longest: Option<Duration>,
    /// Where in the window this pool begins, from 0 to 1. Pools that began at the same time have different offsets.
    offset: f64,
    next: u32,
}

impl Lifetimes {
    pub(crate) fn new(longest: Option<Duration>, offset: f64) -> Self {
        Self { longest, offset, next: 0 }
    }

    /// Returns the lifetime of the next connection. `None` if it lives for ever.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        let position = (self.offset + radical_inverse(self.next)).fract();
        self.next = (self.next + 1) % STEPS;
        self.longest.map(|longest| longest.mul_f64(1.0 - WINDOW * position))
    }
}

/// Mirrors the decimal digits at the point: 1 becomes 0.1, 12 becomes 0.21.
fn radical_inverse(mut number: u32) -> f64 {
    let (mut digits, mut place) = (0.0, 0.1);
    while number > 0 {
        digits += f64::from(number % 10) * place;
        place /= 10.0;
        number /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_age_end_at_times_spread_over_the_window() {
        for (first, offset) in [(0, 0.0), (0, 0.123), (137, 0.5), (9_950, 0.999)] {
            let longest = Duration::from_secs(1_800);
            let mut lifetimes = Lifetimes { next: first, ..Lifetimes::new(Some(longest), offset) };
            let ends: Vec<_> = (0..200).map(|_| lifetimes.next().unwrap().as_secs_f64()).collect();
            let shortest = longest.as_secs_f64() * (1.0 - WINDOW);
            let tenth = longest.as_secs_f64() * WINDOW / 10.0;
            for end in &ends {
                assert!((shortest..=longest.as_secs_f64()).contains(end));
                // This holds for a tenth that begins anywhere. Half a second covers rounding and the window's edge.
                let near = ends.iter().filter(|other| (*end..*end + tenth - 0.5).contains(*other)).count();
                assert!(near <= 20, "{near} of 200 within a tenth of the window, from {end}");
            }
        }
    }

    #[test]
    fn connections_without_a_longest_lifetime_live_for_ever() {
        assert_eq!(Lifetimes::default().next(), None);
    }
}
