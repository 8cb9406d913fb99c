//! What is known of the server behind the pool's name: whether it is about to go, whether it has been replaced, and where it is.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Lost;

/// However many connections notice the same, it is acted upon once in so long.
const SAME: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Server(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    acted: Option<Instant>,
    /// When one of its processes was told to stop.
    stopped: Option<Instant>,
    /// It takes no writes any more: the next that does is another.
    is_doubted: bool,
    /// Where the latest that takes writes is.
    address: Option<Arc<str>>,
}

impl Server {
    /// Whether a connection lost like this means that the others are, or will be, and nobody has acted on that yet. One process told to stop is an
    /// administrator's doing; two are a server that shuts down. One that crashes takes all of them along.
    pub(super) fn stops(&self, cause: &Lost, now: Instant) -> bool {
        let mut known = self.0.lock();
        let is_stop = cause.is_shutdown();
        let before = if is_stop { known.stopped.replace(now) } else { None };
        let is_another = before.is_some_and(|before| now - before <= SAME);
        (is_another || cause.is_crash()) && known.act(now)
    }

    /// The server takes no writes any more where it did. Whether nobody has acted on that yet.
    pub(super) fn is_replaced(&self, now: Instant) -> bool {
        let mut known = self.0.lock();
        known.is_doubted = true;
        known.act(now)
    }

    /// A connection was made. If it leads to another primary than before: where that was, and where this one is.
    ///
    /// Behind one name or proxy both are at the same address: what tells is that the one before took no more writes.
    pub(super) fn is_at(&self, address: Arc<str>, is_read_only: Option<bool>) -> Option<(Option<String>, String)> {
        if is_read_only == Some(true) {
            return None;
        }
        let mut known = self.0.lock();
        let before = known.address.replace(Arc::clone(&address));
        let was_doubted = mem::take(&mut known.is_doubted);
        was_doubted.then(|| (before.map(|before| before.to_string()), address.to_string()))
    }
}

impl Known {
    fn act(&mut self, now: Instant) -> bool {
        let is_due = self.acted.is_none_or(|acted| now - acted >= SAME);
        if is_due {
            self.acted = Some(now);
        }
        is_due
    }
}
