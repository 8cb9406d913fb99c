//! Who was turned away, and why: counted since the pool began.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::Refused;
use crate::telemetry::Counted;

#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) queue_full: AtomicU64,
    pub(crate) hopeless: AtomicU64,
    pub(crate) too_late: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) unread: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    /// Who would not wait.
    pub(crate) none_idle: AtomicU64,
    /// By the open circuit.
    pub(crate) rejected: AtomicU64,
}

impl Refusals {
    pub(super) fn so_far(&self) -> Refused {
        Refused {
            queue_full: self.queue_full.load(Relaxed),
            hopeless: self.hopeless.load(Relaxed),
            too_late: self.too_late.load(Relaxed),
            overloaded: self.overloaded.load(Relaxed),
            unread: self.unread.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
        }
    }

    /// The same, and who was served at once.
    pub(super) fn counted(&self, at_once: u64) -> Counted {
        let (none_idle, rejected) = (self.none_idle.load(Relaxed), self.rejected.load(Relaxed));
        Counted { refused: self.so_far(), none_idle, rejected, at_once }
    }
}
