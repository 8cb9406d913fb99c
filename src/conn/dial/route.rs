//! The way to one server: its address, and how the stream to it is secured. A dial goes it first; a cancel goes the very same again,
//! because a name may lead elsewhere by then.

use std::fmt;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tokio_postgres::Config;

use super::clock::DialClock;
use super::secure::Connector;
use super::socket::Socket;
use crate::conn::stream::Stream;
use crate::error::ConnectError;

#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) place: Place,
    /// What errors call the server.
    pub(crate) name: Arc<str>,
    /// What its certificate must be for.
    pub(crate) certified_name: Arc<str>,
    pub(crate) config: Arc<Config>,
    pub(crate) connector: Connector,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Route {
    /// A finished stream. `patience` bounds the TCP connect alone.
    pub(crate) async fn open(
        &self,
        patience: Option<Duration>,
        clock: &mut DialClock<'_>,
    ) -> Result<Stream, ConnectError> {
        let connect = async {
            match &self.place {
                Place::Tcp(address) => Socket::tcp(*address, &self.config).await,
                #[cfg(unix)]
                Place::Unix(path) => Socket::unix(path, &self.config).await,
            }
        };
        let in_time = async {
            match patience {
                Some(patience) => {
                    time::timeout(patience, connect).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                }
                None => connect.await,
            }
        };
        let socket = clock.server(in_time).await.map_err(|error| ConnectError::io(&self.name, error))?;
        let is_remote = matches!(self.place, Place::Tcp(_));
        if !is_remote {
            return Ok(Stream::plain(socket));
        }
        let secured = self.connector.secure(socket, &self.certified_name, &self.config, clock).await;
        secured.map_err(|error| ConnectError::tls(&self.name, error))
    }
}
