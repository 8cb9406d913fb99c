//! The record of what happened during a lease, readable after the client was given away.
//!
//! A trail reads the facts from the connection. After the lease, the connection may serve another caller, whose
//! failures are not those of the lease. So the lease leaves its last facts at its end.

use std::sync::{Arc, OnceLock};

use super::link::Link;
use crate::policy::Retry;
use crate::telemetry::Fault;

/// The record of what happened during a lease since the trail began.
pub(crate) struct Trail {
    lease: Arc<Recorded>,
    /// The facts when the trail began.
    attempts: u64,
    timeouts: u64,
    begun: u64,
}

/// The end of all trails of a lease. Dropping it leaves the last facts, so it is dropped before the lease.
#[derive(Default)]
pub(super) struct TrailEnd(OnceLock<Arc<Recorded>>);

/// What the trails of a lease share.
struct Recorded {
    link: Arc<Link>,
    at_end: OnceLock<Facts>,
}

/// The state of the connection, in so far as a trail reads it.
#[derive(Debug, Clone, Copy)]
struct Facts {
    attempts: u64,
    timeouts: u64,
    begun: u64,
    retry: Retry,
    fault: Fault,
    /// The database gave no answer to the last statement.
    is_unanswered: bool,
    /// The connection had ended, and was used through the deref.
    is_untracked_end: bool,
}

impl Facts {
    fn now(link: &Link) -> Self {
        let calls = &link.calls;
        Self {
            attempts: link.wire.attempts(),
            timeouts: calls.timeouts(),
            begun: calls.begun(),
            retry: calls.retry(),
            fault: calls.fault(),
            is_unanswered: calls.is_unavailable(),
            is_untracked_end: link.is_untracked() && !link.wire.is_alive(),
        }
    }
}

impl TrailEnd {
    /// Returns a trail that begins now.
    pub(super) fn begin(&self, link: &Arc<Link>) -> Trail {
        link.calls.clear_failure();
        let Facts { attempts, timeouts, begun, .. } = Facts::now(link);
        let lease = self.0.get_or_init(|| Arc::new(Recorded { link: Arc::clone(link), at_end: OnceLock::new() }));
        Trail { lease: Arc::clone(lease), attempts, timeouts, begun }
    }
}

impl Drop for TrailEnd {
    fn drop(&mut self) {
        if let Some(lease) = self.0.get() {
            let _ = lease.at_end.set(Facts::now(&lease.link));
        }
    }
}

impl Trail {
    fn facts(&self) -> Facts {
        self.lease.at_end.get().copied().unwrap_or_else(|| Facts::now(&self.lease.link))
    }

    /// Returns whether the work failed before anything was written, because the connection had ended before.
    pub(crate) fn is_stale(&self) -> bool {
        let facts = self.facts();
        facts.retry != Retry::Never && facts.attempts == self.attempts
    }

    /// Returns whether the work may run again, by the last failure.
    pub(crate) fn retry(&self) -> Retry {
        self.facts().retry
    }

    /// The name of the last failure.
    pub(crate) fn fault(&self) -> Fault {
        self.facts().fault
    }

    /// Returns whether the database gave no answer to the last statement, or the connection was lost through the deref.
    pub(crate) fn is_unavailable(&self) -> bool {
        let facts = self.facts();
        // The task writes the reason a little after the end.
        let was_lost = || facts.is_untracked_end && self.lease.link.monitor.close_reason().cause().is_some();
        facts.is_unanswered || was_lost()
    }

    /// The number of statements that began.
    pub(crate) fn statements(&self) -> u32 {
        u32::try_from(self.facts().begun - self.begun).unwrap_or(u32::MAX)
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.facts().timeouts > self.timeouts
    }
}
