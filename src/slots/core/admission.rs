//! The rule of refusal: who may wait, and when to come back. `docs/architecture.md` has the reasons, and what was tried.

use std::time::{Duration, Instant};

use super::{Core, MOST_WAITING, Refused};
use crate::policy::{Patience, Shedding};

impl<C, W> Core<C, W> {
    /// Whether a caller may join the queue. All that is against it is looked at, so that whoever comes back is not refused for the next reason.
    pub(super) fn admit(&mut self, now: Instant, patience: &Patience) -> Result<(), Refused> {
        let waiting = self.queue.len();
        let longest = if patience.shedding == Shedding::Off { MOST_WAITING } else { self.limits.max_waiting };
        // With nothing there, what was seen before says nothing; and somebody has to wait, or nothing is ever dialed.
        let is_predictable = patience.shedding == Shedding::Predictive && self.is_alive();
        let expected = if is_predictable { self.expected_wait(now) } else { None };
        let Some(wait) = expected else {
            if waiting < longest {
                return Ok(());
            }
            return Err(Refused::QueueFull(self.retry_after(now, waiting + 1 - longest, Duration::ZERO)));
        };
        let room = patience.room(now, || self.forecast.typical_hold());
        let filled = waiting as f64 / longest as f64;
        let enough = longest.min((self.connections() / 2).max(1));
        let most = if self.forecast.is_overloaded(now, wait, filled) { enough } else { longest };
        if waiting < most && wait <= room.as_secs_f64() {
            return Ok(());
        }
        let wait = Duration::from_secs_f64(wait);
        let too_long = wait.saturating_sub(room);
        let mut retry_after = self.retry_after(now, (waiting + 1).saturating_sub(most), too_long);
        let left = wait.saturating_sub(retry_after);
        if self.forecast.will_be_overloaded(now + retry_after, left.as_secs_f64(), filled) {
            retry_after = self.retry_after(now, (waiting + 1).saturating_sub(enough), too_long);
        }
        Err(if waiting >= longest {
            Refused::QueueFull(retry_after)
        } else if too_long.is_zero() {
            Refused::Overloaded(retry_after)
        } else {
            Refused::Hopeless(retry_after)
        })
    }

    /// When so many have been served, and the wait has become shorter by `too_long`; and one release later, for estimates vary by as much.
    pub(super) fn retry_after(&mut self, now: Instant, served: usize, too_long: Duration) -> Duration {
        let connections = self.in_use;
        let (wait, gap) = (self.forecast.wait(now, served, connections), self.forecast.gap(now, connections));
        let of = Duration::from_secs_f64;
        wait.zip(gap).map_or_else(|| self.forecast.room(), |(wait, gap)| of(wait).max(too_long + of(gap)))
    }

    /// How long a newcomer would wait, in seconds. `None` as long as nobody knows.
    pub(super) fn expected_wait(&mut self, now: Instant) -> Option<f64> {
        let (waiting, connections) = (self.queue.len(), self.connections());
        if self.is_growing() {
            self.forecast.gap(now, connections).map(|gap| gap * (waiting + 1) as f64)
        } else {
            self.forecast.wait(now, waiting, connections)
        }
    }

    /// While connections can still be made, a queue is judged by what the pool is about to be.
    fn connections(&self) -> usize {
        if self.is_growing() { self.limits.max_size } else { self.in_use }
    }

    fn is_growing(&self) -> bool {
        self.in_use < self.limits.max_size && !self.dials.are_failing()
    }
}
