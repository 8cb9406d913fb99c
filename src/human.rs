//! Figures as people write them: `1.8 s`, not `1.812345678s`; `1 caller`, not `1 callers`.

use std::fmt;
use std::time::Duration;

/// A duration, rounded: `250 ms`, `1.8 s`, `40 s`, `12 min`, `2.5 h`.
pub(crate) struct HumanDuration(pub(crate) Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (figure, unit) = match seconds {
            ..0.000_999_5 => (seconds * 1e6, "us"),
            ..0.999_5 => (seconds * 1e3, "ms"),
            ..119.5 => (seconds, "s"),
            ..7_170.0 => (seconds / 60.0, "min"),
            _ => (seconds / 3600.0, "h"),
        };
        // Two digits are enough: 1.8 s, 18 s, and 2 s rather than 2.0 s.
        let tenths = (figure * 10.0).round() / 10.0;
        let digits = usize::from(figure < 9.95 && tenths.fract() != 0.0);
        write!(f, "{figure:.digits$} {unit}")
    }
}

/// A number and a noun, which is given in the singular: `1 caller`, `2 callers`.
pub(crate) struct Count<N>(pub(crate) N, pub(crate) &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, noun) = self;
        let ending = if *number == N::from(1) { "" } else { "s" };
        write!(f, "{number} {noun}{ending}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_for_people() {
        let read = |micros| HumanDuration(Duration::from_micros(micros)).to_string();
        assert_eq!(read(0), "0 us");
        assert_eq!(read(1_499), "1.5 ms");
        assert_eq!(read(250_000), "250 ms");
        assert_eq!(read(999_700), "1 s");
        assert_eq!(read(1_812_345), "1.8 s");
        assert_eq!(read(17_960_000), "18 s");
        assert_eq!(read(119_000_000), "119 s");
        assert_eq!(read(130_000_000), "2.2 min");
        assert_eq!(read(9_000_000_000), "2.5 h");
    }

    #[test]
    fn one_has_the_singular() {
        let counted = [0_u64, 1, 2].map(|number| Count(number, "caller").to_string());
        assert_eq!(counted, ["0 callers", "1 caller", "2 callers"]);
    }
}
