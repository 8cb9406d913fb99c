//! How long would a caller wait for a connection?
//!
//! By Little's law, the wait is `(callers ahead + 1) x lease duration / connections`. The pool measures the lease
//! duration while no connection is idle: connection-seconds of work, divided by releases.
//!
//! Two averages decay, one over the callers' wait budget, the other over four times that. The smaller one counts. So a
//! lasting slowdown raises the estimate, and a single stall does not. If all connections are given back at once, few
//! releases happen while no connection is idle. So the mean of the leases themselves is a second upper bound.
//!
//! The averages decay while the pool is idle too. The module predicts nothing before it has seen three releases.

use std::time::Duration;

use super::Time;

/// Fewer releases than this are no estimate.
const ENOUGH: f64 = 3.0;
/// The longer average covers this many wait budgets.
const LONG: f64 = 4.0;
/// The pool is stalled after this many times the usual gap without a release.
const STALLED: f64 = 3.0;
/// A stall also lasts at least this many wait budgets. If leases differ much, one long lease is no stall.
const STALLED_BUDGETS: f64 = 1.0;
/// The weight of one caller in the average wait budget.
const WEIGHT: f64 = 1.0 / 16.0;
/// A caller counts with at most this many average wait budgets. So one with a deadline in years raises the average to
/// 17 times, and not to years.
const OUTLIER: f64 = 256.0;
/// A caller that would wait for more than an hour counts as one that would wait an hour. Otherwise a few in a hundred
/// that wait for ever would stop the decay of the averages.
const LONGEST_BUDGET: f64 = 3_600.0;
/// Averages decay in steps of this part of the wait budget, so that they cost little.
const STEP: f64 = 1.0 / 32.0;
/// A prediction may be wrong by this many standard deviations.
const DEVIATIONS: f64 = 2.0;
const SHORTEST_BUDGET: f64 = 0.001;

#[derive(Debug)]
pub(crate) struct Forecast {
    /// The callers' average wait budget, in seconds.
    wait_budget: f64,
    short: Flow,
    long: Flow,
    /// When the averages last decayed.
    aged: Time,
    /// The end of the time whose work has been counted.
    counted: Time,
    /// Connections in use while none is idle; 0 while one is idle.
    working: usize,
    /// The later of the last release and `busy_since`.
    progress: Time,
    /// When the last idle connection was taken.
    busy_since: Time,
}

/// Work, releases and leases of known length while no connection was idle. All sums decay.
#[derive(Debug, Default)]
struct Flow {
    connection_seconds: f64,
    releases: f64,
    lease_seconds: f64,
    leases: f64,
    lease_squares: f64,
}

impl Flow {
    fn leak(&mut self, factor: f64) {
        self.connection_seconds *= factor;
        self.releases *= factor;
        self.lease_seconds *= factor;
        self.leases *= factor;
        self.lease_squares *= factor;
    }

    fn on_lease(&mut self, seconds: f64) {
        self.lease_seconds += seconds;
        self.leases += 1.0;
        self.lease_squares += seconds * seconds;
    }

    /// Returns how much leases differ: their variance, divided by the square of their mean.
    fn dispersion(&self) -> f64 {
        let squares = self.lease_squares * self.leases / (self.lease_seconds * self.lease_seconds);
        if squares.is_finite() { (squares - 1.0).max(0.0) } else { 0.0 }
    }

    /// Returns the lease duration as the two parts of a quotient: seconds and leases.
    fn lease(&self) -> Option<(f64, f64)> {
        let by_work = (self.releases >= ENOUGH).then_some((self.connection_seconds, self.releases))?;
        Some(if self.leases >= ENOUGH { smaller(by_work, (self.lease_seconds, self.leases)) } else { by_work })
    }
}

impl Forecast {
    /// `wait_budget` is the expected wait budget until callers have shown theirs.
    pub(crate) fn new(wait_budget: Duration) -> Self {
        Self {
            wait_budget: wait_budget.as_secs_f64().max(SHORTEST_BUDGET),
            short: Flow::default(),
            long: Flow::default(),
            aged: Time::BEGIN,
            counted: Time::BEGIN,
            working: 0,
            progress: Time::BEGIN,
            busy_since: Time::BEGIN,
        }
    }

    /// From now on `working` connections are in use and none is idle. 0 if a connection is idle.
    pub(crate) fn on_working(&mut self, now: Time, working: usize) {
        self.count(now);
        if self.working == 0 && working > 0 {
            (self.progress, self.busy_since) = (now, now);
        }
        self.working = working;
    }

    /// Returns whether a connection is idle, so that no work is counted.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.working == 0
    }

    /// Returns the connections in use while none is idle; 0 while one is idle.
    pub(crate) fn working(&self) -> usize {
        self.working
    }

    /// A lease of this duration has ended. The caller calls this before [`on_working`](Self::on_working).
    pub(crate) fn on_release(&mut self, now: Time, seconds: f64) {
        if self.working > 0 {
            self.short.on_lease(seconds);
            self.long.on_lease(seconds);
        }
        self.on_end(now);
    }

    /// Returns for how many seconds no connection has been idle; 0 while one is idle.
    pub(crate) fn busy_for(&self, now: Time) -> f64 {
        if self.working > 0 { now.since(self.busy_since) } else { 0.0 }
    }

    /// A lease has ended without a release. The caller calls this before [`on_working`](Self::on_working).
    /// [`on_release`](Self::on_release) calls it too.
    pub(crate) fn on_end(&mut self, now: Time) {
        if self.working > 0 {
            self.count(now);
            self.progress = now;
            self.short.releases += 1.0;
            self.long.releases += 1.0;
        }
    }

    /// A caller with this wait budget arrived while no connection was idle.
    pub(crate) fn on_arrival(&mut self, wait_budget: f64) {
        let wait_budget = wait_budget.min(self.wait_budget * OUTLIER).min(LONGEST_BUDGET);
        self.wait_budget += (wait_budget - self.wait_budget) * WEIGHT;
        self.wait_budget = self.wait_budget.max(SHORTEST_BUDGET);
    }

    /// Returns how long a caller behind `ahead` others would wait, in seconds. `gap` is [`gap`](Self::gap), and
    /// `progress` is [`progress`](Self::progress), or later if others give connections back to these callers.
    ///
    /// A `Duration` would cost a conversion while other callers contend for the lock.
    pub(crate) fn wait(&self, now: Time, ahead: usize, gap: f64, progress: Time) -> f64 {
        let since = now.since(progress);
        let wait = gap * (ahead + 1) as f64 - since.min(gap);
        wait.max(self.stall(now, gap, progress))
    }

    /// Returns the later of the last release and the time since which no connection is idle.
    pub(crate) fn progress(&self) -> Time {
        self.progress
    }

    /// Returns for how many seconds the pool has been stalled; 0 if it is not. A stall is expected to last as long
    /// again.
    pub(crate) fn stall(&self, now: Time, gap: f64, progress: Time) -> f64 {
        let since = now.since(progress);
        let is_stalled = self.working > 0 && since > (gap * STALLED).max(self.wait_budget * STALLED_BUDGETS);
        if is_stalled { since } else { 0.0 }
    }

    /// Returns the mean time from one release to the next, in seconds. `None` while too few releases are known.
    pub(crate) fn gap(&mut self, now: Time, connections: usize) -> Option<f64> {
        self.count(now);
        self.leak(now);
        let (seconds, leases) = match (self.short.lease(), self.long.lease()) {
            (Some(short), Some(long)) => smaller(short, long),
            (short, long) => short.or(long)?,
        };
        Some(seconds / (leases * connections.max(1) as f64))
    }

    /// Returns by how many gaps a predicted wait of `gaps` gaps may be wrong. All connections may be given back at
    /// once. If leases differ, the leases ahead of the caller may be long, and so may the leases of the estimate.
    pub(crate) fn error(&self, gaps: f64, connections: usize) -> f64 {
        connections as f64 + DEVIATIONS * (2.0 * gaps.max(0.0) * self.long.dispersion()).sqrt()
    }

    /// Returns the callers' average wait budget, in seconds.
    pub(crate) fn wait_budget(&self) -> f64 {
        self.wait_budget
    }

    fn count(&mut self, now: Time) {
        let since = std::mem::replace(&mut self.counted, now);
        if self.working == 0 || now <= since {
            return;
        }
        let work = now.since(since) * self.working as f64;
        self.short.connection_seconds += work;
        self.long.connection_seconds += work;
        self.leak(now);
    }

    fn leak(&mut self, now: Time) {
        let since = now.since(self.aged);
        if since < self.wait_budget * STEP {
            return;
        }
        let budgets = since / self.wait_budget;
        self.aged = now;
        self.short.leak((-budgets).exp());
        self.long.leak((-budgets / LONG).exp());
    }
}

/// Returns the smaller of two quotients.
fn smaller(one: (f64, f64), other: (f64, f64)) -> (f64, f64) {
    if one.0 * other.1 <= other.0 * one.1 { one } else { other }
}

#[cfg(test)]
mod tests;
