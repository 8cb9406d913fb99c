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

use super::dial::identity::Identity;
use super::dial::route::Route;
use super::wire::Wire;

/// Cancels of one pool at a time: each costs the server a process.
pub(super) const MOST_CANCELS: usize = 4;

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

    /// Cancels whatever the server process is running, `within` this time. If it cannot be known whether the signal has been given (no end in time, or the
    /// future was dropped), `wire` is sealed: it might hit any statement after.
    pub(super) async fn cancel(&self, wire: &Wire, within: Duration) {
        let _turn = self.turns.acquire().await;
        let cancel = async {
            let Ok(mut stream) = self.route.open().await else { return };
            let uncertain = SealOnDrop(Some(wire));
            if stream.write_all(self.request.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {
                // The end, or a reset: either way the server is done with it.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            }
            uncertain.disarm();
        };
        let _ = time::timeout(within, cancel).await;
    }
}

/// From the first byte of a cancel to the end of its connection.
struct SealOnDrop<'a>(Option<&'a Wire>);

impl SealOnDrop<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for SealOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(wire) = self.0 {
            wire.seal();
        }
    }
}
