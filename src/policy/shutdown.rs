//! Does a terminated session mean that the server shuts down?
//!
//! An administrator ends one session; a server that shuts down ends all of them at nearly the same time. So the second
//! termination within a second means a shutdown. Why a second:
//! `docs/decisions/0044-when-all-connections-are-replaced.md`.

use std::time::{Duration, Instant};

/// Two terminations at most this far apart belong to one shutdown.
const TOGETHER: Duration = Duration::from_secs(1);

/// The terminations that one observer has seen. The breaker observes failed statements, the maintenance lost
/// connections, so that neither counts one session twice.
#[derive(Debug, Default)]
pub(crate) struct Terminations {
    latest: Option<Instant>,
}

impl Terminations {
    /// A session was terminated. Returns whether the server shuts down: another one was terminated at most a second
    /// ago.
    pub(crate) fn on_terminated(&mut self, now: Instant) -> bool {
        let before = self.latest;
        // Callers read the clock before they take a lock, so the times may be slightly out of order.
        self.latest = before.max(Some(now));
        before.is_some_and(|before| now.saturating_duration_since(before) <= TOGETHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns for which terminations, each at so many milliseconds, the server is found to shut down.
    fn shutdowns<const N: usize>(times: [u64; N]) -> [bool; N] {
        let (mut terminations, begun) = (Terminations::default(), Instant::now());
        times.map(|ms| terminations.on_terminated(begun + Duration::from_millis(ms)))
    }

    #[test]
    fn one_termination_is_no_shutdown() {
        assert_eq!(shutdowns([0]), [false]);
    }

    #[test]
    fn the_second_one_within_a_second_is_a_shutdown_and_the_bound_is_included() {
        assert_eq!(shutdowns([0, 0]), [false, true]);
        assert_eq!(shutdowns([0, 1_000]), [false, true]);
        assert_eq!(shutdowns([0, 1_001]), [false, false]);
    }

    #[test]
    fn every_further_one_is_compared_with_the_one_before() {
        assert_eq!(shutdowns([0, 10, 20, 900, 1_900]), [false, true, true, true, true]);
        assert_eq!(shutdowns([0, 1_500, 3_000, 3_100, 9_000]), [false, false, false, true, false]);
    }

    #[test]
    fn times_out_of_order_change_nothing() {
        assert_eq!(shutdowns([500, 0, 1_500]), [false, true, true]);
        assert_eq!(shutdowns([5_000, 0, 6_001]), [false, true, false]);
    }
}
