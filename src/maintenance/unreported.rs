//! What has happened since the last event of its kind.
//!
//! Some events are limited to one in a while, whatever the number of occurrences. Each then reports how many there were, the latest of them, and how
//! long ago that was.

use std::time::{Duration, Instant};

use tokio::time;

/// Things of one kind that no event has reported.
#[derive(Debug)]
pub(super) struct Unreported<T> {
    pub(super) latest: T,
    at: Instant,
    pub(super) count: u64,
}

impl<T> Unreported<T> {
    /// One more, just now.
    pub(super) fn add(unreported: &mut Option<Self>, latest: T) {
        let count = unreported.as_ref().map_or(0, |unreported| unreported.count) + 1;
        *unreported = Some(Self { latest, at: time::Instant::now().into_std(), count });
    }

    /// How long ago the latest was.
    pub(super) fn ago(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}
