//! How long each connection may live: a little less than the longest lifetime, and none as long as its neighbours.
//!
//! Connections made together would otherwise end together, and be dialed anew together. Chance alone leaves clusters;
//! so lifetimes walk through the window in steps that visit each tenth of it once in ten, and each hundredth once in a
//! hundred (van der Corput's sequence, base 10).

use std::time::Duration;

/// Lifetimes are shortened by up to so much.
const WINDOW: f64 = 0.2;
/// The walk begins anew after so many.
const STEPS: u32 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lifetimes {
    /// `None`: for ever.
    longest: Option<Duration>,
    /// Where in the window this pool begins, from 0 to 1: others began at the same time.
    offset: f64,
    next: u32,
}

impl Lifetimes {
    pub(crate) fn new(longest: Option<Duration>, offset: f64) -> Self {
        Self { longest, offset, next: 0 }
    }

    /// Of the next connection.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        let position = (self.offset + radical_inverse(self.next)).fract();
        self.next = (self.next + 1) % STEPS;
        self.longest.map(|longest| longest.mul_f64(1.0 - WINDOW * position))
    }
}

/// The decimal digits, mirrored at the point: 1 is 0.1, 12 is 0.21.
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
    fn connections_of_one_age_end_all_over_the_window() {
        for (first, offset) in [(0, 0.0), (0, 0.123), (137, 0.5), (9_950, 0.999)] {
            let longest = Duration::from_secs(1_800);
            let mut lifetimes = Lifetimes { next: first, ..Lifetimes::new(Some(longest), offset) };
            let ends: Vec<_> = (0..200).map(|_| lifetimes.next().unwrap().as_secs_f64()).collect();
            let shortest = longest.as_secs_f64() * (1.0 - WINDOW);
            let tenth = longest.as_secs_f64() * WINDOW / 10.0;
            for end in &ends {
                assert!((shortest..=longest.as_secs_f64()).contains(end));
                // Wherever the tenth of the window begins; half a second is what rounding and the seam make of it.
                let near = ends.iter().filter(|other| (*end..*end + tenth - 0.5).contains(*other)).count();
                assert!(near <= 20, "{near} of 200 within a tenth of the window, from {end}");
            }
        }
    }

    #[test]
    fn without_a_longest_they_live_for_ever() {
        assert_eq!(Lifetimes::default().next(), None);
    }
}
