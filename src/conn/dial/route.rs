//! The way to one server: its address, and how the stream to it is secured.
//!
//! A dial uses it first. A cancel uses the very same route again, because a name may lead elsewhere by then.

use std::sync::Arc;

use tokio_postgres::Config;

use super::progress::DialProgress;
use super::secure::Connector;
use super::socket::{Place, Socket};
use crate::conn::stream::Stream;
use crate::error::ConnectError;

#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) place: Place,
    /// The server's name in errors.
    pub(crate) name: Arc<str>,
    /// The name that the server's certificate must have.
    pub(crate) certified_name: Arc<str>,
    pub(crate) config: Arc<Config>,
    pub(crate) connector: Connector,
}

impl Route {
    /// Opens a socket and secures it.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectError> {
        let socket = Socket::open(&self.place, &self.config).await;
        let socket = socket.map_err(|error| ConnectError::io(&self.name, error))?;
        self.secure(socket, &mut DialProgress::unwatched()).await
    }

    /// Negotiates TLS on an open socket, if the configuration asks for TLS.
    pub(crate) async fn secure(&self, socket: Socket, progress: &mut DialProgress<'_>) -> Result<Stream, ConnectError> {
        match self.place {
            Place::Tcp(_) => {
                let secured = self.connector.secure(socket, &self.certified_name, &self.config, progress).await;
                secured.map_err(|error| ConnectError::tls(&self.name, error))
            }
            #[cfg(unix)]
            Place::Unix(_) => Ok(Stream::plain(socket)),
        }
    }
}
