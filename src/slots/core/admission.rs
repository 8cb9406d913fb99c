//! The rule of refusal: who may wait, and when to come back.
//!
//! 1. A caller that can be served in time may wait: by Little's law with a margin for chance, or because the waiters in
//!    front of it will have left.
//! 2. A waiter that can no longer finish when its turn comes is refused. An overload asks for a margin.
//! 3. The pool is overloaded once a plain queue has turned callers away for half a wait budget.
//! 4. In an overload as many may wait as in the shallowest shadow queue that loses no work. The margin for chance is
//!    gone.
//! 5. Shadow queues follow arrivals, leases and idle time, but not refusals. So refusals cannot cause refusals.
//!
//! No caller is refused while a connection is idle that it may have, nor while its lane is owed one. So a wrong
//! prediction corrects itself. Each lane has its own queue and estimates.
//! `docs/decisions/0001-when-to-refuse.md` has the measurements and the alternatives.

use std::time::{Duration, Instant};

use super::line::{Line, Supply};
use super::{Core, MOST_WAITING, Refusal};
use crate::policy::{Arrival, Deadline, Lane, LeaseDurations, ShedReason, Shedding, Time, WaitPolicy};

/// In an overload a caller must have this many times the longest usual lease left at hand-over. A caller that does not
/// finish wastes its whole lease.
const MARGIN: f64 = 1.06;

/// Whether a caller can be served in time.
struct Prediction {
    /// The caller would be in time behind so many waiters.
    fits_behind: f64,
    is_in_time: bool,
    /// No connection comes back for now, so the prediction says nothing about the load.
    is_stalled: bool,
    /// By how many seconds the wait would be too long.
    too_long: f64,
}

impl<C, W> Core<C, W> {
    /// Decides whether a caller may join the queue of its lane.
    pub(super) fn admit(&mut self, instant: Instant, wait_policy: &WaitPolicy) -> Result<(), Refusal> {
        self.check_slow_readers(instant, wait_policy)?;
        let (now, lane) = (self.time(instant), wait_policy.lane);
        let longest = if wait_policy.shedding == Shedding::Off { MOST_WAITING } else { self.limits.max_waiting };
        // Without a connection old estimates say nothing. And a caller has to wait, or the pool would never dial.
        let is_predictable = wait_policy.shedding == Shedding::Predictive && self.is_alive() && !self.is_owed(lane);
        let supply = self.supply(lane, now);
        self.line_mut(lane).admit(instant, now, wait_policy, &supply, longest, is_predictable)
    }

    /// When a caller of this lane may come back that was refused at its turn.
    pub(super) fn retry_after(&mut self, lane: Lane, now: Time) -> Duration {
        let supply = self.supply(lane, now);
        let line = self.line_mut(lane);
        line.retry_after(now, &supply, line.queue.len(), 0.0)
    }

    /// How long a newcomer would wait, in seconds. `None` if there is no estimate yet.
    pub(super) fn predicted_seconds(&mut self, lane: Lane, now: Time) -> Option<f64> {
        let supply = self.supply(lane, now);
        let line = self.line_mut(lane);
        let gap = line.gap(now, &supply, supply.connections)?;
        Some(line.expected_wait(now, &supply, gap))
    }
}

impl<W> Line<W> {
    /// Decides whether a caller may join the queue. It weighs all reasons at once, so that a caller that comes back is
    /// not refused for the next reason.
    #[inline(always)] // for `Core::admit`, which has no other
    fn admit(
        &mut self,
        instant: Instant,
        now: Time,
        wait_policy: &WaitPolicy,
        supply: &Supply,
        longest: usize,
        is_predictable: bool,
    ) -> Result<(), Refusal> {
        let left = wait_policy.deadline.left(instant).as_secs_f64();
        self.forecast.on_arrival(left);
        let waiting = self.queue.len();
        let gap = if is_predictable { self.gap(now, supply, supply.connections) } else { None };
        let Some(gap) = gap else {
            if waiting < longest {
                return Ok(());
            }
            return Err(Refusal::Shed(
                ShedReason::QueueFull,
                self.retry_after(now, supply, waiting + 1 - longest, 0.0),
            ));
        };

        let wait = self.expected_wait(now, supply, gap);
        let wait_budget = self.forecast.wait_budget();
        let is_overloaded = self.shadows.is_overloaded(now, wait_budget);
        let working = self.forecast.working();
        let work = || if is_overloaded { self.leases.long(working) } else { self.leases.typical(working) };
        let budget = wait_policy.wait_budget(left, work);
        if waiting < longest && wait <= budget && !is_overloaded && self.shadows.are_alike() {
            return Ok(());
        }
        let connections = supply.connections;
        let depth = if is_overloaded { self.shadows.depth(now, wait_budget, gap, connections) } else { None };
        let prediction = self.predict(instant, connections, gap, wait, budget, is_overloaded);
        let most = depth.map_or(longest, |depth| depth.min(longest));
        let is_admitted = waiting < most && prediction.is_in_time;
        let fits_behind = prediction.fits_behind.min(longest as f64 - 1.0);
        if !prediction.is_stalled {
            let arrival = Arrival { waiting, fits_behind, is_admitted, is_overloaded, connections, wait_budget };
            self.shadows.on_arrival(now, arrival);
        }
        if is_admitted {
            return Ok(());
        }
        let retry_after = self.retry_after(now, supply, (waiting + 1).saturating_sub(most), prediction.too_long);
        Err(if waiting >= longest {
            Refusal::Shed(ShedReason::QueueFull, retry_after)
        } else if prediction.is_in_time {
            Refusal::Shed(ShedReason::Overloaded, retry_after)
        } else {
            Refusal::Shed(ShedReason::Hopeless, retry_after)
        })
    }

    /// Predicts for a newcomer that would wait for `wait` seconds and can wait for `budget` seconds.
    fn predict(
        &self,
        now: Instant,
        connections: usize,
        gap: f64,
        wait: f64,
        budget: f64,
        is_overloaded: bool,
    ) -> Prediction {
        let Self { queue, forecast, .. } = self;
        let waiting = queue.len();
        let evenly = gap * (waiting + 1) as f64;
        // In a stall no caller is served, even if others leave, and no margin for chance helps.
        let is_stalled = wait > evenly;
        let error = if is_overloaded { 0.0 } else { gap * forecast.error(budget / gap, connections) };
        let is_in_time = if is_stalled {
            wait <= budget
        } else {
            wait - error <= budget || queue.wait_behind_leavers(now, gap) + gap * (connections + 1) as f64 <= budget
        };
        let too_long = (wait - budget).max(0.0);
        // A stall says nothing about how many could be served.
        let fits_behind = waiting as f64 + (budget + error - wait.min(evenly)) / gap;
        Prediction {
            fits_behind: if is_in_time { fits_behind.max(waiting as f64) } else { fits_behind },
            is_in_time,
            is_stalled,
            too_long,
        }
    }

    /// When a refused caller may come back: once `served` callers were served, the wait is shorter by `too_long`
    /// seconds, and one more connection came back, because estimates vary by that much. Refused callers get different
    /// times.
    fn retry_after(&mut self, now: Time, supply: &Supply, served: usize, too_long: f64) -> Duration {
        let seconds = match self.gap(now, supply, supply.in_use) {
            Some(gap) => {
                let wait = self.forecast.wait(now, served, gap, self.progress(supply));
                self.appointments.make(now, wait.max(too_long + gap), gap)
            }
            None => self.forecast.wait_budget(),
        };
        Duration::from_secs_f64(seconds)
    }

    fn expected_wait(&self, now: Time, supply: &Supply, gap: f64) -> f64 {
        let (Self { queue, forecast, .. }, progress) = (self, self.progress(supply));
        if supply.is_growing {
            (gap * (queue.len() + 1) as f64).max(forecast.stall(now, gap, progress))
        } else {
            forecast.wait(now, queue.len(), gap, progress)
        }
    }

    /// How many seconds a caller must have left when its turn comes: those of a typical lease, or of a longer one if
    /// other waiters can use the connection. `in_use`: the lane's connections.
    ///
    /// In an overload they can, and nearly any lease must fit. A small pool is an exception: there a connection that
    /// waits for the next caller is idle for a large part of a lease. Without an overload they can if as many waiters
    /// as there are connections have the time for a longer lease. These are the ones behind the first waiters, or, when
    /// the last two leases show that leases have become longer, the last ones.
    pub(super) fn lease_to_fit(&mut self, now: Instant, time: Time, in_use: usize) -> Option<f64> {
        let Self { queue, forecast, leases, shadows, .. } = self;
        let working = forecast.working();
        let long = leases.long(working)?;
        if !LeaseDurations::is_small(working) && shadows.is_overloaded(time, forecast.wait_budget()) {
            return Some(long * MARGIN);
        }
        let fits = |lease: f64, deadline: Option<Deadline>| {
            deadline.is_some_and(|deadline| deadline.left(now).as_secs_f64() > lease)
        };
        if fits(long, queue.deadline_behind(in_use)) {
            return Some(long);
        }
        let recent = leases.recent(working)?;
        if fits(recent, queue.deadline_of_last(in_use)) {
            return Some(recent);
        }
        leases.typical(working)
    }
}
