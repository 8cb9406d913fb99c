//! What a pool's listeners and the pool know of one another: how many connections listen, and what the owner orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::watch;

/// The orders of the pool's owner so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Orders {
    /// How often all connections were replaced.
    pub(crate) flushes: u64,
    pub(crate) is_closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct ListenControl {
    orders: watch::Sender<Orders>,
    connections: Arc<AtomicUsize>,
}

impl ListenControl {
    pub(crate) fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    pub(super) fn on_flush(&self) {
        self.orders.send_modify(|orders| orders.flushes += 1);
    }

    pub(super) fn on_close(&self) {
        self.orders.send_modify(|orders| orders.is_closed = true);
    }

    /// How many connections listen.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Counts a connection that listens, until the result is dropped.
    pub(in crate::conn) fn count_one(&self) -> Counted {
        self.connections.fetch_add(1, Relaxed);
        Counted(Arc::clone(&self.connections))
    }
}

/// The share of one connection in the count.
pub(in crate::conn) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
