//! Checks the connection string. The pool applies each of its settings, or refuses it here by name; it ignores none.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};

use crate::connection_string::ConnectionString;
use crate::error::ConfigError;

/// Linux refuses a longer keepalive time. A dial would fail without saying why.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// The longest `tcp_user_timeout`: the kernel counts milliseconds in a signed `int`.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Refuses the first setting that cannot be used. `with_tls`: the pool has a TLS connector.
pub(super) fn check(place: &ConnectionString, with_tls: bool) -> Result<(), ConfigError> {
    let config = &place.driver;
    check_hosts(config)?;
    check_tls(place, with_tls)?;
    check_keepalives(config)?;
    check_user_timeout(config)
}

pub(crate) fn check_hosts(config: &Config) -> Result<(), ConfigError> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports().len());
    if hosts.is_empty() && addresses.is_empty() {
        return Err(ConfigError::new("host", "(none)", "a host or a hostaddr is needed"));
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        let problem = "must be as many as there are hosts";
        return Err(ConfigError::new("hostaddr", addresses.len(), problem));
    }
    if hosts.contains(&Host::Tcp(String::new())) {
        return Err(ConfigError::new("host", "(empty)", "must be a name, an address or a folder"));
    }
    if !addresses.is_empty() && hosts.iter().any(is_socket) {
        let problem = "a host that is a Unix socket has no address";
        return Err(ConfigError::new("hostaddr", addresses.len(), problem));
    }
    if ports > 1 && ports != hosts.len().max(addresses.len()) {
        let problem = "must be one, or as many as there are hosts";
        return Err(ConfigError::new("port", ports, problem));
    }
    Ok(())
}

fn check_tls(place: &ConnectionString, with_tls: bool) -> Result<(), ConfigError> {
    const CONNECTOR: &str = "needs a TLS connector: build_tls() instead of build()";
    const REQUIRED: &str = "goes with sslmode=require, verify-ca or verify-full only";
    let (config, mode) = (&place.driver, place.driver.get_ssl_mode());
    if let Some((setting, value)) = place.tls.first_beyond_driver().filter(|_| !with_tls) {
        return Err(ConfigError::new(setting, value, CONNECTOR));
    }
    if mode == SslMode::Require {
        if !with_tls {
            return Err(ConfigError::new("sslmode", "require", CONNECTOR));
        }
        if config.get_hosts().iter().any(is_socket) {
            return Err(ConfigError::new("sslmode", place.tls.mode(), "a Unix socket has no TLS"));
        }
    } else if config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(ConfigError::new("sslnegotiation", "direct", REQUIRED));
    }
    if config.get_channel_binding() == ChannelBinding::Require {
        if !with_tls {
            return Err(ConfigError::new("channel_binding", "require", CONNECTOR));
        }
        if mode != SslMode::Require {
            return Err(ConfigError::new("channel_binding", "require", REQUIRED));
        }
    }
    Ok(())
}

fn check_keepalives(config: &Config) -> Result<(), ConfigError> {
    if !config.get_keepalives() {
        return Ok(());
    }
    for (setting, value) in [
        ("keepalives_idle", Some(config.get_keepalives_idle())),
        ("keepalives_interval", config.get_keepalives_interval()),
    ] {
        if let Some(value) = value.filter(|value| value.as_secs() == 0 || *value > LONGEST_KEEPALIVE) {
            let problem = "must be 1 s to 32767 s";
            return Err(ConfigError::new(setting, format!("{value:?}"), problem));
        }
    }
    match config.get_keepalives_retries() {
        Some(retries) if !(1..=127).contains(&retries) => {
            Err(ConfigError::new("keepalives_retries", retries, "must be 1 to 127"))
        }
        _ => Ok(()),
    }
}

fn check_user_timeout(config: &Config) -> Result<(), ConfigError> {
    let Some(timeout) = config.get_tcp_user_timeout() else {
        return Ok(());
    };
    let problem = if cfg!(not(target_os = "linux")) {
        "only Linux has it"
    } else if *timeout > LONGEST_USER_TIMEOUT {
        "must be less than 2^31 ms"
    } else {
        return Ok(());
    };
    Err(ConfigError::new("tcp_user_timeout", format!("{timeout:?}"), problem))
}

fn is_socket(host: &Host) -> bool {
    !matches!(host, Host::Tcp(_))
}
