//! A setting that cannot be used.

use std::borrow::Cow;
use std::fmt::Display;

/// A bad setting, found by [`PoolBuilder::build`](crate::PoolBuilder::build). Names the setting, its value and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}{}: {problem}", .value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default())]
pub struct ConfigError {
    setting: Cow<'static, str>,
    /// `None` where it may be a secret, or does not matter.
    value: Option<String>,
    problem: &'static str,
}

impl ConfigError {
    pub(crate) fn new(setting: impl Into<Cow<'static, str>>, value: impl Display, problem: &'static str) -> Self {
        Self { setting: setting.into(), value: Some(value.to_string()), problem }
    }

    #[cfg(feature = "serde")]
    pub(crate) fn without_value(setting: &str, problem: &'static str) -> Self {
        Self { setting: setting.to_owned().into(), value: None, problem }
    }

    /// The name of the setting, as in the builder, in the connection string, or where it was read from.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}
