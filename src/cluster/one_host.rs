//! Splits a connection string with several hosts into one connection string for each host.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use crate::builder::check_hosts;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;

/// One host, with everything else of the connection string.
pub(super) struct OneHost {
    /// Host and port.
    pub(super) label: Arc<str>,
    pub(super) place: ConnectionString,
}

pub(super) fn apart(place: &ConnectionString) -> Result<Vec<OneHost>, ConfigError> {
    let driver = &place.driver;
    check_hosts(driver)?;
    if driver.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
        let problem = "a cluster asks each host for its role: leave it out, and read with Freshness::Any";
        return Err(ConfigError::new("target_session_attrs", "read-only", problem));
    }
    let (hosts, addresses, ports) = (driver.get_hosts(), driver.get_hostaddrs(), driver.get_ports());
    let one = |index: usize| {
        let (host, address) = (hosts.get(index), addresses.get(index).copied());
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let mut place = place.clone();
        place.driver = with(driver, host, address, port);
        OneHost { label: label(host, address, port).into(), place }
    };
    Ok((0..hosts.len().max(addresses.len())).map(one).collect())
}

fn label(host: Option<&Host>, address: Option<IpAddr>, port: u16) -> String {
    match (host, address) {
        #[cfg(unix)]
        (Some(Host::Unix(folder)), _) => format!("{}/.s.PGSQL.{port}", folder.display()),
        // An address with colons is hard to tell from its port.
        (Some(Host::Tcp(host)), _) if host.contains(':') => format!("[{host}]:{port}"),
        (Some(Host::Tcp(host)), _) => format!("{host}:{port}"),
        (None, Some(address)) => std::net::SocketAddr::new(address, port).to_string(),
        (None, None) => "nowhere".to_owned(),
    }
}

/// Returns every option of the connection string, for one host. The driver cannot remove a host from a `Config`, so
/// this builds a new one.
fn with(all: &Config, host: Option<&Host>, address: Option<IpAddr>, port: u16) -> Config {
    let mut one = Config::new();
    match host {
        Some(Host::Tcp(host)) => _ = one.host(host),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => _ = one.host_path(folder),
        None => {}
    }
    if let Some(address) = address {
        one.hostaddr(address);
    }
    one.port(port);
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(name) = all.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = all.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    one.keepalives(all.get_keepalives()).keepalives_idle(all.get_keepalives_idle());
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.ssl_mode(all.get_ssl_mode()).ssl_negotiation(all.get_ssl_negotiation());
    one.channel_binding(all.get_channel_binding()).load_balance_hosts(all.get_load_balance_hosts());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart_of(text: &str) -> Vec<OneHost> {
        let config: Config = text.parse().unwrap();
        apart(&config.into()).unwrap()
    }

    #[test]
    fn each_host_keeps_its_port_and_everything_else() {
        let text = "host=a,b port=1,2 hostaddr=10.0.0.1,10.0.0.2 user=u password=p dbname=d options=-cjit=off \
                    application_name=n connect_timeout=3 tcp_user_timeout=4 keepalives=1 keepalives_idle=5 \
                    keepalives_interval=6 keepalives_retries=7 sslmode=require channel_binding=disable \
                    load_balance_hosts=random target_session_attrs=read-write";
        let hosts = apart_of(text);
        assert_eq!(hosts.iter().map(|host| &*host.label).collect::<Vec<_>>(), ["a:1", "b:2"]);
        let alone =
            text.replace("a,b", "b").replace("1,2", "2").replace("10.0.0.1,", "").replace("=read-write", "=any");
        assert_eq!(hosts[1].place.driver, alone.parse().unwrap(), "an option was lost");
    }

    #[test]
    fn an_address_with_colons_has_brackets() {
        let labels = |text: &str| apart_of(text).into_iter().map(|host| host.label.to_string()).collect::<Vec<_>>();
        assert_eq!(labels("host=::1,a port=5,6"), ["[::1]:5", "a:6"]);
        assert_eq!(labels("hostaddr=::1,127.0.0.1 port=5,6"), ["[::1]:5", "127.0.0.1:6"]);
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        for (text, setting) in [
            ("host=a,b,c port=1,2", "port"),
            ("host=a port=1,2", "port"),
            ("host=a,b,c hostaddr=10.0.0.1,10.0.0.2", "hostaddr"),
            ("host=a hostaddr=10.0.0.1,10.0.0.2", "hostaddr"),
        ] {
            let config: Config = text.parse().unwrap();
            let refusal = apart(&config.into()).err().map(|error| error.setting().to_owned());
            assert_eq!(refusal.as_deref(), Some(setting), "{text}");
        }
    }

    #[test]
    fn one_port_is_the_port_of_all_and_a_role_is_refused() {
        let labels: Vec<_> = apart_of("host=a,/run/pg port=7").into_iter().map(|host| host.label.to_string()).collect();
        assert_eq!(labels, ["a:7", "/run/pg/.s.PGSQL.7"]);
        let config: Config = "host=a target_session_attrs=read-only".parse().unwrap();
        assert!(apart(&config.into()).is_err());
    }
}
