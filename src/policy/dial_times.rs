//! How long the server takes for a dial, and when a dial is unusually late.

use std::time::Duration;

/// No dial is late before this, even if all others were faster.
const SHORTEST: Duration = Duration::from_secs(1);
/// A dial is late when it has taken this many times as long as the slowest recent dial.
const FAR_MORE: u32 = 3;
/// The number of dials that count as recent.
const RECENT: usize = 16;

/// How long the server itself took for each recent dial that succeeded.
#[derive(Debug, Default)]
pub(crate) struct DialTimes {
    recent: [Duration; RECENT],
    count: usize,
}

impl DialTimes {
    pub(crate) fn succeeded(&mut self, took: Duration) {
        self.recent[self.count % RECENT] = took;
        self.count += 1;
    }

    /// Returns how long the server may take before a dial is late. `None` before the first success.
    pub(crate) fn late_after(&self) -> Option<Duration> {
        let slowest = self.recent.iter().take(self.count).max()?;
        Some(slowest.saturating_mul(FAR_MORE).max(SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_slowest_of_the_recent_dials_counts() {
        let mut times = DialTimes::default();
        assert_eq!(times.late_after(), None, "no dial has succeeded yet");
        times.succeeded(10 * MS);
        assert_eq!(times.late_after(), Some(SHORTEST));
        times.succeeded(1_200 * MS);
        times.succeeded(10 * MS);
        assert_eq!(times.late_after(), Some(3_600 * MS));
        (0..RECENT).for_each(|_| times.succeeded(MS));
        assert_eq!(times.late_after(), Some(SHORTEST), "the slow dial is no longer recent");
    }
}
