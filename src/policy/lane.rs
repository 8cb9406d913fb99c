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

/// What the callers of a lane may use: shares of [`max_size`](crate::PoolBuilder::max_size), whatever that is changed
/// to.
///
/// A guaranteed connection that the lane does not use is lent, but only to lanes of which at most one lease in a
/// hundred takes longer than a quarter of the acquire timeout: what is lent comes back when its lease ends. One
/// connection of [`Lane::Critical`] is never lent.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "limits do nothing until the builder has them"]
pub struct LaneLimits {
    /// `None`: one connection in a pool of five or more.
    pub(crate) guaranteed: Option<f64>,
    pub(crate) at_most: f64,
}

impl LaneLimits {
    /// Returns the limits that hold for this lane by default.
    ///
    /// | lane | guaranteed | at most |
    /// |---|---|---|
    /// | `Critical` | 0.2 | 1 |
    /// | `Normal` | one connection, in a pool of five or more | 1 |
    /// | `Background` | one connection, in a pool of five or more | 0.5 |
    pub fn of(lane: Lane) -> Self {
        match lane {
            Lane::Critical => Self { guaranteed: Some(0.2), at_most: 1.0 },
            Lane::Normal => Self { guaranteed: None, at_most: 1.0 },
            Lane::Background => Self { guaranteed: None, at_most: 0.5 },
        }
    }

    /// Sets the share of the pool that waits for this lane, from 0 to 1, rounded down to whole connections. A share
    /// above 0 is at least one connection. In a pool that is too small for all guarantees, the highest lanes come
    /// first, and one connection is left to all.
    pub fn guaranteed(mut self, share: f64) -> Self {
        self.guaranteed = Some(share);
        self
    }

    /// Sets the share of the pool that this lane may use, above 0 up to 1, rounded down to whole connections, but at
    /// least one.
    pub fn at_most(mut self, share: f64) -> Self {
        self.at_most = share;
        self
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
