//! The half-open state: how many probes may run, how long they may take, and what their results were.

use std::time::{Duration, Instant};

use super::counts::Counts;
use crate::policy::Deadline;

/// A probe may end at any moment, so a rejected caller should ask again after this, or when the probes time out.
const PACE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Probes {
    permitted: u32,
    under_way: u32,
    /// When the probes under way have taken too long. Set by the first probe while no other is under way.
    deadline: Option<Deadline>,
    results: Counts,
}

impl Probes {
    pub(super) fn new(permitted: u32) -> Self {
        Self { permitted, under_way: 0, deadline: None, results: Counts::default() }
    }

    /// Returns whether fewer probes are under way or completed than are permitted.
    pub(super) fn has_free(&self) -> bool {
        u64::from(self.under_way) + self.results.completed < u64::from(self.permitted)
    }

    /// Begins a probe if another one is permitted. Returns whether it did.
    pub(super) fn try_begin(&mut self, now: Instant, timeout: Duration) -> bool {
        let has_free = self.has_free();
        if has_free {
            self.under_way += 1;
            self.deadline.get_or_insert_with(|| Deadline::after(now, timeout));
        }
        has_free
    }

    /// One of the probes under way has time until `until`, so none of them times out before that.
    pub(super) fn extend(&mut self, until: Deadline) {
        self.deadline = self.deadline.map(|deadline| deadline.max(until));
    }

    /// A probe has ended, with a result or without.
    pub(super) fn on_ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.deadline = None;
        }
    }

    pub(super) fn add_result(&mut self, counts: Counts) {
        self.results += counts;
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    pub(super) fn results(&self) -> Counts {
        self.results
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Returns when the probes timed out, if they have.
    pub(super) fn timed_out(&self, now: Instant) -> Option<Instant> {
        self.deadline.filter(|deadline| deadline.has_passed(now)).map(Deadline::instant)
    }

    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        self.deadline.map_or(PACE, |deadline| deadline.left(now).min(PACE))
    }
}
