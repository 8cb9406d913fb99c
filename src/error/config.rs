//! A setting that cannot be used, and the known name nearest to a misspelled one.

use std::borrow::Cow;
use std::fmt;

/// The longest name, in characters, for which `nearest` searches: its time is quadratic in the length.
const LONGEST: usize = 100;

/// A setting that [`PoolBuilder::build`](crate::PoolBuilder::build) refuses. The error names the setting, its value and
/// the values that work.
///
/// `Debug` prints the same sentence as `Display`, because a `main` that returns the error prints `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    setting: Cow<'static, str>,
    /// `None` if the value may be a secret, or does not matter.
    value: Option<String>,
    problem: Cow<'static, str>,
}

impl ConfigError {
    /// The name of a connection string as a whole, for one that cannot be parsed.
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

    /// The error for a name that no setting has. It offers the nearest name that exists.
    pub(crate) fn unknown(setting: &str, nearest: Option<impl fmt::Display>) -> Self {
        const PROBLEM: &str = "there is no such setting";
        match nearest {
            Some(name) => Self::without_value(setting, format!("{PROBLEM}; did you mean `{name}`?")),
            None => Self::without_value(setting, PROBLEM),
        }
    }

    /// Returns this error, about a setting of this table.
    pub(crate) fn within(self, table: &str) -> Self {
        Self { setting: format!("{table}.{}", self.setting).into(), ..self }
    }

    /// Returns this error, about a part of the value of `setting`. An error about the whole value takes the name of
    /// `setting`.
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

/// Returns the known name with the fewest edits from `name`, if these are at most three, and at most a third of the
/// letters after the last `.`. Case, `_`, `-` and `.` do not count.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let own = letters(name.rsplit('.').next().unwrap_or_default());
    let name = letters(name);
    if name.len() > LONGEST {
        return None;
    }
    let most = (own.len() / 3).min(3);
    let edits = |other: &&str| edits(&name, &letters(other));
    let nearest = known.into_iter().min_by_key(edits)?;
    (edits(&nearest) <= most).then_some(nearest)
}

fn letters(name: &str) -> Vec<char> {
    name.chars().filter(|c| !"_-.".contains(*c)).flat_map(char::to_lowercase).collect()
}

/// Levenshtein's distance: the number of letters to insert, leave out or replace.
fn edits(from: &[char], to: &[char]) -> usize {
    // The distances from the first `row` letters of `from` to each beginning of `to`.
    let mut distances: Vec<usize> = (0..=to.len()).collect();
    for (row, from) in from.iter().enumerate() {
        let mut diagonal = distances[0];
        distances[0] = row + 1;
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = distances[column + 1];
            distances[column + 1] = replaced.min(diagonal + 1).min(distances[column] + 1);
        }
    }
    distances[to.len()]
}

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

    #[test]
    fn counts_edits() {
        let edits = |from: &str, to: &str| edits(&letters(from), &letters(to));
        assert_eq!(edits("", ""), 0);
        assert_eq!(edits("size", "size"), 0);
        assert_eq!(edits("", "size"), 4);
        assert_eq!(edits("size", ""), 4);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn only_a_near_name_is_offered() {
        let known = ["max_size", "max_lifetime", "retry.max_attempts", "url"];
        for (name, expected) in [
            ("MAXSIZE", Some("max_size")),
            ("max-sise", Some("max_size")),
            ("retry_max_atempts", Some("retry.max_attempts")),
            ("uri", Some("url")),
            ("retry.max", None),
            ("password", None),
            ("", None),
            ("u", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
