//! Which operations have longer leases than usual, and how much of the pool does that cost?
//!
//! All is reckoned in connection-seconds of one window: what an operation has used, and what the same leases usually
//! take. The ratio of both sums over the ten busiest operations is the inflation. A global duration would move when the
//! mix of operations moves; this does not.
//!
//! A lease that has not ended counts as soon as it is overdue, so that an operation that is stuck is seen.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::baseline::Baseline;
use super::window::WINDOW;
use crate::operation::Operation;

/// The number of operations remembered. The least recently seen one is forgotten first.
const OPERATIONS: NonZeroUsize = NonZeroUsize::new(256).expect("more than none");
/// So many operations, by what they usually use, make the inflation.
const BUSIEST: usize = 10;
/// Added to each duration, in seconds: differences of less do not come from the database.
const NOISE: f64 = 0.001;
/// A lease is overdue when it has lasted for so many times its usual duration, and so many seconds.
const OVERDUE: (f64, f64) = (3.0, 0.01);
/// One operation is the cause if it has more than this share of what all use beyond the usual.
const GUILTY: f64 = 0.8;
/// An operation holds nearly all connections from this share on.
const NEARLY_ALL: f64 = 0.9;
/// The inflation below which operations are normal, and from which on they are inflated.
pub(super) const NORMAL: f64 = 1.3;
pub(super) const INFLATED: f64 = 1.5;
/// Fewer leases say nothing about an operation.
const FEW: f64 = 3.0;
/// What is used beyond the usual matters from this share of the pool on.
const COSTLY: f64 = 0.1;
/// Peaks of connections in use are kept for an hour, in buckets.
const BUCKET: Duration = Duration::from_secs(600);
const BUCKETS: usize = 7;

#[derive(Debug)]
pub(super) struct Operations(LruCache<Operation, Usage>);

#[derive(Debug, Default)]
struct Usage {
    baseline: Baseline,
    /// The leases of this window that have ended.
    leases: f64,
    seconds: f64,
    /// At the latest look: leases that have not ended.
    held: usize,
    /// Of them, the overdue ones. Filled in at the end of a window.
    overdue: f64,
    overdue_seconds: f64,
    /// The most that were held at a look of this window.
    peak: usize,
    /// The peaks of calm windows.
    peaks: VecDeque<(Instant, usize)>,
}

/// What an operation, or several, used in a window.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    /// Leases that ended, and overdue ones.
    leases: f64,
    /// Connection-seconds.
    used: f64,
    expected: f64,
}

impl Used {
    fn add(self, other: Self) -> Self {
        let (leases, used, expected) =
            (self.leases + other.leases, self.used + other.used, self.expected + other.expected);
        Self { leases, used, expected }
    }

    fn excess(self) -> f64 {
        (self.used - self.expected).max(0.0)
    }

    fn ratio(self) -> f64 {
        let noise = self.leases * NOISE;
        (self.used + noise) / (self.expected + noise)
    }

    fn inflation(self) -> Option<f64> {
        (self.leases >= FEW).then(|| self.ratio())
    }
}

/// What a window has shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Inflation {
    /// Of the busiest operations, capped ones included.
    pub(super) all: Option<f64>,
    /// Without the capped ones.
    pub(super) free: Option<f64>,
    /// The operation that is the cause by itself, with its own inflation. Never a capped one.
    pub(super) guilty: Option<(Operation, f64)>,
    /// How much the excess of all takes of the pool, and that of those without the capped ones. From 1 on it matters.
    pub(super) cost: f64,
    pub(super) free_cost: f64,
    /// Most connections in use are overdue. Then few leases end, and that says enough.
    pub(super) is_stuck: bool,
}

impl Inflation {
    pub(super) fn is_inflated(&self) -> bool {
        self.cost >= 1.0 && self.all.is_some_and(|inflation| inflation >= INFLATED)
    }

    /// Leases are normal again, or what they cost no longer matters: far from [`is_inflated`](Self::is_inflated), so
    /// that it does not flicker.
    pub(super) fn is_over(&self) -> bool {
        self.cost < 0.5 || self.all.is_none_or(|inflation| inflation < NORMAL)
    }

    /// The same without the capped operations.
    pub(super) fn is_free_over(&self) -> bool {
        self.free_cost < 0.5 || self.free.is_none_or(|inflation| inflation < NORMAL)
    }

    /// As [`is_inflated`](Self::is_inflated), without the capped operations.
    pub(super) fn is_free_inflated(&self) -> bool {
        self.free_cost >= 1.0 && self.free.is_some_and(|inflation| inflation >= INFLATED)
    }
}

impl Operations {
    pub(super) fn new() -> Self {
        Self(LruCache::new(OPERATIONS))
    }

    /// A lease has ended. `is_calm`: few connections are in use, so its duration may be a usual one.
    pub(super) fn record(&mut self, now: Instant, operation: Operation, seconds: f64, is_calm: bool) {
        let usage = self.0.get_or_insert_mut(operation, Usage::default);
        usage.leases += 1.0;
        usage.seconds += seconds;
        if is_calm {
            usage.baseline.record(now, seconds);
        }
    }

    /// Looks at the leases that have not ended: their operations and ages.
    pub(super) fn look(&mut self, now: Instant, held: &[(Operation, Duration)]) {
        for (_, usage) in &mut self.0 {
            (usage.held, usage.overdue, usage.overdue_seconds) = (0, 0.0, 0.0);
        }
        for (operation, age) in held {
            let usage = self.0.get_or_insert_mut(*operation, Usage::default);
            usage.held += 1;
            usage.peak = usage.peak.max(usage.held);
            let (age, usual) = (age.as_secs_f64(), usage.baseline.usual(now));
            let (times, more) = OVERDUE;
            if let Some(usual) = usual.filter(|usual| age > usual * times + more) {
                usage.overdue += 1.0;
                usage.overdue_seconds += (age - usual).min(WINDOW.as_secs_f64());
            }
        }
    }

    /// The most connections that the operation has had while the pool was calm, within the last hour: at least 1.
    pub(super) fn usual_concurrency(&self, operation: Operation) -> usize {
        let usage = self.0.peek(&operation);
        usage.and_then(|usage| usage.peaks.iter().map(|(_, peak)| *peak).max()).unwrap_or(0).max(1)
    }

    /// Ends a window. `scale` is how many leases ended for each recorded one, `limit` how many connections the pool may
    /// use.
    pub(super) fn close(
        &mut self,
        now: Instant,
        scale: f64,
        limit: usize,
        is_capped: impl Fn(Operation) -> bool,
    ) -> Inflation {
        let costly = limit as f64 * WINDOW.as_secs_f64() * COSTLY;
        let mut all: Vec<(Operation, Used)> = Vec::new();
        let (mut held, mut overdue) = (0.0, 0.0);
        for (operation, usage) in &mut self.0 {
            held += usage.held as f64;
            overdue += usage.overdue;
            all.extend(usage.used(now, scale).map(|used| (*operation, used)));
        }
        all.sort_by(|(_, one), (_, other)| other.expected.total_cmp(&one.expected));
        all.truncate(BUSIEST);
        let sum = |keep: &dyn Fn(Operation) -> bool| {
            let kept = all.iter().filter(|(operation, _)| keep(*operation));
            kept.fold(Used::default(), |sum, (_, used)| sum.add(*used))
        };
        let free = sum(&|operation| !is_capped(operation));
        let most = all.iter().filter(|(operation, _)| !is_capped(*operation));
        let most = most.max_by(|(_, one), (_, other)| one.excess().total_cmp(&other.excess()));
        let guilty = most.and_then(|(operation, used)| {
            let others = sum(&|other| other != *operation && !is_capped(other));
            // Others of which few leases have ended may be slow as well, unless this one is stuck and holds nearly all
            // connections.
            let are_normal = match others.inflation() {
                Some(inflation) => inflation < NORMAL,
                None => self.0.peek(operation).is_some_and(|usage| usage.is_stuck(scale, held)),
            };
            let inflation = used.inflation().filter(|inflation| *inflation >= INFLATED)?;
            let excess: f64 = all.iter().filter(|(other, _)| !is_capped(*other)).map(|(_, used)| used.excess()).sum();
            let is_most = used.excess() > excess * GUILTY && used.excess() >= costly;
            (is_most && are_normal && self.knows_others(*operation)).then_some((*operation, inflation))
        });
        let everything = sum(&|_| true);
        let inflation = Inflation {
            all: everything.inflation(),
            free: free.inflation(),
            guilty,
            cost: everything.excess() / costly,
            free_cost: free.excess() / costly,
            is_stuck: held > 0.0 && overdue * 2.0 >= held,
        };
        let is_calm = inflation.all.is_some_and(|inflation| inflation < NORMAL);
        for (_, usage) in &mut self.0 {
            usage.end_window(now, is_calm);
        }
        inflation
    }

    /// The inflation of one operation in the window that ends, however few leases it had. `None` if it had none. Call
    /// it before [`close`](Self::close).
    pub(super) fn inflation_of(&mut self, now: Instant, operation: Operation, scale: f64) -> Option<f64> {
        Some(self.0.peek_mut(&operation)?.used(now, scale)?.ratio())
    }

    /// Whether the usual duration of another operation is known: one operation alone is the load, not the cause.
    fn knows_others(&self, operation: Operation) -> bool {
        self.0.iter().any(|(other, usage)| *other != operation && usage.baseline.is_known())
    }
}

impl Usage {
    /// `None` if the usual duration is not known, or nothing was used.
    fn used(&mut self, now: Instant, scale: f64) -> Option<Used> {
        let usual = self.baseline.usual(now)?;
        let leases = self.leases * scale;
        let of_overdue = self.overdue * usual.min(WINDOW.as_secs_f64());
        let used = Used {
            leases: leases + self.overdue,
            used: self.seconds * scale + of_overdue + self.overdue_seconds,
            expected: leases * usual + of_overdue,
        };
        (used.leases > 0.0).then_some(used)
    }

    /// Fewer of its leases have ended than are overdue, and it holds nearly all connections that are `held`.
    fn is_stuck(&self, scale: f64, held: f64) -> bool {
        self.leases * scale < self.overdue && self.held as f64 >= held * NEARLY_ALL
    }

    fn end_window(&mut self, now: Instant, is_calm: bool) {
        if is_calm && self.peak > 0 {
            match self.peaks.back_mut() {
                Some((begun, peak)) if now.saturating_duration_since(*begun) < BUCKET => {
                    *peak = (*peak).max(self.peak);
                }
                _ => self.peaks.push_back((now, self.peak)),
            }
            if self.peaks.len() > BUCKETS {
                self.peaks.pop_front();
            }
        }
        (self.leases, self.seconds, self.peak) = (0.0, 0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const READ: Operation = Operation::Named("read");
    const REPORT: Operation = Operation::Named("report");

    /// Operations with usual durations of 10 ms and 1 s.
    fn known(now: Instant) -> Operations {
        let mut operations = Operations::new();
        for _ in 0..60 {
            operations.record(now, READ, 0.01, true);
            operations.record(now, REPORT, 1.0, true);
        }
        operations.look(now, &[(READ, SECOND / 100), (READ, SECOND / 100), (REPORT, SECOND)]);
        operations.close(now, 1.0, 10, |_| false);
        operations
    }

    fn leases(operations: &mut Operations, now: Instant, operation: Operation, seconds: f64, count: usize) {
        (0..count).for_each(|_| operations.record(now, operation, seconds, false));
    }

    #[test]
    fn a_shift_to_slow_reports_is_no_inflation() {
        let now = Instant::now();
        let mut operations = known(now);
        leases(&mut operations, now, READ, 0.01, 20);
        leases(&mut operations, now, REPORT, 1.0, 40);
        let inflation = operations.close(now, 1.0, 10, |_| false);
        assert!((inflation.all.unwrap() - 1.0).abs() < 0.01 && inflation.guilty.is_none(), "{inflation:?}");
    }

    #[test]
    fn one_slow_operation_among_normal_ones_is_the_cause() {
        let now = Instant::now();
        let mut operations = known(now);
        leases(&mut operations, now, READ, 0.01, 100);
        leases(&mut operations, now, REPORT, 9.0, 5);
        let inflation = operations.close(now, 1.0, 10, |_| false);
        assert!(inflation.guilty.is_some_and(|(operation, _)| operation == REPORT), "{inflation:?}");
        leases(&mut operations, now, READ, 0.05, 100);
        leases(&mut operations, now, REPORT, 9.0, 20);
        let inflation = operations.close(now, 1.0, 10, |_| false);
        assert!(inflation.guilty.is_none() && inflation.all.unwrap() > 5.0, "all are slow: {inflation:?}");
    }

    /// A pool with one operation has nobody else to protect.
    #[test]
    fn an_only_operation_is_not_the_cause() {
        let now = Instant::now();
        let mut operations = Operations::new();
        (0..60).for_each(|_| operations.record(now, READ, 0.01, true));
        operations.close(now, 1.0, 10, |_| false);
        leases(&mut operations, now, READ, 0.05, 100);
        let inflation = operations.close(now, 1.0, 10, |_| false);
        assert!(inflation.guilty.is_none() && inflation.all.unwrap() > 3.0, "{inflation:?}");
    }

    #[test]
    fn leases_that_never_end_are_seen() {
        let now = Instant::now();
        let mut operations = known(now);
        operations.look(now, &vec![(READ, 3 * SECOND); 10]);
        let inflation = operations.close(now, 1.0, 10, |_| false);
        assert!(inflation.is_stuck && inflation.guilty.is_some_and(|(operation, _)| operation == READ));
        assert_eq!(operations.usual_concurrency(READ), 2, "what is stuck is not usual");
    }

    /// Differences of less than a millisecond come from the scheduler, not from the database.
    #[test]
    fn tiny_leases_are_not_inflated_by_noise() {
        let now = Instant::now();
        let mut operations = Operations::new();
        (0..60).for_each(|_| operations.record(now, READ, 0.000_2, true));
        operations.close(now, 1.0, 10, |_| false);
        leases(&mut operations, now, READ, 0.000_5, 100);
        assert!(operations.close(now, 1.0, 10, |_| false).all.unwrap() < NORMAL);
    }

    #[test]
    fn a_capped_operation_does_not_count_as_free() {
        let now = Instant::now();
        let mut operations = known(now);
        leases(&mut operations, now, READ, 0.01, 100);
        leases(&mut operations, now, REPORT, 9.0, 10);
        let inflation = operations.close(now, 1.0, 10, |operation| operation == REPORT);
        assert!(inflation.all.unwrap() > 5.0 && inflation.free.unwrap() < 1.1 && inflation.guilty.is_none());
    }
}
