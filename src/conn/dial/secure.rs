//! TLS: asks the server for it, and runs the caller's connector.
//!
//! The pool sends the SSLRequest itself instead of leaving that to the driver. So the pool need not be generic over the
//! connector, the error for a server without TLS says so, and the driver always gets a finished stream.

use std::any::TypeId;
use std::error::Error as StdError;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;
use tokio_postgres::config::{Config, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::progress::DialProgress;
use super::socket::Socket;
use crate::conn::stream::Stream;
use crate::error::Stage;

/// Length and code of an SSLRequest. The server answers it with `S` or `N`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

type BoxError = Box<dyn StdError + Send + Sync>;
type Handshake = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

/// The caller's TLS connector, if there is one.
#[derive(Clone)]
pub(crate) struct Connector(Option<Arc<dyn Connect>>);

trait Connect: Send + Sync {
    fn handshake(&self, socket: Socket, host: &str) -> Handshake;
}

struct Erased<T>(T);

impl<T> Connect for Erased<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn handshake(&self, socket: Socket, host: &str) -> Handshake {
        match self.0.clone().make_tls_connect(host) {
            Ok(connect) => {
                let peek = socket.peek();
                let handshake = connect.connect(socket);
                Box::pin(async move {
                    let secured = handshake.await.map_err(Into::into)?;
                    Ok(Stream::tls(secured, peek))
                })
            }
            Err(error) => Box::pin(ready(Err(error.into()))),
        }
    }
}

impl Connector {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// `NoTls` counts as no connector: the pool does not even ask a server for TLS.
    pub(crate) fn new<T>(tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        if TypeId::of::<T>() == TypeId::of::<NoTls>() {
            return Self::none();
        }
        Self(Some(Arc::new(Erased(tls))))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Asks the server for TLS, and makes the handshake. The certificate must be for `host`.
    pub(crate) async fn secure(
        &self,
        mut socket: Socket,
        host: &str,
        config: &Config,
        progress: &mut DialProgress<'_>,
    ) -> Result<Stream, BoxError> {
        let mode = config.get_ssl_mode();
        let connector = match &self.0 {
            Some(connector) if mode != SslMode::Disable => connector,
            _ => return Ok(Stream::plain(socket)),
        };
        if config.get_ssl_negotiation() == SslNegotiation::Postgres {
            let answer = progress.server(async {
                socket.write_all(&SSL_REQUEST).await?;
                socket.read_u8().await
            });
            // Reads one byte and no more: bytes that an attacker sends along with it must not count as the server's
            // later.
            match (answer.await?, mode) {
                (b'S', _) => {}
                (b'N', SslMode::Require) => return Err("the server offers no TLS, and sslmode=require".into()),
                (b'N', _) => return Ok(Stream::plain(socket)),
                (b'E', _) => return Err("the server answered the request for TLS with an error".into()),
                _ => return Err("the answer to the request for TLS is not that of a PostgreSQL server".into()),
            }
        }
        progress.other(Stage::Handshake, connector.handshake(socket, host)).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "none" } else { "TLS" })
    }
}
