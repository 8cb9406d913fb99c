//! The parameters of the session that the server reports: `TimeZone`, `application_name`, since version 18 `search_path`.
//!
//! A parameter that has the value again that the session began with is no change: a transaction takes back what `SET LOCAL` set.

/// So many parameters are kept apart. PostgreSQL reports about fifteen.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Reported {
    parameters: Vec<Parameter>,
    /// A server that reports more than can be kept: whatever it says is a change.
    is_lost: bool,
    has_changed: bool,
    /// How many times a parameter was reported that could not be kept.
    strangers: u64,
}

#[derive(Debug)]
struct Parameter {
    name: Vec<u8>,
    value: Vec<u8>,
    /// When the session began.
    first: Vec<u8>,
}

impl Reported {
    /// A ParameterStatus: name and value. Before start-up is over, the value is what the session begins with.
    pub(super) fn hear(&mut self, body: &[u8], is_started: bool) {
        let mut parts = body.split(|byte| *byte == 0);
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().to_vec());
        let has_room = self.parameters.len() < MOST;
        let known = self.parameters.iter_mut().find(|parameter| parameter.name == name);
        match known {
            Some(parameter) if is_started => parameter.value = value,
            Some(parameter) => (parameter.first, parameter.value) = (value.clone(), value),
            None if has_room => {
                let first = if is_started { Vec::new() } else { value.clone() };
                self.parameters.push(Parameter { name: name.to_vec(), value, first });
            }
            None => {
                self.is_lost = true;
                self.strangers += 1;
            }
        }
        self.has_changed = self.is_lost || self.parameters.iter().any(|parameter| parameter.value != parameter.first);
    }

    /// The session begins anew, with what the parameters are now.
    pub(super) fn begin(&mut self) {
        (self.is_lost, self.has_changed) = (false, false);
        for parameter in &mut self.parameters {
            parameter.first.clone_from(&parameter.value);
        }
    }

    /// How many times a parameter was reported that could not be kept.
    pub(super) fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Whether any is not what it was when the session began.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_comes_back_is_no_change() {
        let mut reported = Reported::default();
        reported.hear(b"TimeZone\0UTC\0", false);
        reported.hear(b"TimeZone\0Asia/Tokyo\0", true);
        assert!(reported.has_changed());
        reported.hear(b"TimeZone\0UTC\0", true);
        assert!(!reported.has_changed());
    }

    #[test]
    fn a_new_session_begins_with_what_there_is() {
        let mut reported = Reported::default();
        reported.hear(b"a\0b\0", true);
        assert!(reported.has_changed(), "nobody knows what it was");
        reported.begin();
        assert!(!reported.has_changed());
    }

    #[test]
    fn a_server_that_reports_without_end_is_bounded() {
        let mut reported = Reported::default();
        for number in 0..10_000 {
            reported.hear(format!("p{number}\0x\0").as_bytes(), true);
        }
        assert!(reported.parameters.len() == MOST && reported.has_changed());
    }
}
