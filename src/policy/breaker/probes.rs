//! The half-open state: who may probe, and what the probes have shown so far.

use std::time::{Duration, Instant};

use crate::policy::Deadline;
use crate::policy::window::Counts;

/// A verdict may come at any moment: those who are rejected meanwhile come back after this, or when the lease ends.
const PACE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Probes {
    permitted: u32,
    out: u32,
    /// Fixed when a probe leaves and no other is out.
    lease: Option<Deadline>,
    seen: Counts,
}

impl Probes {
    pub(super) fn new(permitted: u32) -> Self {
        Self { permitted, out: 0, lease: None, seen: Counts::default() }
    }

    /// Those out and those judged are as many as there may be, at most.
    pub(super) fn has_room(&self) -> bool {
        u64::from(self.out) + self.seen.completed < u64::from(self.permitted)
    }

    /// Lets one more probe out, if there is room.
    pub(super) fn let_out(&mut self, now: Instant, timeout: Duration) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.out += 1;
            self.lease.get_or_insert_with(|| Deadline::after(now, timeout));
        }
        has_room
    }

    /// One of those out may take as long: nothing is judged before that.
    pub(super) fn extend(&mut self, until: Deadline) {
        self.lease = self.lease.map(|lease| lease.max(until));
    }

    /// A probe is back, with a verdict or without.
    pub(super) fn take_back(&mut self) {
        self.out = self.out.saturating_sub(1);
        if self.out == 0 {
            self.lease = None;
        }
    }

    pub(super) fn count(&mut self, counts: Counts) {
        self.seen += counts;
    }

    pub(super) fn out(&self) -> u32 {
        self.out
    }

    pub(super) fn seen(&self) -> Counts {
        self.seen
    }

    /// When the probes that are out have taken too long.
    pub(super) fn lease(&self) -> Option<Deadline> {
        self.lease
    }

    /// When a probe was out for too long, if that has come to pass.
    pub(super) fn timed_out(&self, now: Instant) -> Option<Instant> {
        self.lease.filter(|lease| lease.has_passed(now)).map(Deadline::instant)
    }

    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        self.lease.map_or(PACE, |lease| lease.left(now).min(PACE))
    }
}
