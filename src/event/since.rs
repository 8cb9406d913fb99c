//! How long something has lasted, if that is worth saying.

use std::fmt;
use std::time::Duration;

use crate::plain::Plain;

/// From here on, an event is told again, and says for how long it has lasted.
const WORTH_SAYING: Duration = Duration::from_secs(30);

/// ` for 40 s`, when an event is told again; nothing when it is told first.
pub(super) struct For(pub(super) Duration);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < WORTH_SAYING { Ok(()) } else { write!(f, " for {}", Plain(self.0)) }
    }
}

/// ` (since 40 s)`, where ` for 40 s` would be misread.
pub(super) struct Since(pub(super) Duration);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < WORTH_SAYING { Ok(()) } else { write!(f, " (since {})", Plain(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_lasts_is_said_from_the_second_time_on() {
        assert_eq!(For(Duration::from_secs(10)).to_string(), "");
        assert_eq!(For(Duration::from_secs(40)).to_string(), " for 40 s");
        assert_eq!(Since(Duration::from_secs(29)).to_string(), "");
        assert_eq!(Since(Duration::from_secs(90)).to_string(), " (since 90 s)");
    }
}
