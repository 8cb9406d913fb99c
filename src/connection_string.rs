//! Connection strings: the forms and the meaning that libpq gives them, and which options the pool takes.

mod check;
mod options;
#[cfg(any(feature = "native-tls", feature = "rustls"))]
mod ready;
mod text;
mod tls;

use std::fmt;
use std::str::FromStr;

use tokio_postgres::Config;

#[cfg(any(feature = "native-tls", feature = "rustls"))]
pub(crate) use self::ready::Identity;
#[cfg(any(feature = "native-tls", feature = "rustls"))]
pub(crate) use self::tls::Root;
pub(crate) use self::tls::TlsOptions;
use crate::error::ConfigError;

/// Where a database is and how to connect: a URL or `key=value` pairs, as libpq reads both.
///
/// Parse one with [`str::parse`], or give the text to [`Pool::builder_by_url`](crate::Pool::builder_by_url). Beyond the
/// driver's [`Config`] it knows libpq's options for TLS: `sslmode=verify-ca` and `verify-full`, `sslrootcert`,
/// `sslcert` and `sslkey`. The ready connectors in the module `tls` follow them.
///
/// # Errors
///
/// Parsing fails with a [`ConfigError`] that names the option and the values that work. The error shows neither a
/// password nor a part of the text that may belong to one.
#[derive(Clone, PartialEq)]
pub struct ConnectionString {
    pub(crate) driver: Config,
    pub(crate) tls: TlsOptions,
    /// Whether the text was parsed here. Of a `Config` it is unknown what it was parsed from.
    is_parsed_here: bool,
}

impl FromStr for ConnectionString {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let options = text::parse(text)?;
        let (driver, tls) = options::read(options)?;
        let parsed = Self { driver, tls, is_parsed_here: true };
        parsed.check()?;
        Ok(parsed)
    }
}

impl From<Config> for ConnectionString {
    fn from(driver: Config) -> Self {
        Self { driver, tls: TlsOptions::default(), is_parsed_here: false }
    }
}

/// Without the password. Without the hosts as well, if they may hold a part of it.
impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.check() {
            Ok(()) => f.debug_struct("ConnectionString").field("driver", &self.driver).field("tls", &self.tls).finish(),
            Err(problem) => write!(f, "ConnectionString({problem})"),
        }
    }
}

#[cfg(test)]
mod tests;
