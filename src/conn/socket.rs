//! Sockets: TCP with the options that notice a dead peer, or Unix.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time;
use tokio_postgres::Config;

/// Any byte stream to a server.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

pub(super) type BoxedIo = Box<dyn Io>;

pub(super) async fn tcp(address: SocketAddr, config: &Config) -> io::Result<BoxedIo> {
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
    Ok(Box::new(stream))
}

#[cfg(unix)]
pub(super) async fn unix(path: &Path, config: &Config) -> io::Result<BoxedIo> {
    let stream = within(
        config.get_connect_timeout().copied(),
        tokio::net::UnixStream::connect(path),
    )
    .await?;
    Ok(Box::new(stream))
}

/// The connection string's `connect_timeout`: for each address by itself, as libpq has it.
async fn within<T>(timeout: Option<Duration>, connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout {
        Some(timeout) => time::timeout(timeout, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        None => connect.await,
    }
}
