//! The driver's error for a COPY whose data are not in the binary format.
//!
//! The driver has no public constructor for its errors. It wraps the error of a stream on which it begins a session. So
//! it is given a stream that fails. Nothing of this waits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{Config, Error, NoTls};

use crate::error::driver::NotBinary;

/// Returns the error. `None` never happens.
pub(super) fn error() -> Option<Error> {
    let mut config = Config::new();
    config.user("nobody");
    config.connect_raw(Fails, NoTls).now_or_never()?.err()
}

/// A stream that fails with [`NotBinary`].
struct Fails;

impl AsyncRead for Fails {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other(NotBinary)))
    }
}

impl AsyncWrite for Fails {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other(NotBinary)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::driver::cause;

    #[test]
    fn the_error_says_what_to_write() {
        let error = error().unwrap();
        assert!(!error.is_closed() && error.as_db_error().is_none(), "{error:?}");
        assert!(cause(&error, None).contains("(FORMAT binary)"), "{error:?}");
    }
}
