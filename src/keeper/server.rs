//! What is known of the server behind the pool's name: whether it is about to go, whether it has been replaced, and where it is.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Lost;

/// However many connections notice the same, it is acted upon once in so long.
const SAME: Duration = Duration::from_secs(1);
/// The pause doubles so often at most.
const MOST_IN_VAIN: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Server(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    acted: Option<Instant>,
    /// When one of its processes was told to stop.
    stopped: Option<Instant>,
    /// It takes no writes any more: the next that does is another. Found so many times in vain since then.
    is_doubted: bool,
    in_vain: u32,
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
        // Where nothing else is found, somebody writes to a server that is meant to read only: that is no reason to dial for ever.
        let pause = SAME * 2u32.pow(known.in_vain.min(MOST_IN_VAIN));
        let is_due = known.acted.is_none_or(|acted| now - acted >= pause);
        if is_due {
            known.acted = Some(now);
            known.in_vain += 1;
        }
        is_due
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
        known.in_vain = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_only_reads_is_left_ever_more_seldom_until_one_that_writes_is_found() {
        let (server, begun) = (Server::default(), Instant::now());
        let acted = |from: u64, until: u64| {
            let due = |second: &u64| server.is_replaced(begun + Duration::from_secs(*second));
            (from..until).filter(due).collect::<Vec<_>>()
        };
        assert_eq!(acted(0, 60), [0, 2, 6, 14, 30, 46]);
        assert_eq!(server.is_at("10.0.0.1:5432".into(), Some(true)), None);
        assert_eq!(server.is_at("10.0.0.2:5432".into(), Some(false)), Some((None, "10.0.0.2:5432".to_owned())));
        assert_eq!(server.is_at("10.0.0.2:5432".into(), Some(false)), None, "told once");
        assert_eq!(acted(60, 64), [60, 62]);
    }
}
