//! The hosts of the connection string, in the order in which a dial tries them.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

/// One host of the connection string.
pub(crate) struct Target<'a> {
    pub(crate) host: Option<&'a Host>,
    /// The `hostaddr` of the connection string. A dial does not look the name up if it is given.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

/// Returns the hosts in the order in which a dial tries them. `build()` makes sure that there is one.
pub(crate) fn targets(config: &Config) -> Vec<Target<'_>> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let mut targets: Vec<_> = (0..hosts.len().max(addresses.len()))
        .map(|index| Target {
            host: hosts.get(index),
            address: addresses.get(index).copied(),
            port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
        })
        .collect();
    in_order_of(config, &mut targets);
    targets
}

/// Shuffles hosts, or the addresses of a host, if the connection string has `load_balance_hosts=random`.
pub(crate) fn in_order_of<T>(config: &Config, places: &mut [T]) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(places);
    }
}

impl Target<'_> {
    /// The name that the server's certificate must have: the host's name, or its address if it has no name.
    pub(crate) fn certified_name(&self) -> Cow<'_, str> {
        match (self.host, self.address) {
            (Some(Host::Tcp(host)), _) => host.into(),
            (_, Some(address)) => address.to_string().into(),
            _ => "".into(),
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.address) {
            #[cfg(unix)]
            (Some(Host::Unix(directory)), _) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
            (Some(Host::Tcp(host)), _) => write!(f, "{host}:{}", self.port),
            (None, Some(address)) => write!(f, "{}", SocketAddr::new(address, self.port)),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(settings: &str) -> Vec<(String, String)> {
        let config = settings.parse().unwrap();
        let names = |target: &Target<'_>| (target.to_string(), target.certified_name().into_owned());
        targets(&config).iter().map(names).collect()
    }

    fn pair(shown: &str, certified: &str) -> (String, String) {
        (shown.to_owned(), certified.to_owned())
    }

    #[test]
    fn each_host_has_its_own_port() {
        assert_eq!(names("host=a,b port=1,2"), [pair("a:1", "a"), pair("b:2", "b")]);
        assert_eq!(names("host=a,b port=7"), [pair("a:7", "a"), pair("b:7", "b")]);
        assert_eq!(names("host=a"), [pair("a:5432", "a")]);
    }

    #[test]
    fn a_certificate_is_for_the_name_and_not_for_the_address() {
        assert_eq!(names("host=a hostaddr=10.0.0.1"), [pair("a:5432", "a")]);
        assert_eq!(names("hostaddr=10.0.0.1"), [pair("10.0.0.1:5432", "10.0.0.1")]);
        assert_eq!(names("hostaddr=::1"), [pair("[::1]:5432", "::1")]);
    }

    #[cfg(unix)]
    #[test]
    fn a_host_that_is_a_folder_is_a_unix_socket() {
        assert_eq!(names("host=/run/pg port=6000"), [pair("/run/pg/.s.PGSQL.6000", "")]);
    }
}
