//! How long would a caller wait for a connection?
//!
//! By Little's law, `(callers ahead + 1) x lease duration / connections`. The lease duration is measured where it
//! matters, while nothing is idle: connection-seconds of work, divided by releases. Two averages leak, one over the
//! wait budget that callers have, one over four times that. The smaller one counts, so that a stall is forgiven and a
//! lasting slowdown is not. Where all connections are given back at once, few releases happen while nothing is idle;
//! the mean of the leases themselves is a second upper bound.
//!
//! The estimates leak away while the pool rests. The module predicts nothing before it has seen three releases.

use std::time::Duration;

use super::Time;

/// Fewer releases than this are no estimate.
const ENOUGH: f64 = 3.0;
/// The longer average covers so many wait budgets.
const LONG: f64 = 4.0;
/// When nothing was released for so many times the usual gap, the pool is stalled.
const STALLED: f64 = 3.0;
/// And for so many wait budgets: where leases differ much, a long one is no stall.
const STALLED_BUDGETS: f64 = 1.0;
/// The weight of one caller in the average wait budget.
const WEIGHT: f64 = 1.0 / 16.0;
/// Averages leak in steps of this part of the wait budget: seldom enough to cost nothing.
const STEP: f64 = 1.0 / 32.0;
/// A prediction may be wrong by so many standard deviations.
const DEVIATIONS: f64 = 2.0;
const SHORTEST_BUDGET: f64 = 0.001;

#[derive(Debug)]
pub(crate) struct Forecast {
    /// The time that callers have for waiting, on average, in seconds.
    wait_budget: f64,
    short: Flow,
    long: Flow,
    /// Up to here the averages have leaked, and up to here work has been counted.
    aged: Time,
    counted: Time,
    /// When the averages leak next.
    ages_at: Time,
    /// Connections at work while nothing is idle; 0 while something is.
    working: usize,
    /// The later of the last release and the moment since which nothing is idle.
    progress: Time,
    /// The moment since which nothing is idle.
    busy_since: Time,
}

/// Work and releases while nothing was idle, and the leases among them whose length is known. Leaking.
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

    /// How much leases differ: their variance, divided by the square of their mean.
    fn dispersion(&self) -> f64 {
        let squares = self.lease_squares * self.leases / (self.lease_seconds * self.lease_seconds);
        if squares.is_finite() { (squares - 1.0).max(0.0) } else { 0.0 }
    }

    /// The lease time as a quotient of seconds by leases.
    fn lease(&self) -> Option<(f64, f64)> {
        let by_work = (self.releases >= ENOUGH).then_some((self.connection_seconds, self.releases))?;
        Some(if self.leases >= ENOUGH { smaller(by_work, (self.lease_seconds, self.leases)) } else { by_work })
    }
}

impl Forecast {
    /// `wait_budget`: the time that callers are expected to have, until they show it.
    pub(crate) fn new(wait_budget: Duration) -> Self {
        Self {
            wait_budget: wait_budget.as_secs_f64().max(SHORTEST_BUDGET),
            short: Flow::default(),
            long: Flow::default(),
            aged: Time::BEGIN,
            counted: Time::BEGIN,
            ages_at: Time::BEGIN,
            working: 0,
            progress: Time::BEGIN,
            busy_since: Time::BEGIN,
        }
    }

    /// From now on, nothing is idle and `working` connections are at work; or something is idle (0).
    pub(crate) fn on_working(&mut self, now: Time, working: usize) {
        self.count(now);
        if self.working == 0 && working > 0 {
            (self.progress, self.busy_since) = (now, now);
        }
        self.working = working;
    }

    /// Whether something is idle, so that no work is counted.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.working == 0
    }

    /// Connections at work while nothing is idle; 0 while something is.
    pub(crate) fn working(&self) -> usize {
        self.working
    }

    /// A lease of this duration has ended. Reported before [`on_working`](Self::on_working).
    pub(crate) fn on_release(&mut self, now: Time, seconds: f64) {
        if self.working > 0 {
            self.short.on_lease(seconds);
            self.long.on_lease(seconds);
        }
        self.on_end(now);
    }

    /// For how many seconds nothing has been idle; 0 while something is.
    pub(crate) fn busy_for(&self, now: Time) -> f64 {
        if self.working > 0 { now.since(self.busy_since) } else { 0.0 }
    }

    /// A lease has ended, in whatever way; [`on_release`](Self::on_release) reports so itself. Reported before
    /// [`on_working`](Self::on_working).
    pub(crate) fn on_end(&mut self, now: Time) {
        if self.working > 0 {
            self.count(now);
            self.progress = now;
            self.short.releases += 1.0;
            self.long.releases += 1.0;
        }
    }

    /// A caller with this wait budget asks while nothing is idle.
    pub(crate) fn on_arrival(&mut self, wait_budget: f64) {
        self.wait_budget += (wait_budget - self.wait_budget) * WEIGHT;
        self.wait_budget = self.wait_budget.max(SHORTEST_BUDGET);
    }

    /// How long a caller behind `ahead` others would wait, with so long a [`gap`](Self::gap).
    /// In seconds, so that callers who contend for the lock do not wait for conversions.
    pub(crate) fn wait(&self, now: Time, ahead: usize, gap: f64) -> f64 {
        let since = now.since(self.progress);
        let wait = gap * (ahead + 1) as f64 - since.min(gap);
        wait.max(self.stall(now, gap))
    }

    /// How long nothing has been given back, in seconds, if that is a stall: it is expected to last as long again. Else
    /// 0.
    pub(crate) fn stall(&self, now: Time, gap: f64) -> f64 {
        let since = now.since(self.progress);
        let is_stalled = self.working > 0 && since > (gap * STALLED).max(self.wait_budget * STALLED_BUDGETS);
        if is_stalled { since } else { 0.0 }
    }

    /// The mean time from one release to the next, in seconds. `None` as long as nobody knows.
    pub(crate) fn gap(&mut self, now: Time, connections: usize) -> Option<f64> {
        self.count(now);
        self.leak(now);
        let (seconds, leases) = match (self.short.lease(), self.long.lease()) {
            (Some(short), Some(long)) => smaller(short, long),
            (short, long) => short.or(long)?,
        };
        Some(seconds / (leases * connections.max(1) as f64))
    }

    /// By how much a predicted wait of so many gaps may be wrong, in gaps. All connections may be given back at once;
    /// and where leases differ, both those ahead of a caller and those behind the estimate may be long ones.
    pub(crate) fn error(&self, gaps: f64, connections: usize) -> f64 {
        connections as f64 + DEVIATIONS * (2.0 * gaps.max(0.0) * self.long.dispersion()).sqrt()
    }

    /// The time that callers have for waiting, on average, in seconds.
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
        if now < self.ages_at {
            return;
        }
        let budgets = now.since(self.aged) / self.wait_budget;
        self.aged = now;
        self.ages_at = now.after(self.wait_budget * STEP);
        self.short.leak((-budgets).exp());
        self.long.leak((-budgets / LONG).exp());
    }
}

/// The smaller of two quotients.
fn smaller(one: (f64, f64), other: (f64, f64)) -> (f64, f64) {
    if one.0 * other.1 <= other.0 * one.1 { one } else { other }
}

#[cfg(test)]
mod tests;
