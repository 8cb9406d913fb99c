//! The identity of a driver's client: the cancel request for its queries.
//!
//! The driver shows no identity of its clients. But each client can send a cancel request, which names the server
//! process and a secret. This module lets the client send it to memory.

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

/// The cancel request of one driver's client. It holds a secret, so it has no `Debug`.
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

/// A stream that stores the bytes written to it.
struct Memory(Vec<u8>);

/// Stands in for TLS, because memory needs none.
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
