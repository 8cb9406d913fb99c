//! Finds settings by their keys, for every way in and out: files, the environment, the command line, serializing.

use super::Settings;
use super::field::Scalar;
use crate::error::ConfigError;

impl Settings {
    /// Sets one setting by its key, for example from a command line. The value is written as in a file:
    /// `settings.set("breaker.reset_timeout", "10s")`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no such key, or if the value is not of its kind.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        self.read(key, key, value)
    }

    /// As [`set`](Self::set). An error calls the setting `named`.
    pub(super) fn read(&mut self, key: &str, named: &str, value: &str) -> Result<(), ConfigError> {
        match self.fields().into_iter().find(|(name, _)| *name == key) {
            Some((_, field)) => field.read(value).map_err(|problem| problem.of(named, value)),
            None if is_table(key) => Err(ConfigError::without_value(named, "is a table")),
            None => Err(ConfigError::unknown(named, nearest(key))),
        }
    }

    /// The given settings that may be written down, which the URL may not.
    pub(super) fn shown(&self) -> Vec<(&'static str, Scalar)> {
        let mut copy = self.clone();
        let fields = copy.fields().into_iter();
        fields.filter_map(|(key, field)| Some((key, field.show()?))).collect()
    }
}

/// The whole keys of all settings.
pub(super) fn keys() -> Vec<&'static str> {
    Settings::default().fields().into_iter().map(|(key, _)| key).collect()
}

/// Returns whether there are keys below `name`.
pub(super) fn is_table(name: &str) -> bool {
    keys().iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key or table whose name is nearest to a misspelled one.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let with_tables = |key: &'static str| {
        let tables = key.match_indices('.').map(move |(end, _)| &key[..end]);
        std::iter::once(key).chain(tables)
    };
    crate::error::nearest(name, keys().into_iter().flat_map(with_tables))
}
