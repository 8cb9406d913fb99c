//! What tells one driver's client from every other.
//!
//! The driver shows no identity of its clients, but each can say how its queries are cancelled, and that message names the server
//! process and a secret. Here it is sent to memory.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Of one driver's client: the message that cancels its queries. It holds a secret, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity(Arc<[u8]>);

impl Identity {
    pub(crate) fn of(client: &Client) -> Self {
        let mut memory = Memory(Vec::new());
        let sent = client.cancel_token().cancel_query_raw(&mut memory, NoHandshake).now_or_never();
        debug_assert!(matches!(sent, Some(Ok(()))), "memory takes everything at once");
        Self(memory.0.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Keeps what is written.
struct Memory(Vec<u8>);

/// For a client that uses TLS.
struct NoHandshake;

impl<'a> TlsConnect<&'a mut Memory> for NoHandshake {
    type Stream = &'a mut Memory;
    type Error = Infallible;
    type Future = Ready<Result<&'a mut Memory, Infallible>>;

    fn connect(self, memory: &'a mut Memory) -> Self::Future {
        ready(Ok(memory))
    }
}

impl TlsStream for &mut Memory {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Memory {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
