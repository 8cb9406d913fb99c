//! A setting that cannot be used.

use std::borrow::Cow;
use std::fmt;

/// A bad setting: [`PoolBuilder::build`](crate::PoolBuilder::build) refuses it. Names the setting, its value and the
/// values that work.
///
/// `Debug` prints the same sentence as `Display`, because that is what a `main` prints that returns the error.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    setting: Cow<'static, str>,
    /// `None` where the value may be a secret, or does not matter.
    value: Option<String>,
    problem: Cow<'static, str>,
}

impl ConfigError {
    /// What a connection string is called that cannot be taken apart.
    pub(crate) const WHOLE_URL: &'static str = "url";

    pub(crate) fn new(
        setting: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { setting: setting.into(), value: Some(value.to_string()), problem: problem.into() }
    }

    pub(crate) fn without_value(setting: &str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { setting: setting.to_owned().into(), value: None, problem: problem.into() }
    }

    /// There is no setting of this name. Offers the nearest name that there is.
    pub(crate) fn unknown(setting: &str, nearest: Option<impl fmt::Display>) -> Self {
        const PROBLEM: &str = "there is no such setting";
        match nearest {
            Some(name) => Self::without_value(setting, format!("{PROBLEM}; did you mean `{name}`?")),
            None => Self::without_value(setting, PROBLEM),
        }
    }

    /// The same error about a part of the value of another setting. An error about the whole takes that one's name.
    #[cfg(feature = "serde")]
    pub(crate) fn of_part_of(self, setting: &str) -> Self {
        let problem = if self.setting == Self::WHOLE_URL { self.problem.into_owned() } else { self.to_string() };
        Self::without_value(setting, problem)
    }

    /// The name of the setting, as in the builder, in the connection string, or where it was read from.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.setting, self.problem),
            None => write!(f, "{}: {}", self.setting, self.problem),
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_the_sentence_of_display() {
        let error = ConfigError::new("max_size", 0, "must be 1 to 262143");
        assert_eq!(format!("{error:?}"), "max_size = 0: must be 1 to 262143");
        assert_eq!(format!("{error:#?}"), error.to_string());
    }

    #[test]
    fn an_unknown_name_comes_with_the_nearest_known_one() {
        let unknown = |nearest: Option<&str>| ConfigError::unknown("maxsize", nearest).to_string();
        assert_eq!(unknown(Some("max_size")), "maxsize: there is no such setting; did you mean `max_size`?");
        assert_eq!(unknown(None), "maxsize: there is no such setting");
    }
}
