//! Stopping a statement on the server, from outside: a second, short connection to the very same address names the server process and
//! its secret.
//!
//! It is read to its end before it counts as done: until the server has hung up, the signal may still be on its way, and would hit
//! whatever runs next.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time;

use super::identity::Identity;
use super::route::Route;
use crate::error::ConnectError;

/// Cancels of one pool at a time: each costs the server a process.
pub(super) const MOST_CANCELS: usize = 4;
/// A server that has not taken a cancel by then is not going to.
const LONGEST_CANCEL: Duration = Duration::from_secs(1);

/// How one connection's statements are cancelled.
pub(super) struct Canceller {
    route: Route,
    request: Identity,
    turns: Arc<Semaphore>,
}

impl Canceller {
    pub(super) fn new(route: Route, request: Identity, turns: Arc<Semaphore>) -> Self {
        Self { route, request, turns }
    }

    /// Cancels whatever the server process is running. Tells whether the server took it; what comes after cannot be hit then.
    pub(super) async fn cancel(&self) -> bool {
        let Ok(_turn) = self.turns.acquire().await else { return false };
        matches!(time::timeout(LONGEST_CANCEL, self.send()).await, Ok(Ok(())))
    }

    async fn send(&self) -> Result<(), ConnectError> {
        let mut stream = self.route.open(None).await?;
        let sent = async {
            stream.write_all(self.request.as_bytes()).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| ConnectError::io(&self.route.name, error))?;
        // The end, or a reset: either way the server is done with it.
        while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        Ok(())
    }
}
