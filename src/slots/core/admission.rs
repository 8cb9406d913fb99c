//! The rule of refusal: who may wait. `docs/architecture.md` has the reasons, and what was tried.

use std::time::{Duration, Instant};

use super::{Core, MOST_WAITING, Refused};
use crate::policy::{Patience, Shedding};

impl<C, W> Core<C, W> {
    /// Whether a caller may join the queue.
    pub(super) fn admit(&mut self, now: Instant, patience: &Patience) -> Result<(), Refused> {
        let waiting = self.queue.len();
        let longest = if patience.shedding == Shedding::Off { MOST_WAITING } else { self.limits.max_waiting };
        if waiting >= longest {
            return Err(Refused::QueueFull(self.retry_after(now, 0)));
        }
        if patience.shedding != Shedding::Predictive {
            return Ok(());
        }
        // While connections can still be made, a queue is judged by what the pool is about to be.
        let is_growing = self.in_use < self.limits.max_size && !self.dials.are_failing();
        let connections = if is_growing { self.limits.max_size } else { self.in_use };
        let wait = if is_growing {
            self.forecast.gap(now, connections).map(|gap| gap.mul_f64((waiting + 1) as f64))
        } else {
            self.forecast.wait(now, waiting, connections)
        };
        let Some(wait) = wait else { return Ok(()) };
        let room = patience.room(now, || self.forecast.typical_hold());
        if wait > room {
            let too_long = wait - room;
            return Err(Refused::Hopeless(too_long.max(self.retry_after(now, 0))));
        }
        let enough = (connections / 2).max(1);
        let filled = waiting as f64 / longest as f64;
        if self.forecast.is_overloaded(now, wait, filled) && waiting >= enough {
            return Err(Refused::Overloaded(self.retry_after(now, waiting - enough)));
        }
        Ok(())
    }

    /// When so many waiters, and one more, will have been served.
    pub(super) fn retry_after(&mut self, now: Instant, waiters: usize) -> Duration {
        let connections = self.in_use;
        self.forecast
            .gap(now, connections)
            .map_or_else(|| self.forecast.room(), |gap| gap.mul_f64((waiters + 1) as f64))
    }
}
