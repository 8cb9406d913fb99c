//! The way to one server: its address, and how the stream to it is secured. A dial goes it first; a cancel goes the very same again,
//! because a name may lead elsewhere by then.

use std::sync::Arc;

use tokio_postgres::Config;

use super::clock::DialClock;
use super::secure::Connector;
use super::socket::{Place, Socket};
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

impl Route {
    /// A finished stream.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectError> {
        let socket = Socket::open(&self.place, &self.config).await;
        let socket = socket.map_err(|error| ConnectError::io(&self.name, error))?;
        self.secure(socket, &mut DialClock::unwatched()).await
    }

    /// The same, on a socket that is open already.
    pub(crate) async fn secure(&self, socket: Socket, clock: &mut DialClock<'_>) -> Result<Stream, ConnectError> {
        match self.place {
            Place::Tcp(_) => {
                let secured = self.connector.secure(socket, &self.certified_name, &self.config, clock).await;
                secured.map_err(|error| ConnectError::tls(&self.name, error))
            }
            #[cfg(unix)]
            Place::Unix(_) => Ok(Stream::plain(socket)),
        }
    }
}
