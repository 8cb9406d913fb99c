//! The parameters of the session that the server reports: `TimeZone`, `application_name`, since version 18
//! `search_path`.
//!
//! A parameter whose value is again that of the beginning does not count as changed: the end of a transaction undoes
//! `SET LOCAL`.

use std::mem;

/// The largest number of parameters that are kept. PostgreSQL reports about 15.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Reported {
    parameters: Vec<Parameter>,
    /// Whether the server has reported more parameters than can be kept. Then the session counts as changed.
    is_lost: bool,
    has_changed: bool,
    /// Whether a parameter was reported after start-up, and [`take_changes`](Self::take_changes) was not asked since.
    is_news: bool,
    /// The number of reports of parameters that could not be kept.
    strangers: u64,
}

#[derive(Debug)]
struct Parameter {
    name: Vec<u8>,
    value: Vec<u8>,
    /// The value with which the session began.
    first: Vec<u8>,
    /// The value of start-up, before the owner's hook ran. `None` if the parameter was not reported then.
    start: Option<Vec<u8>>,
}

impl Reported {
    /// Handles a ParameterStatus: name and value. During start-up, the value is that with which the session begins.
    pub(super) fn on_report(&mut self, body: &[u8], is_started: bool) {
        let mut parts = body.split(|byte| *byte == 0);
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().to_vec());
        let has_space = self.parameters.len() < MOST;
        let known = self.parameters.iter_mut().find(|parameter| parameter.name == name);
        match known {
            Some(parameter) if is_started => parameter.value = value,
            Some(parameter) => {
                (parameter.first, parameter.start, parameter.value) = (value.clone(), Some(value.clone()), value);
            }
            None if has_space => {
                let start = (!is_started).then(|| value.clone());
                let first = start.clone().unwrap_or_default();
                self.parameters.push(Parameter { name: name.to_vec(), value, first, start });
            }
            None => {
                self.is_lost = true;
                self.strangers += 1;
            }
        }
        self.is_news |= is_started;
        self.has_changed = self.is_lost || self.parameters.iter().any(|parameter| parameter.value != parameter.first);
    }

    /// The session begins anew, with the present values.
    pub(super) fn begin(&mut self) {
        (self.is_lost, self.has_changed) = (false, false);
        for parameter in &mut self.parameters {
            parameter.first.clone_from(&parameter.value);
        }
    }

    /// The number of reports of parameters that could not be kept.
    pub(super) fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Returns the parameters that have another value than at start-up, each with the value of start-up. `None` if
    /// nothing was reported since the last call.
    pub(super) fn take_changes(&mut self) -> Option<Vec<(String, String)>> {
        if !mem::take(&mut self.is_news) {
            return None;
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let changes = self.parameters.iter().filter_map(|parameter| {
            let start = parameter.start.as_ref().filter(|start| **start != parameter.value)?;
            Some((text(&parameter.name)?, text(start)?))
        });
        Some(changes.collect())
    }

    /// Returns whether a parameter has another value than when the session began.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_returns_is_no_change() {
        let mut reported = Reported::default();
        reported.on_report(b"TimeZone\0UTC\0", false);
        reported.on_report(b"TimeZone\0Asia/Tokyo\0", true);
        assert!(reported.has_changed());
        reported.on_report(b"TimeZone\0UTC\0", true);
        assert!(!reported.has_changed());
    }

    #[test]
    fn a_new_session_begins_with_the_present_values() {
        let mut reported = Reported::default();
        reported.on_report(b"a\0b\0", true);
        assert!(reported.has_changed(), "its first value is unknown");
        reported.begin();
        assert!(!reported.has_changed());
    }

    #[test]
    fn changes_are_measured_by_start_up_and_not_by_the_latest_session() {
        let mut reported = Reported::default();
        reported.on_report(b"application_name\0pool\0", false);
        assert_eq!(reported.take_changes(), None);
        reported.on_report(b"application_name\0\0", true);
        reported.on_report(b"search_path\0orders\0", true);
        reported.begin();
        let change = ("application_name".to_owned(), "pool".to_owned());
        assert_eq!(reported.take_changes(), Some(vec![change]));
        assert_eq!(reported.take_changes(), None, "no news");
        reported.on_report(b"application_name\0pool\0", true);
        assert_eq!(reported.take_changes(), Some(Vec::new()));
    }

    #[test]
    fn the_number_of_kept_parameters_is_bounded() {
        let mut reported = Reported::default();
        for number in 0..10_000 {
            reported.on_report(format!("p{number}\0x\0").as_bytes(), true);
        }
        assert!(reported.parameters.len() == MOST && reported.has_changed());
    }
}
