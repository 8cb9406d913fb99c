//! Settings from environment variables.

use std::ffi::OsString;

use super::{Settings, keys};
use crate::error::ConfigError;

impl Settings {
    /// Reads settings from environment variables. The name of a variable is the prefix, `_`, and the key in capitals,
    /// with `__` for each dot.
    ///
    /// `from_env("ORDERS_DB")` reads `ORDERS_DB_URL`, `ORDERS_DB_MAX_SIZE=20`, `ORDERS_DB_BREAKER__RESET_TIMEOUT=30s`,
    /// `ORDERS_DB_BREAKER__SLOW_CALL__PERCENTAGE=80` and so on. No other variable may begin with
    /// `ORDERS_DB_`. The name of an operation is taken in lower case: `ORDERS_DB_RATE_OF__REPORT__CALLS=10`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a variable with this prefix that is no setting, or whose value is not of its kind.
    pub fn from_env(prefix: &str) -> Result<Self, ConfigError> {
        read(prefix, std::env::vars_os())
    }

    /// As [`from_env`](Self::from_env), from any source of variables, such as a `.env` file.
    ///
    /// # Errors
    ///
    /// The errors of [`from_env`](Self::from_env).
    pub fn from_vars(prefix: &str, vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        read(prefix, vars.into_iter().map(|(name, value)| (name.into(), value.into())))
    }
}

pub(super) fn read(
    prefix: &str,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, ConfigError> {
    let prefix = prefix.trim_end_matches('_');
    if prefix.is_empty() {
        return Err(ConfigError::new(
            "prefix",
            "",
            "must not be empty: all variables of the process would be settings",
        ));
    }
    let prefix = format!("{prefix}_");
    let mut settings = Settings::default();
    for (name, value) in vars {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::without_value(&name, "must be UTF-8"));
        };
        let about = rest.to_lowercase().replace("__", ".");
        match keys::keys(&about).into_iter().find(|key| variable(key) == rest) {
            Some(key) => settings.read(&key, &name, &value)?,
            None => {
                let nearest = keys::nearest(&about);
                let nearest =
                    nearest.filter(|key| !keys::is_table(key)).map(|key| format!("{prefix}{}", variable(&key)));
                return Err(ConfigError::unknown(&name, nearest));
            }
        }
    }
    Ok(settings)
}

/// The name of the variable for a key, without the prefix.
fn variable(key: &str) -> String {
    key.to_uppercase().replace('.', "__")
}
