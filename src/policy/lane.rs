//! How much a caller matters when connections are short.

use std::fmt;
use std::str::FromStr;

/// One value for each [`Lane`], in the order of their declaration.
pub(crate) type PerLane<T> = [T; 3];

/// How much a caller matters when connections are short: callers of a higher lane get connections first.
///
/// As a setting, a lane is its name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lane {
    /// What must go on: a login, a payment.
    Critical,
    /// Everything else. The default.
    #[default]
    Normal,
    /// What can come later: reports, exports, clean-up.
    Background,
}

impl Lane {
    /// All lanes, the highest first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Background];

    /// Returns the name in lower case, as a label for metrics. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Background => "background",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be critical, normal or background")]
#[non_exhaustive]
pub struct UnknownLane;

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(name: &str) -> Result<Self, UnknownLane> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == name).ok_or(UnknownLane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_is_found_by_its_name() {
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!((lane.to_string().parse(), lane as usize), (Ok(lane), index));
        }
        assert_eq!("urgent".parse::<Lane>().unwrap_err().to_string(), "must be critical, normal or background");
    }
}
