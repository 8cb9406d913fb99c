//! The parameters of a session for which the pool asks when the session begins: the encoding, the application name, and
//! those in the options of the connection string.
//!
//! All other parameters are the server's affair: their values change when its configuration is reloaded.

/// The driver asks for these in each session.
const ALWAYS: [&str; 2] = ["application_name", "client_encoding"];

/// What one session was begun with.
#[derive(Debug)]
pub(super) struct AskedFor {
    /// The names in the options.
    names: Vec<String>,
}

impl AskedFor {
    /// Reads startup options such as `-c TimeZone=UTC --search-path=orders`.
    pub(super) fn of(options: &str) -> Self {
        let names = options.split_ascii_whitespace().filter_map(|word| word.split_once('=')).map(|(name, _)| {
            let name = name.strip_prefix("--").or_else(|| name.strip_prefix("-c")).unwrap_or(name);
            name.replace('-', "_").to_ascii_lowercase()
        });
        Self { names: names.collect() }
    }

    /// Returns whether the pool has asked for a value of this parameter.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        ALWAYS.contains(&name.as_str()) || self.names.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_every_form_that_the_server_takes() {
        let asked_for = AskedFor::of("-c TimeZone=Asia/Tokyo -cDateStyle=German,\\ DMY --search-path=a  -c log_x=y");
        for name in ["TimeZone", "DateStyle", "search_path", "application_name", "client_encoding"] {
            assert!(asked_for.has(name), "{name}");
        }
        for name in ["IntervalStyle", "log_timezone", "x", "DMY", "is_superuser"] {
            assert!(!asked_for.has(name), "{name}");
        }
    }
}
