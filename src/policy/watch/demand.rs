//! How many connections do callers ask for?
//!
//! By Little's law, that is arrivals per second times the mean lease duration. Arrivals include refused callers. The
//! mean lease duration is connection-seconds of use, divided by the callers served. Both averages decay over ten
//! seconds.

use std::time::Instant;

use super::reading::Reading;

/// The time constant of the averages, in seconds.
const MEMORY: f64 = 10.0;
/// Fewer served callers than this give no average.
const ENOUGH: f64 = 3.0;

#[derive(Debug, Default)]
pub(super) struct Demand {
    before: Option<(Instant, Reading)>,
    seconds: f64,
    arrivals: f64,
    served: f64,
    used: f64,
}

impl Demand {
    pub(super) fn tick(&mut self, now: Instant, reading: &Reading) {
        let Some((then, before)) = self.before.replace((now, *reading)) else { return };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        let arrivals = reading.arrivals.saturating_sub(before.arrivals) as f64;
        let refused = reading.refused - before.refused;
        let left = (refused.total() + refused.timed_out) as f64;
        // Callers that wait are not served yet.
        let served = arrivals - left - (reading.waiting as f64 - before.waiting as f64);
        let stays = (-seconds / MEMORY).exp();
        self.seconds = self.seconds * stays + seconds;
        self.arrivals = self.arrivals * stays + arrivals;
        self.served = self.served * stays + served.max(0.0);
        self.used = self.used * stays + seconds * (before.in_use + reading.in_use) as f64 / 2.0;
    }

    /// Returns the demand in connections. `None` if too few callers were served.
    pub(super) fn connections(&self) -> Option<f64> {
        if self.served < ENOUGH {
            return None;
        }
        let lease = self.used / self.served;
        Some(self.arrivals / self.seconds * lease)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{RefusalCounts, ShedReason};

    /// Returns the demand of `rate` callers a second in a pool of 10 connections, with leases of 100 ms.
    fn demand(rate: u64, seconds: u64) -> Option<f64> {
        let (begun, mut demand) = (Instant::now(), Demand::default());
        for tick in 0..seconds * 4 {
            let arrivals = rate * tick / 4;
            let served = arrivals.min(100 * tick / 4);
            let refused = RefusalCounts::of([(ShedReason::Overloaded, arrivals - served)]);
            let in_use = usize::try_from(rate.min(100) / 10).unwrap();
            let reading = Reading { in_use, limit: 10, waiting: 0, arrivals, refused };
            demand.tick(begun + Duration::from_millis(250 * tick), &reading);
        }
        demand.connections()
    }

    #[test]
    fn demand_counts_refused_callers_too() {
        let about = |rate, expected: f64| {
            let demand = demand(rate, 60).unwrap();
            assert!((demand - expected).abs() < 0.05 * expected, "{rate} a second: {demand} connections");
        };
        about(40, 4.0);
        about(100, 10.0);
        about(300, 30.0);
    }

    #[test]
    fn demand_is_unknown_before_a_few_callers_were_served() {
        assert_eq!(demand(0, 60), None);
        assert_eq!(demand(1, 2), None);
    }
}
