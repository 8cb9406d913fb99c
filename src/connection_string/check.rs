//! Whether a host or a database name may hold a part of a password: then nothing may show it.
//!
//! `postgres://app:p@ssword@db/orders` is read as the host `ssword@db`, by libpq and by the driver alike.

use tokio_postgres::config::Host;

use super::ConnectionString;
use super::text::ENCODE;
use crate::error::ConfigError;

impl ConnectionString {
    /// Refuses what may hold a part of a password, and does not quote it.
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

/// Whether this can be a host's name or address. An IPv6 address may have a zone: `fe80::1%eth0`.
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
