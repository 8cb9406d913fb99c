//! Stops a statement on the server. A second, short connection to the very same address names the server process and
//! its secret key.
//!
//! The pool reads that connection to its end. Before that, the signal may still be on its way, and would hit the next
//! statement.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time;

use super::dial::identity::Identity;
use super::dial::route::Route;
use super::wire::Wire;

/// How many cancels of one pool may be under way at a time. Each costs the server a process.
pub(super) const MOST_CANCELS: usize = 4;

/// Cancels the statements of one connection.
pub(super) struct Canceller {
    route: Route,
    request: Identity,
    turns: Arc<Semaphore>,
}

impl Canceller {
    pub(super) fn new(route: Route, request: Identity, turns: Arc<Semaphore>) -> Self {
        Self { route, request, turns }
    }

    /// Cancels whatever the server process is running. Waits for its turn, and then at most `within`. Sends nothing if
    /// `may_send` returns `false` once the second connection is open.
    ///
    /// If the cancel does not end in time, or the future is dropped, the server may still give the signal. It could hit
    /// any later statement, so `wire` is sealed.
    pub(super) async fn cancel(&self, wire: &Wire, within: Duration, may_send: impl Fn() -> bool) {
        let _turn = self.turns.acquire().await;
        let cancel = async {
            let Ok(mut stream) = self.route.open().await else { return };
            if !may_send() {
                return;
            }
            let uncertain = SealOnDrop(Some(wire));
            if stream.write_all(self.request.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {
                // Whether the stream ends or is reset, the server has then given the signal.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            }
            uncertain.disarm();
        };
        let _ = time::timeout(within, cancel).await;
    }
}

/// Seals the connection when it is dropped between the first byte of a cancel and the end of the cancel.
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
