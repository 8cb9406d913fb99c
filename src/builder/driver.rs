//! What the connection string asks for is done, or refused by name here; nothing is silently ignored.

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};

use crate::error::ConfigError;

/// `with_tls`: whether the pool is being given a connector.
pub(super) fn check(config: &Config, with_tls: bool) -> Result<(), ConfigError> {
    check_hosts(config)?;
    check_tls(config, with_tls)?;
    if cfg!(not(target_os = "linux")) && config.get_tcp_user_timeout().is_some() {
        let value = config.get_tcp_user_timeout().map_or(0, std::time::Duration::as_secs);
        return Err(ConfigError::new("tcp_user_timeout", value, "only Linux has it"));
    }
    Ok(())
}

fn check_hosts(config: &Config) -> Result<(), ConfigError> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports().len());
    if hosts.is_empty() && addresses.is_empty() {
        return Err(ConfigError::new("host", "(none)", "a host or a hostaddr is needed"));
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        let problem = "must be as many as there are hosts";
        return Err(ConfigError::new("hostaddr", addresses.len(), problem));
    }
    if hosts.contains(&Host::Tcp(String::new())) {
        return Err(ConfigError::new(
            "host",
            "(empty)",
            "must be a name, an address or a folder",
        ));
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

fn check_tls(config: &Config, with_tls: bool) -> Result<(), ConfigError> {
    const CONNECTOR: &str = "needs a TLS connector: build_tls() instead of build()";
    let mode = config.get_ssl_mode();
    if mode == SslMode::Require {
        if !with_tls {
            return Err(ConfigError::new("sslmode", "require", CONNECTOR));
        }
        if config.get_hosts().iter().any(is_socket) {
            return Err(ConfigError::new("sslmode", "require", "a Unix socket has no TLS"));
        }
    } else if config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(ConfigError::new(
            "sslnegotiation",
            "direct",
            "goes with sslmode=require only",
        ));
    }
    if config.get_channel_binding() == ChannelBinding::Require {
        if !with_tls {
            return Err(ConfigError::new("channel_binding", "require", CONNECTOR));
        }
        if mode != SslMode::Require {
            return Err(ConfigError::new(
                "channel_binding",
                "require",
                "goes with sslmode=require only",
            ));
        }
    }
    Ok(())
}

fn is_socket(host: &Host) -> bool {
    !matches!(host, Host::Tcp(_))
}
