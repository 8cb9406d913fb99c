//! What a dial is waiting for, and how long the server itself has taken.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::error::Stage;

/// One dial's. Only what runs within [`server`](Self::server) is the server's time.
pub(crate) struct DialClock<'a> {
    stage: Stage,
    /// Where the present attempt leads, if there are others.
    address: Option<String>,
    /// In that attempt.
    server: Duration,
    /// The server is late when it has taken longer.
    late_after: Option<Duration>,
    /// Called then, once.
    on_late: Option<&'a mut (dyn FnMut() + Send)>,
}

impl<'a> DialClock<'a> {
    pub(crate) fn new(late_after: Option<Duration>, on_late: &'a mut (dyn FnMut() + Send)) -> Self {
        Self { stage: Stage::LookUp, address: None, server: Duration::ZERO, late_after, on_late: Some(on_late) }
    }

    /// For what nobody watches.
    pub(crate) fn unwatched() -> Self {
        Self { stage: Stage::Server, address: None, server: Duration::ZERO, late_after: None, on_late: None }
    }

    /// Another host is tried, or another of its addresses.
    pub(super) fn begin(&mut self, address: Option<String>) {
        (self.address, self.server) = (address, Duration::ZERO);
    }

    /// The address on which the dial was waiting when it ended, if there are others.
    pub(super) fn take_address(&mut self) -> Option<String> {
        self.address.take().filter(|_| matches!(self.stage, Stage::Server | Stage::Handshake))
    }

    /// What the dial is waiting for now, or was when it ended.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// How long the server took at the latest address.
    pub(super) fn server_took(&self) -> Duration {
        self.server
    }

    /// Waits for something that is not the server.
    pub(super) async fn other<T>(&mut self, stage: Stage, work: impl Future<Output = T>) -> T {
        self.stage = stage;
        work.await
    }

    /// Waits for the server.
    pub(super) async fn server<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.stage = Stage::Server;
        let (begun, mut work) = (Instant::now(), pin!(work));
        let left = self.late_after.map(|late| late.saturating_sub(self.server)).filter(|_| self.on_late.is_some());
        let in_time = match left {
            Some(left) => time::timeout(left, work.as_mut()).await.ok(),
            None => None,
        };
        let done = match in_time {
            Some(done) => done,
            None => {
                if let Some(on_late) = self.on_late.take().filter(|_| left.is_some()) {
                    on_late();
                }
                work.await
            }
        };
        self.server += begun.elapsed();
        done
    }
}
