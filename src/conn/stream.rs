//! What the driver reads and writes: a finished stream, with TLS or without.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Config, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Connection, Error};

use super::socket::Socket;

/// A finished stream.
pub(super) struct Stream {
    inner: Box<dyn TlsStream + Send + Unpin>,
    is_tls: bool,
}

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        Self { inner: Box::new(socket), is_tls: false }
    }

    pub(super) fn tls(stream: impl TlsStream + Send + Unpin + 'static) -> Self {
        Self { inner: Box::new(stream), is_tls: true }
    }

    /// Start-up and authentication, up to the server's first ReadyForQuery.
    ///
    /// The driver believes that it makes the handshake itself, without asking the server: only so does it bind SCRAM to the channel.
    pub(super) async fn start_up(self, mut config: Config) -> Result<(Client, Connection<Self, Self>), Error> {
        if self.is_tls {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            config.ssl_mode(SslMode::Disable);
        }
        config.connect_raw(self, Finished).await
    }
}

/// Makes no handshake: it was made before.
struct Finished;

impl TlsConnect<Stream> for Finished {
    type Stream = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn connect(self, stream: Stream) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
