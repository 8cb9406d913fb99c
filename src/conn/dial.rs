//! Makes one connection: names looked up anew, hosts tried in order, everything under one deadline.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use tokio::net::lookup_host;
use tokio::sync::oneshot;
use tokio::time;
use tokio_postgres::config::{Host, LoadBalanceHosts};
use tokio_postgres::{Config, Connection, NoTls};

use super::factory::Factory;
use super::{Conn, socket, socket::BoxedIo};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::slots::Dial;

/// A connection task that has not ended this long after its client is gone is cut off.
const LONGEST_GOODBYE: Duration = Duration::from_secs(1);

/// Where to connect to, and how.
pub(crate) struct Dialer {
    config: Config,
    connect_timeout: Duration,
    factory: Factory,
}

/// One place where a server may be.
struct Target<'a> {
    host: Option<&'a Host>,
    address: Option<std::net::IpAddr>,
    port: u16,
}

impl Dialer {
    pub(crate) fn new(config: Config, connect_timeout: Duration) -> Self {
        let factory = Factory::new(config.clone());
        Self {
            config,
            connect_timeout,
            factory,
        }
    }

    async fn dial_any(&self) -> Result<Box<Conn>, ConnectError> {
        let mut last = ConnectError::abandoned();
        for target in self.targets() {
            match self.dial_host(&target).await {
                Ok(conn) => return Ok(conn),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_host(&self, target: &Target<'_>) -> Result<Box<Conn>, ConnectError> {
        let name = target.to_string();
        let host = match (target.address, target.host) {
            (Some(address), _) => return self.dial_address(SocketAddr::new(address, target.port), &name).await,
            #[cfg(unix)]
            (None, Some(Host::Unix(directory))) => {
                let path = directory.join(format!(".s.PGSQL.{}", target.port));
                let stream = socket::unix(&path, &self.config)
                    .await
                    .map_err(|e| ConnectError::io(&name, e))?;
                return self.begin_session(stream, &name).await;
            }
            (None, Some(Host::Tcp(host))) => host.as_str(),
            (None, None) => unreachable!("build() wants a host or an address"),
        };
        let found = lookup_host((host, target.port))
            .await
            .map_err(|e| ConnectError::resolve(&name, e))?;
        let mut addresses: Vec<_> = found.collect();
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut addresses);
        }
        let mut last = ConnectError::resolve(&name, io::Error::other("the name has no address"));
        for address in addresses {
            match self.dial_address(address, &name).await {
                Ok(conn) => return Ok(conn),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_address(&self, address: SocketAddr, name: &str) -> Result<Box<Conn>, ConnectError> {
        let stream = socket::tcp(address, &self.config)
            .await
            .map_err(|e| ConnectError::io(name, e))?;
        self.begin_session(stream, name).await
    }

    /// Start-up and authentication, up to the server's first ReadyForQuery.
    async fn begin_session(&self, stream: BoxedIo, name: &str) -> Result<Box<Conn>, ConnectError> {
        let (client, connection) = self
            .config
            .connect_raw(stream, NoTls)
            .await
            .map_err(|e| ConnectError::handshake(name, e))?;
        let (alive, gone) = oneshot::channel();
        let task = tokio::spawn(drive(connection, gone));
        let object =
            self.factory.wrap(client).await.ok_or_else(|| {
                ConnectError::io(name, io::Error::other("the deadpool pool behind this one was closed"))
            })?;
        let statements = Arc::clone(&object.statement_cache);
        Ok(Box::new(Conn {
            object: Some(object),
            statements,
            task,
            alive: Some(alive),
        }))
    }

    /// In the order in which they are to be tried.
    fn targets(&self) -> Vec<Target<'_>> {
        let (hosts, addresses, ports) = (
            self.config.get_hosts(),
            self.config.get_hostaddrs(),
            self.config.get_ports(),
        );
        let mut targets: Vec<_> = (0..hosts.len().max(addresses.len()))
            .map(|index| Target {
                host: hosts.get(index),
                address: addresses.get(index).copied(),
                port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
            })
            .collect();
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut targets);
        }
        targets
    }
}

/// Moves bytes until the connection ends, or until its client has been gone for a second.
async fn drive<S>(connection: Connection<BoxedIo, S>, gone: oneshot::Receiver<()>)
where
    Connection<BoxedIo, S>: Future<Output = Result<(), tokio_postgres::Error>>,
{
    let cut_off = async {
        match gone.await {
            Ok(()) => pending().await, // detached: it is its owner's affair
            Err(_) => time::sleep(LONGEST_GOODBYE).await,
        }
    };
    select(pin!(connection), pin!(cut_off)).await;
}

impl Dial for Dialer {
    type Conn = Box<Conn>;
    type Error = ConnectError;

    async fn dial(&self) -> Result<Box<Conn>, ConnectError> {
        time::timeout(self.connect_timeout, self.dial_any())
            .await
            .unwrap_or_else(|_| {
                let targets: Vec<_> = self.targets().iter().map(Target::to_string).collect();
                Err(ConnectError::new(
                    ConnectErrorKind::Timeout(self.connect_timeout),
                    targets.join(", "),
                ))
            })
    }

    fn abandoned() -> ConnectError {
        ConnectError::abandoned()
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.address) {
            #[cfg(unix)]
            (Some(Host::Unix(directory)), None) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
            (Some(Host::Tcp(host)), _) => write!(f, "{host}:{}", self.port),
            (_, Some(address)) => write!(f, "{}", SocketAddr::new(address, self.port)),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("config", &self.config)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}
