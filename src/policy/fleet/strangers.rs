//! Counts the strangers: the connections within a scope that no member of the fleet claims.
//!
//! A single count is uncertain: a member may have opened or closed connections since it wrote its beacon, or it has no
//! beacon yet. So each reading gives a lower and an upper bound. The last count stays while it is between them. A rise
//! counts when two readings in a row show it. A count that every reading of 4 s confirms is remembered for a minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A stranger that has stayed this long will probably come again.
const LASTING: Duration = Duration::from_secs(4);
/// Its place is kept for this long.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub(super) struct Strangers {
    /// The number at the latest reading.
    present: usize,
    /// The latest lower bounds. All but the first are younger than [`LASTING`].
    latest: VecDeque<(Instant, usize)>,
    /// Counts that lasted, the oldest first, each higher than all later ones.
    seen: VecDeque<(Instant, usize)>,
    counted: usize,
}

impl Strangers {
    /// Records a reading: there are at least `least` strangers, and at most `most`. Up to `orphans` of them may be
    /// connections of members that have just vanished. These connections are ending, so they are not remembered.
    pub(super) fn on_reading(&mut self, now: Instant, (least, most): (usize, usize), orphans: usize) {
        self.present = match self.latest.back() {
            Some((_, before)) => self.present.max(least.min(*before)).min(most),
            None => least,
        };
        self.latest.push_back((now, least));
        let has_lasted = |at: &Instant| now.saturating_duration_since(*at) >= LASTING;
        while self.latest.get(1).is_some_and(|(at, _)| has_lasted(at)) {
            self.latest.pop_front();
        }
        while self.seen.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > REMEMBERED) {
            self.seen.pop_front();
        }
        let lowest = self.latest.iter().map(|(_, count)| *count).min().unwrap_or_default();
        if self.latest.front().is_some_and(|(at, _)| has_lasted(at)) {
            let lasting = lowest.saturating_sub(orphans);
            while self.seen.back().is_some_and(|(_, earlier)| *earlier <= lasting) {
                self.seen.pop_back();
            }
            self.seen.push_back((now, lasting));
        }
        self.counted = self.present.max(self.seen.front().map_or(0, |(_, highest)| *highest));
    }

    /// The number of strangers that count against the capacity.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }
}
