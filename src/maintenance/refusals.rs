//! The live counts of refused callers, since the pool began. [`Refused`] is a snapshot of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::{PerReason, Refused, ShedReason};

#[derive(Debug, Default)]
pub(crate) struct RefusalCounters {
    shed: PerReason<AtomicU64>,
    timed_out: AtomicU64,
    rejected: AtomicU64,
}

impl RefusalCounters {
    pub(crate) fn on_shed(&self, reason: ShedReason) {
        self.shed[reason as usize].fetch_add(1, Relaxed);
    }

    /// A caller waited until its time was up.
    pub(crate) fn on_timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }

    /// The open circuit rejected a caller.
    pub(crate) fn on_rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> Refused {
        Refused {
            shed: self.shed.each_ref().map(|count| count.load(Relaxed)),
            timed_out: self.timed_out.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }
}
