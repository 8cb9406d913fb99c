//! Sockets: TCP, with the options that detect a dead peer, or Unix.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time;
use tokio_postgres::Config;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A question to the socket: is anything unread, before the first write on a connection that has rested?
///
/// A server that ends a session announces it, and the runtime may not have read that yet. A write would then be lost,
/// and its caller would have to assume that it was applied. If the pool sees the announcement first, it does not write.
///
/// The driver reads before it writes. So the stream asks before a write, and the socket, below TLS, answers when it
/// finds nothing to read. Both run in one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peek(Arc<AtomicBool>);

impl Peek {
    pub(crate) fn ask(&self) {
        self.0.store(true, Relaxed);
    }

    /// Returns whether the question is open: the socket has not yet found nothing.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// The socket has nothing unread.
    pub(crate) fn on_nothing(&self) {
        self.0.store(false, Relaxed);
    }
}

/// The byte stream to a server, as a TLS connector gets it from
/// [`PoolBuilder::build_tls`](crate::PoolBuilder::build_tls).
pub struct Socket {
    kind: Kind,
    peek: Peek,
}

enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Socket {
    pub(crate) async fn open(place: &Place, config: &Config) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => Self::tcp(*address, config).await,
            #[cfg(unix)]
            Place::Unix(path) => Self::unix(path, config).await,
        }
    }

    pub(crate) async fn tcp(address: SocketAddr, config: &Config) -> io::Result<Self> {
        let stream = within(config.get_connect_timeout().copied(), TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        #[cfg(target_os = "linux")]
        if let Some(timeout) = config.get_tcp_user_timeout() {
            socket.set_tcp_user_timeout(Some(*timeout))?;
        }
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(Self::of(Kind::Tcp(stream)))
    }

    #[cfg(unix)]
    pub(crate) async fn unix(path: &Path, config: &Config) -> io::Result<Self> {
        let stream = within(config.get_connect_timeout().copied(), UnixStream::connect(path)).await?;
        Ok(Self::of(Kind::Unix(stream)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, peek: Peek::default() }
    }

    /// The question that a writer can ask this socket.
    pub(crate) fn peek(&self) -> Peek {
        self.peek.clone()
    }
}

impl Kind {
    /// Returns whether bytes, or the end of the stream, are unread.
    fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            #[cfg(unix)]
            Self::Unix(stream) => SockRef::from(stream).peek(&mut byte),
        };
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Applies the connection string's `connect_timeout`, which libpq applies to each address by itself.
async fn within<T>(timeout: Option<Duration>, connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout {
        Some(timeout) => time::timeout(timeout, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        None => connect.await,
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = match &mut this.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if read.is_pending() && this.peek.is_asked() && !this.kind.has_unread() {
            this.peek.on_nothing();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A plain socket has no TLS channel to bind to.
impl TlsStream for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::net::TcpListener;

    use super::*;

    async fn connected(settings: &str) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = settings.parse().unwrap();
        let socket = Socket::tcp(listener.local_addr().unwrap(), &config).await.unwrap();
        match socket.kind {
            Kind::Tcp(stream) => stream,
            #[cfg(unix)]
            Kind::Unix(_) => panic!("not a TCP socket"),
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_options_that_detect_a_dead_peer_are_set() {
        let stream =
            connected("keepalives_idle=31 keepalives_interval=7 keepalives_retries=4 tcp_user_timeout=12").await;
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(31));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(12)));
    }

    #[tokio::test]
    async fn keepalives_can_be_switched_off() {
        assert!(SockRef::from(&connected("").await).keepalive().unwrap());
        assert!(!SockRef::from(&connected("keepalives=0").await).keepalive().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn connect_timeout_bounds_one_address() {
        let silent = within(Some(Duration::from_secs(3)), pending::<io::Result<()>>()).await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
