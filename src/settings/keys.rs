//! Finds settings by their keys, for every way in and out: files, the environment, the command line, serializing.

use super::field::Scalar;
use super::{RateSettings, Settings};
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
        match operation(key) {
            Some(Operation::Rate(name)) => _ = self.rate_of.entry(name.to_owned()).or_default(),
            Some(Operation::Lane(name)) => _ = self.lane_of.entry(name.to_owned()).or_default(),
            None => {}
        }
        let read = match self.fields("").into_iter().find(|(name, _)| *name == key) {
            Some((_, field)) => field.read(value).map_err(|problem| problem.of(named, value)),
            None if is_table(key) => Err(ConfigError::without_value(named, "is a table")),
            None => Err(ConfigError::unknown(named, nearest(key))),
        };
        self.rate_of.retain(|_, rate| *rate != RateSettings::default());
        self.lane_of.retain(|_, lane| lane.is_some());
        read
    }

    /// The given settings that may be written down, which the URL may not.
    pub(super) fn shown(&self) -> Vec<(String, Scalar)> {
        let mut copy = self.clone();
        let fields = copy.fields("").into_iter();
        fields.filter_map(|(key, field)| Some((key, field.show()?))).collect()
    }
}

/// Stands for the name of an operation where all keys are listed.
const OPERATION: &str = "operation";

/// The whole keys of all settings. Of the operations, which are any number, those of the one that is named in `near`.
pub(super) fn keys(near: &str) -> Vec<String> {
    let mut settings = Settings::default();
    let (rate, lane) = match operation(near) {
        Some(Operation::Rate(name)) => (name, OPERATION),
        Some(Operation::Lane(name)) => (OPERATION, name),
        None => (OPERATION, OPERATION),
    };
    settings.rate_of.insert(rate.to_owned(), RateSettings::default());
    settings.lane_of.insert(lane.to_owned(), None);
    settings.fields("").into_iter().map(|(key, _)| key).collect()
}

/// The operation that a key names.
enum Operation<'a> {
    /// `rate_of.report.calls`
    Rate(&'a str),
    /// `lane_of.report`
    Lane(&'a str),
}

fn operation(key: &str) -> Option<Operation<'_>> {
    let (table, rest) = key.split_once('.')?;
    let name = rest.split('.').next().filter(|name| !name.is_empty())?;
    match table {
        "rate_of" => Some(Operation::Rate(name)),
        "lane_of" => Some(Operation::Lane(name)),
        _ => None,
    }
}

/// Returns whether there are keys below `name`.
pub(super) fn is_table(name: &str) -> bool {
    keys(name).iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key or table whose name is nearest to a misspelled one.
pub(super) fn nearest(name: &str) -> Option<String> {
    let keys = keys(name);
    let with_tables = |key: &String| {
        let tables = key.match_indices('.').map(|(end, _)| &key[..end]);
        std::iter::once(key.as_str()).chain(tables).map(str::to_owned).collect::<Vec<_>>()
    };
    let known: Vec<String> = keys.iter().flat_map(with_tables).collect();
    crate::error::nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
}
