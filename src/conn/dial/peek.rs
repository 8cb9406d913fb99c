//! A look at what lies unread, before the first write on a connection that has rested.
//!
//! A server that ends a session says so, and nobody may have read it yet: the runtime learns of it a moment later. What is written then is lost, and
//! whoever wrote it must be told that it may have been applied. Seen before the write, it is known not to be.
//!
//! The driver reads before it writes, so the one who is about to write asks, and the socket, below TLS, answers when it finds nothing to read for
//! the driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a look is wanted, and has not yet found that there is nothing. Both sides are in one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peek(Arc<AtomicBool>);

impl Peek {
    pub(crate) fn ask(&self) {
        self.0.store(true, Relaxed);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(crate) fn found_nothing(&self) {
        self.0.store(false, Relaxed);
    }
}
