//! A setting that cannot be used.

use std::fmt::Display;

/// A bad setting, found by [`PoolBuilder::build`](crate::PoolBuilder::build). Names the setting, its value and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {value}: {problem}")]
pub struct ConfigError {
    setting: &'static str,
    value: String,
    problem: &'static str,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, value: impl Display, problem: &'static str) -> Self {
        Self { setting, value: value.to_string(), problem }
    }

    /// The name of the setting, as in the builder or in the connection string.
    pub fn setting(&self) -> &str {
        self.setting
    }
}
