//! What the driver reads and writes: a finished stream, with TLS or without, and with one who listens.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Config, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Connection, Error};

use super::dial::socket::{Peek, Socket};
use super::wire::{Listener, Wire};
use crate::clock::now;

/// After so long a rest, what the server may have said meanwhile is looked for before anything is written.
const REST: Duration = Duration::from_millis(1);
/// What Terminate begins with. Nothing is lost with it, and whoever says it reads no more.
const GOODBYE: u8 = b'X';
/// More than a runtime makes polls between two looks at its sockets.
const MOST_LOOKS: u8 = 200;

/// A finished stream.
pub(crate) struct Stream {
    inner: Box<dyn TlsStream + Send + Unpin>,
    is_tls: bool,
    listener: Listener,
    peek: Peek,
    rest: Rest,
    /// In start-up: since when an answer is due.
    asked: Option<Instant>,
}

/// Whether anything is under way.
enum Rest {
    Busy,
    Since(Instant),
    /// It is over, as soon as nothing is found unread; or after so many looks, for a driver that says goodbye after its last requests reads no more.
    Ending(u8),
}

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        let peek = socket.peek();
        Self::of(Box::new(socket), false, peek)
    }

    /// `peek` is that of the socket below.
    pub(super) fn tls(stream: impl TlsStream + Send + Unpin + 'static, peek: Peek) -> Self {
        Self::of(Box::new(stream), true, peek)
    }

    fn of(inner: Box<dyn TlsStream + Send + Unpin>, is_tls: bool, peek: Peek) -> Self {
        Self { inner, is_tls, listener: Listener::default(), peek, rest: Rest::Busy, asked: None }
    }

    /// Whether a write has to wait until what lies unread has been read.
    fn holds_back(&mut self, cx: &Context<'_>) -> bool {
        let looks = match self.rest {
            Rest::Busy => return false,
            Rest::Since(rested) if now().saturating_duration_since(rested) >= REST => {
                self.peek.ask();
                0
            }
            Rest::Ending(looks) if looks < MOST_LOOKS && self.peek.is_asked() => looks + 1,
            Rest::Since(_) | Rest::Ending(_) => {
                self.rest = Rest::Busy;
                return false;
            }
        };
        self.rest = Rest::Ending(looks);
        // Polled again, the driver reads before it writes.
        cx.waker().wake_by_ref();
        true
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
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
        self.listener.before_read()?;
        let known = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => {
                if let Some(asked) = self.asked.take() {
                    self.listener.wire().measure(asked.elapsed());
                }
                self.listener.on_read(&buf.filled()[known..]);
            }
            Poll::Pending => {
                self.listener.on_nothing_to_read();
                // Who starts up reads only after it has written.
                if matches!(self.rest, Rest::Busy) && self.listener.is_started() && self.listener.wire().is_quiet() {
                    self.rest = Rest::Since(now());
                }
            }
        }
        read
    }
}

/// Not vectored: the driver writes from one buffer.
impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.first() != Some(&GOODBYE) && self.holds_back(cx) {
            self.listener.on_write_postponed();
            return Poll::Pending;
        }
        self.listener.before_write()?;
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        match &written {
            Poll::Ready(Ok(count)) => {
                if !self.listener.is_started() {
                    self.asked = Some(Instant::now());
                }
                self.listener.on_written(&buf[..*count]);
            }
            Poll::Ready(Err(_)) => {} // nobody knows how far it got
            Poll::Pending => self.listener.on_write_pending(),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.listener.before_flush()?;
        task::ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.listener.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.listener.before_flush()?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    /// A stream on which there was nothing to read, and then a rest; and the other end.
    async fn rested(is_started: bool) -> (Stream, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = Socket::tcp(listener.local_addr().unwrap(), &Config::new()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut stream = Stream::plain(socket);
        let ready = b"Z\0\0\0\x05I";
        if is_started {
            server.write_all(ready).await.unwrap();
        }
        let (mut buf, mut read) = ([0; 64], 0);
        let all = if is_started { ready.len() } else { 0 };
        poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut buf);
            while let Poll::Ready(result) = Pin::new(&mut stream).poll_read(cx, &mut buf) {
                result.unwrap();
            }
            read += buf.filled().len();
            if read == all { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        sleep(2 * REST).await;
        (stream, server)
    }

    async fn writes_at_once(stream: &mut Stream, message: &[u8]) -> bool {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, message).is_ready())).await
    }

    #[tokio::test]
    async fn a_request_waits_for_a_look_and_a_goodbye_does_not() {
        let (mut stream, _server) = rested(true).await;
        assert!(writes_at_once(&mut stream, b"X\0\0\0\x04").await);
        let (mut stream, _server) = rested(true).await;
        assert!(!writes_at_once(&mut stream, b"S\0\0\0\x04").await);
    }

    /// The driver does not read while it writes there: a look would never come.
    #[tokio::test]
    async fn nothing_is_held_back_at_start_up() {
        let (mut stream, _server) = rested(false).await;
        assert!(writes_at_once(&mut stream, b"p\0\0\0\x08abc\0").await);
    }
}
