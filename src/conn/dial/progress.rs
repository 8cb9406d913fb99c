//! The progress of a dial: what it waits for, and how long the server itself has taken.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::error::Stage;

/// The progress of one dial. Only time within [`server`](Self::server) counts as the server's time.
pub(crate) struct DialProgress<'a> {
    stage: Stage,
    /// The address of the present attempt, if the dial has others to try.
    address: Option<String>,
    /// How long the server has taken in the present attempt.
    server: Duration,
    /// The dial calls `on_late` once, when the server has taken longer than this.
    late_after: Option<Duration>,
    on_late: Option<&'a mut (dyn FnMut() + Send)>,
}

impl<'a> DialProgress<'a> {
    pub(crate) fn new(late_after: Option<Duration>, on_late: &'a mut (dyn FnMut() + Send)) -> Self {
        Self { stage: Stage::LookUp, address: None, server: Duration::ZERO, late_after, on_late: Some(on_late) }
    }

    /// Returns the progress for a stream that is no dial, such as that of a cancel. It is never read.
    pub(crate) fn unwatched() -> Self {
        Self { stage: Stage::Server, address: None, server: Duration::ZERO, late_after: None, on_late: None }
    }

    /// The dial begins an attempt at another host, or at another address of it.
    pub(super) fn begin(&mut self, address: Option<String>) {
        (self.address, self.server) = (address, Duration::ZERO);
    }

    /// The address that the dial was waiting for when it ended, if it had others to try.
    pub(super) fn take_address(&mut self) -> Option<String> {
        self.address.take().filter(|_| matches!(self.stage, Stage::Server | Stage::Handshake))
    }

    /// What the dial is waiting for, or was waiting for when it ended.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns how long the server has taken at the latest address.
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
