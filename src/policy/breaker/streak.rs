//! Failures in a row, since the last success.
//!
//! A window of ten seconds is slow to notice that everything has stopped: what went well before outweighs the failures for as long as it is
//! remembered, the more so the busier the service was. So a circuit opens, too, when nothing has succeeded for the length of a bucket while as
//! many calls failed as the minimum volume.

use std::time::{Duration, Instant};

use crate::policy::window::Counts;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Streak {
    failures: u64,
    begun: Option<Instant>,
}

impl Streak {
    pub(super) fn count(&mut self, now: Instant, call: Counts) {
        if call.failures < call.completed {
            *self = Self::default();
        } else if call.failures > 0 {
            self.failures += call.failures;
            self.begun.get_or_insert(now);
        }
    }

    /// The server did not answer something that is no call.
    pub(super) fn silence(&mut self, now: Instant) {
        self.failures += 1;
        self.begun.get_or_insert(now);
    }

    /// How many failures there are, and since when, if they are as many as `failures` and last for as long as `lasting`.
    pub(super) fn blackout(&self, now: Instant, failures: u64, lasting: Duration) -> Option<(u64, Duration)> {
        let lasts = now.saturating_duration_since(self.begun?);
        (lasts >= lasting && self.failures >= failures).then_some((self.failures, lasts))
    }
}
