//! Connection strings: their forms and their meaning as in libpq, and which options the pool takes.
//!
//! Nothing shows a host or a database name that may hold a part of a password. For example, libpq and the driver read
//! `postgres://app:p@ssword@db/orders` as the host `ssword@db`.

mod options;
mod text;
mod tls;

use std::fmt;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use self::text::ENCODE;
pub(crate) use self::tls::TlsOptions;
#[cfg(any(feature = "native-tls", feature = "rustls"))]
pub(crate) use self::tls::{ClientCertificate, Root};
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
    /// Whether this module parsed the text. The text of a driver's `Config` is unknown.
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

/// Shows no password, and no host that may hold a part of one.
impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.check() {
            Ok(()) => f.debug_struct("ConnectionString").field("driver", &self.driver).field("tls", &self.tls).finish(),
            Err(problem) => write!(f, "ConnectionString({problem})"),
        }
    }
}

impl ConnectionString {
    /// Refuses a host or a database name that may hold a part of a password, without quoting it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let is_name = |host: &Host| match host {
            Host::Tcp(name) => is_host(name),
            #[cfg(unix)]
            Host::Unix(_) => true,
        };
        if !self.driver.get_hosts().iter().all(is_name) {
            let problem = format!(
                "must be a name, an address or a folder; its text is not shown, because it may hold a \
                                   part of a password: {ENCODE}"
            );
            return Err(ConfigError::without_value("host", problem));
        }
        if !self.is_parsed_here && self.driver.get_dbname().is_some_and(|name| name.contains('@')) {
            let problem = format!(
                "must not contain an @; its text is not shown, because it may hold a part of a \
                                   password: {ENCODE}, and use Pool::builder_by_url for a database with such a name"
            );
            return Err(ConfigError::without_value("dbname", problem));
        }
        Ok(())
    }
}

/// Returns whether the text can be a host's name or address. An IPv6 address may have a zone: `fe80::1%eth0`.
fn is_host(name: &str) -> bool {
    match name.split_once('%') {
        Some((address, zone)) => is_address(address) && is_label(zone),
        None => is_label(name) || is_address(name),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_label(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "-._".contains(c))
}

#[cfg(test)]
mod tests;
