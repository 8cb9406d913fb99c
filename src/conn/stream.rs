//! What the driver reads and writes: a finished stream, with TLS or without, and with one who listens.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Config, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Connection, Error};

use super::dial::socket::Socket;
use super::wire::{Listener, Wire};

/// A finished stream.
pub(crate) struct Stream {
    inner: Box<dyn TlsStream + Send + Unpin>,
    is_tls: bool,
    listener: Listener,
}

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        Self { inner: Box::new(socket), is_tls: false, listener: Listener::default() }
    }

    pub(super) fn tls(stream: impl TlsStream + Send + Unpin + 'static) -> Self {
        Self { inner: Box::new(stream), is_tls: true, listener: Listener::default() }
    }

    /// Where to find what passes here.
    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(self.listener.wire())
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
        let known = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => self.listener.has_read(&buf.filled()[known..]),
            Poll::Pending => self.listener.found_nothing_to_read(),
        }
        read
    }
}

/// Not vectored: the driver writes from one buffer.
impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.listener.will_write()?;
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        match &written {
            Poll::Ready(Ok(count)) => self.listener.has_written(&buf[..*count]),
            Poll::Ready(Err(_)) => {} // nobody knows how far it got
            Poll::Pending => self.listener.could_not_write(),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.listener.will_flush()?;
        task::ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.listener.has_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.listener.will_flush()?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
