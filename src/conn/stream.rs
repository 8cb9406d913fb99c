//! The driver's stream, connected with or without TLS, which the [`Wire`] observes.

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
use super::wire::{ProtocolTracker, Wire};
use crate::clock::now;

/// After a rest this long, the pool looks for unread bytes before it writes.
const REST: Duration = Duration::from_millis(1);
/// The type of a Terminate. It is never held back: nothing is lost with it, and the driver reads no more after it.
const GOODBYE: u8 = b'X';
/// How often a write is held back. A runtime polls less often than that between two looks at its sockets.
const MOST_LOOKS: u8 = 200;

/// A connected stream.
pub(crate) struct Stream {
    inner: Box<dyn TlsStream + Send + Unpin>,
    is_tls: bool,
    tracker: ProtocolTracker,
    peek: Peek,
    rest: Rest,
    /// When the request was written whose answer is due. Only during start-up.
    asked: Option<Instant>,
}

/// Whether anything is under way.
enum Rest {
    Busy,
    Since(Instant),
    /// The rest is over as soon as a look finds nothing unread, or after [`MOST_LOOKS`]. (A driver that sends Terminate
    /// right after its last requests reads no more.)
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
        Self { inner, is_tls, tracker: ProtocolTracker::default(), peek, rest: Rest::Busy, asked: None }
    }

    /// Returns whether a write has to wait until the driver has read what lies unread.
    fn hold_back(&mut self, cx: &Context<'_>) -> bool {
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
        // When it is polled again, the driver reads before it writes.
        cx.waker().wake_by_ref();
        true
    }

    /// Reads until the server has closed the stream. The server does so when its process for this session has ended:
    /// then it counts the session no more, and a database that the session used can be dropped.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut bytes = [0; 512];
            let mut rest = ReadBuf::new(&mut bytes);
            let read = task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut rest));
            if read.is_err() || rest.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The observer of this stream.
    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(self.tracker.wire())
    }

    /// Does the start-up and the authentication, up to the server's first ReadyForQuery.
    ///
    /// The TLS handshake is done already. The driver is configured to make it all the same, because otherwise it does
    /// not bind SCRAM to the channel.
    pub(super) async fn start_up(self, mut config: Config) -> Result<(Client, Connection<Self, Self>), Error> {
        if self.is_tls {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            config.ssl_mode(SslMode::Disable);
        }
        config.connect_raw(self, Finished).await
    }
}

/// Makes no handshake, because it is done already.
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
        self.tracker.before_read()?;
        let known = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => {
                if let Some(asked) = self.asked.take() {
                    self.tracker.wire().measure(asked.elapsed());
                }
                self.tracker.on_read(&buf.filled()[known..]);
            }
            Poll::Pending => {
                self.tracker.on_nothing_to_read();
                // During start-up the driver reads only after it has written.
                if matches!(self.rest, Rest::Busy) && self.tracker.is_started() && self.tracker.wire().is_quiet() {
                    self.rest = Rest::Since(now());
                }
            }
        }
        read
    }
}

/// Writes are not vectored, because the driver writes from one buffer.
impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.first() != Some(&GOODBYE) && self.hold_back(cx) {
            self.tracker.on_write_postponed();
            return Poll::Pending;
        }
        self.tracker.before_write()?;
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        match &written {
            Poll::Ready(Ok(count)) => {
                if !self.tracker.is_started() {
                    self.asked = Some(Instant::now());
                }
                self.tracker.on_written(&buf[..*count]);
            }
            Poll::Ready(Err(_)) => {} // some of the bytes may have been written
            Poll::Pending => self.tracker.on_write_pending(),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tracker.before_flush()?;
        task::ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.tracker.on_flushed();
        Poll::Ready(Ok(()))
    }

    /// The driver calls it after it has sent Terminate.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tracker.before_flush()?;
        if self.tracker.wire().is_followed() {
            return self.poll_end(cx).map(Ok);
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Returns a stream that has rested with nothing to read, and the server's end of it.
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
    async fn after_a_rest_a_request_waits_for_a_look_and_terminate_does_not() {
        let (mut stream, _server) = rested(true).await;
        assert!(writes_at_once(&mut stream, b"X\0\0\0\x04").await);
        let (mut stream, _server) = rested(true).await;
        assert!(!writes_at_once(&mut stream, b"S\0\0\0\x04").await);
    }

    /// What the server sends after Terminate is of no interest, and neither is how it ends the stream.
    #[tokio::test]
    async fn a_stream_that_is_followed_ends_when_the_server_ends_it() {
        let (mut stream, server) = rested(true).await;
        stream.shutdown().await.unwrap();
        drop(server);
        let (mut stream, mut server) = rested(true).await;
        stream.wire().follow_to_end();
        let mut ends = pin!(stream.shutdown());
        assert!((&mut ends).now_or_never().is_none());
        server.write_all(&[b'N'; 2_000]).await.unwrap();
        assert!(timeout(50 * REST, &mut ends).await.is_err(), "the server has not closed the stream");
        drop(server);
        ends.await.unwrap();
    }

    /// During start-up the driver does not read before it has written, so it would never look.
    #[tokio::test]
    async fn nothing_is_held_back_at_start_up() {
        let (mut stream, _server) = rested(false).await;
        assert!(writes_at_once(&mut stream, b"p\0\0\0\x08abc\0").await);
    }
}
