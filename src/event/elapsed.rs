//! How long something has lasted, if that is worth saying.

use std::fmt;
use std::time::Duration;

use crate::human::HumanDuration;

/// From here on, an event is told again, and says for how long it has lasted.
const WORTH_SAYING: Duration = Duration::from_secs(30);

/// A log gives the time of a line to the second.
const JUST_NOW: Duration = Duration::from_secs(1);

/// ` for 40 s`, when an event is told again; nothing when it is told first.
pub(super) struct For(pub(super) Duration);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < WORTH_SAYING { Ok(()) } else { write!(f, " for {}", HumanDuration(self.0)) }
    }
}

/// ` (since 40 s)`, where ` for 40 s` would be misread.
pub(super) struct Since(pub(super) Duration);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < WORTH_SAYING { Ok(()) } else { write!(f, " (since {})", HumanDuration(self.0)) }
    }
}

/// Of so many things, the last happened so long ago: ` 22 s ago`, or `, the last 22 s ago`; nothing if it was just now.
pub(super) struct Ago(pub(super) u64, pub(super) Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(_, ago) if *ago < JUST_NOW => Ok(()),
            Self(1, ago) => write!(f, " {} ago", HumanDuration(*ago)),
            Self(_, ago) => write!(f, ", the last {} ago", HumanDuration(*ago)),
        }
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

    #[test]
    fn what_did_not_happen_just_now_has_its_time() {
        assert_eq!(Ago(1, Duration::from_millis(250)).to_string(), "");
        assert_eq!(Ago(1, Duration::from_secs(22)).to_string(), " 22 s ago");
        assert_eq!(Ago(7, Duration::from_secs(22)).to_string(), ", the last 22 s ago");
    }
}
