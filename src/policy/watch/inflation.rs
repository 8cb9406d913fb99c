//! Which operation holds its connections much longer than it used to?
//!
//! An average of a few leases is no measure: if 3% of them take a hundred times as long, three in ten may be chance. So
//! each lease is slow or not; a slow lease takes more than three times the usual average. The detector knows the usual
//! share of slow leases. Each lease adds evidence (one logarithm) that half of the leases are slow now. The sum never
//! falls below zero (CUSUM). Chance alone raises the alarm once in months; seven slow leases in a row raise it too.
//!
//! Suspect leases are kept apart from the usual ones, so that a slow operation does not become its own measure. A
//! connection still in use counts as soon as it is overdue, so a slow statement need not end first.
//!
//! The leases of callers in Critical and Normal give evidence of their own, too. It says whether these callers suffer,
//! or only those of Background.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

#[cfg(feature = "admin")]
use super::baseline::Baseline;
use super::finding::Finding;
use super::lasting::{DueReport, Lasting, Sign};
use crate::operation::Operation;
use crate::policy::Lane;

/// The number of operations remembered. The least recently seen one is forgotten first.
const OPERATIONS: NonZeroUsize = NonZeroUsize::new(256).expect("more than none");
/// The largest number of operations reported at a time. If more are slow, the server is the cause.
const MOST_REPORTED: usize = 3;
/// A slow lease takes more than this many times the usual average.
const SLOW: f64 = 3.0;
/// A slow lease also takes more than this many seconds. Shorter ones do no harm.
const NOTICEABLE: f64 = 0.002;
/// The usual average is known after this many leases.
const ENOUGH: f64 = 30.0;
/// The usual average is known after this many seconds.
const OLD: f64 = 10.0;
/// The time constant of the usual average, in seconds.
const LEAK: f64 = 3_600.0;
/// The share of slow leases of an inflated operation.
const INFLATED: f64 = 0.5;
/// The lowest share of slow leases that counts as usual.
const SELDOM: f64 = 0.02;
/// The prior of the usual share: this many slow leases among `PRIOR`, in addition to those that were seen.
const PRIOR_SLOW: f64 = 2.0;
const PRIOR: f64 = 20.0;
/// The evidence that raises the alarm. Chance alone reaches it once in e^16 seconds.
const ALARM: f64 = 16.0;
/// Evidence grows at most this far beyond the alarm, so that normal leases soon undo it.
const MARGIN: f64 = 4.0;
/// The least span of the evidence, in seconds. The time after which a lease is slow is subtracted, but at least half of
/// the span remains. Most stalls of the whole server are shorter.
const SPAN: f64 = 1.0;
/// The inflation ends after this time without it.
const CALM: Duration = Duration::from_secs(5);
/// The evidence of callers above Background is forgotten after this time without a slow lease of theirs.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// An inflation becomes usual when it has lasted as long as the operation was known before it, within these bounds in
/// seconds.
const USUAL: (f64, f64) = (300.0, 3_600.0);

#[derive(Debug)]
pub(super) struct Inflation {
    operations: LruCache<Operation, Usage>,
    /// Whether a caller of Background has ever had a connection.
    has_background: bool,
}

/// The leases of one operation.
#[derive(Debug)]
struct Usage {
    /// When the last lease ended.
    seen: Instant,
    /// The time from the first lease to the last, in seconds.
    age: f64,
    usual: Sum,
    /// The leases since the first evidence.
    suspect: Sum,
    /// When the first evidence came.
    suspected: Option<Instant>,
    evidence: f64,
    /// The overdue connections still in use. They have been counted as evidence.
    overdue: usize,
    /// The ages of the overdue connections at the last look.
    overdue_ages: Sum,
    above: Above,
    lasting: Lasting,
}

/// The evidence of callers above Background.
#[derive(Debug, Default)]
struct Above {
    evidence: f64,
    /// As in [`Usage`], of these callers.
    overdue: usize,
    /// The overdue connections that these callers have at this look.
    overdue_now: usize,
    /// When one of their leases was last slow.
    slow: Option<Instant>,
}

/// A sum of leases.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: f64,
    slow: f64,
    seconds: f64,
}

impl Inflation {
    pub(super) fn new() -> Self {
        Self { operations: LruCache::new(OPERATIONS), has_background: false }
    }

    /// A caller of this lane has given its connection back. The lease lasted so long.
    pub(super) fn record(&mut self, now: Instant, operation: Operation, lane: Lane, lasted: Duration) {
        self.has_background |= lane == Lane::Background;
        self.operations.get_or_insert_mut(operation, || Usage::new(now)).record(now, lane, lasted.as_secs_f64());
    }

    /// Returns the findings, the most expensive operation first. `running` has the operation, the lane and the age of
    /// each lease.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        running: impl IntoIterator<Item = (Operation, Lane, Duration)>,
    ) -> Vec<Finding> {
        self.operations
            .iter_mut()
            .for_each(|(_, usage)| (usage.overdue_ages, usage.above.overdue_now) = (Sum::default(), 0));
        for (operation, lane, held) in running {
            self.has_background |= lane == Lane::Background;
            if let Some(usage) = self.operations.peek_mut(&operation) {
                usage.look_at(lane, held.as_secs_f64());
            }
        }
        self.operations.iter_mut().for_each(|(_, usage)| usage.count_overdue(now));
        let guilty = self.guiltiest(now);
        let mut findings: Vec<(usize, Finding)> = Vec::new();
        for (operation, usage) in &mut self.operations {
            let place = guilty.iter().position(|guilty| guilty == operation);
            let finding = usage.finding(now, *operation, place.is_some());
            findings.extend(finding.map(|finding| (place.unwrap_or(MOST_REPORTED), finding)));
        }
        findings.sort_by_key(|(place, _)| *place);
        findings.into_iter().map(|(_, finding)| finding).collect()
    }

    /// Returns whether a caller of Background has ever had a connection.
    pub(super) fn has_background(&self) -> bool {
        self.has_background
    }

    /// Returns the operation that is inflated for callers above Background, and costs the pool the most connections.
    pub(super) fn worst_above_background(&self, now: Instant) -> Option<Operation> {
        let suffering = self.operations.iter().filter(|(_, usage)| usage.is_inflated_above_background(now));
        suffering.max_by(|(_, one), (_, other)| one.cost().total_cmp(&other.cost())).map(|(operation, _)| *operation)
    }

    /// Returns how long each operation usually holds a connection, by its name.
    #[cfg(feature = "admin")]
    pub(super) fn baselines(&self, now: Instant) -> Vec<Baseline> {
        let baseline = |(operation, usage): (&Operation, &Usage)| Baseline {
            operation: *operation,
            mean: seconds(usage.usual.mean()),
            leases: usage.usual.count.round() as u64,
            slow_after: usage.slow().map(seconds),
            inflated_to: usage.is_inflated(now).then(|| seconds(usage.now())),
        };
        let mut baselines: Vec<_> = self.operations.iter().map(baseline).collect();
        baselines.sort_by_cached_key(|baseline| baseline.operation.to_string());
        baselines
    }

    /// Returns the inflated operations that cost the pool the most connections, the most expensive first.
    fn guiltiest(&self, now: Instant) -> Vec<Operation> {
        let inflated = self.operations.iter().filter(|(_, usage)| usage.is_inflated(now));
        let mut guilty: Vec<_> = inflated.map(|(operation, usage)| (usage.cost(), *operation)).collect();
        guilty.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        guilty.into_iter().take(MOST_REPORTED).map(|(_, operation)| operation).collect()
    }
}

impl Usage {
    fn new(now: Instant) -> Self {
        Self {
            seen: now,
            age: 0.0,
            usual: Sum::default(),
            suspect: Sum::default(),
            suspected: None,
            evidence: 0.0,
            overdue: 0,
            overdue_ages: Sum::default(),
            above: Above::default(),
            lasting: Lasting::new(Duration::ZERO, CALM),
        }
    }

    fn record(&mut self, now: Instant, lane: Lane, lasted: f64) {
        self.age(now);
        let slow = self.slow().filter(|slow| lasted > *slow).is_some();
        if lane != Lane::Background {
            self.record_above(now, slow);
        }
        let sum = if self.suspected.is_some() { &mut self.suspect } else { &mut self.usual };
        let lease = Sum { count: 1.0, slow: f64::from(u8::from(slow)), seconds: lasted };
        if slow && self.overdue > 0 {
            // This lease was counted as evidence when it became overdue.
            self.overdue -= 1;
            sum.add(lease);
        } else if slow {
            self.suspect(now);
            self.suspect.add(lease);
        } else {
            sum.add(lease);
            self.clear();
        }
    }

    fn record_above(&mut self, now: Instant, slow: bool) {
        if !slow {
            self.above.evidence = (self.above.evidence + self.of_normal()).max(0.0);
            return;
        }
        self.above.slow = Some(now);
        if self.above.overdue > 0 {
            self.above.overdue -= 1;
        } else {
            self.suspect_above();
        }
    }

    /// Adds a connection still in use, if it is overdue.
    fn look_at(&mut self, lane: Lane, held: f64) {
        if self.slow().is_some_and(|slow| held > slow) {
            self.overdue_ages.add(Sum { count: 1.0, slow: 1.0, seconds: held });
            self.above.overdue_now += usize::from(lane != Lane::Background);
        }
    }

    fn count_overdue(&mut self, now: Instant) {
        let overdue = self.overdue_ages.count as usize;
        for _ in self.overdue..overdue {
            self.suspect(now);
        }
        self.overdue = overdue;
        for _ in self.above.overdue..self.above.overdue_now {
            self.suspect_above();
        }
        self.above.overdue = self.above.overdue_now;
        if self.above.overdue_now > 0 {
            self.above.slow = Some(now);
        } else if self.above.slow.is_some_and(|slow| now.saturating_duration_since(slow) >= FORGOTTEN) {
            self.above = Above::default();
        }
    }

    fn age(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.seen).as_secs_f64();
        self.seen = self.seen.max(now);
        if seconds > 0.0 {
            self.age += seconds;
            self.usual.scale((-seconds / LEAK).exp());
        }
    }

    /// Returns the seconds after which a lease is slow. `None` while too little is known.
    fn slow(&self) -> Option<f64> {
        let is_known = self.usual.count >= ENOUGH && self.age >= OLD;
        is_known.then(|| (self.usual.mean() * SLOW).max(NOTICEABLE))
    }

    /// Returns the usual share of slow leases.
    fn share(&self) -> f64 {
        ((self.usual.slow + PRIOR_SLOW) / (self.usual.count + PRIOR)).clamp(SELDOM, INFLATED)
    }

    /// Adds the evidence of one slow lease.
    fn suspect(&mut self, now: Instant) {
        self.suspected.get_or_insert(now);
        self.evidence = self.with_slow(self.evidence);
    }

    /// The same for a caller above Background.
    fn suspect_above(&mut self) {
        self.above.evidence = self.with_slow(self.above.evidence);
    }

    /// Returns the evidence after one more slow lease.
    fn with_slow(&self, evidence: f64) -> f64 {
        (evidence + (INFLATED / self.share()).ln()).min(self.alarm() + MARGIN)
    }

    /// Returns the evidence of one normal lease, which is negative.
    fn of_normal(&self) -> f64 {
        ((1.0 - INFLATED) / (1.0 - self.share())).ln()
    }

    /// Subtracts the evidence of one normal lease.
    fn clear(&mut self) {
        self.evidence += self.of_normal();
        if self.evidence > 0.0 {
            return;
        }
        self.evidence = 0.0;
        if self.suspected.take().is_some() && !self.lasting.is_reported() {
            self.usual.add(self.suspect);
        }
        self.suspect = Sum::default();
    }

    /// Returns the evidence that raises the alarm. A frequent operation needs more, because chance has more tries.
    fn alarm(&self) -> f64 {
        ALARM + self.rate().ln_1p()
    }

    /// Returns the leases per second.
    fn rate(&self) -> f64 {
        self.usual.count / self.age.clamp(1.0, LEAK)
    }

    fn is_inflated(&self, now: Instant) -> bool {
        let (Some(slow), Some(suspected)) = (self.slow(), self.suspected) else { return false };
        let span = now.saturating_duration_since(suspected).as_secs_f64();
        self.evidence >= self.alarm() && span >= (SPAN - slow).max(SPAN / 2.0) && self.now() > slow
    }

    /// Returns whether the operation is inflated, and the callers above Background are evidence enough.
    fn is_inflated_above_background(&self, now: Instant) -> bool {
        self.above.evidence >= self.alarm() && self.is_inflated(now)
    }

    /// Returns how long the operation holds a connection now: the mean of the suspect leases and the overdue ones.
    fn now(&self) -> f64 {
        let mut sum = self.suspect;
        sum.add(self.overdue_ages);
        sum.mean()
    }

    /// Returns how many more connections the operation takes than usual.
    fn cost(&self) -> f64 {
        self.rate() * (self.now() - self.usual.mean())
    }

    fn finding(&mut self, now: Instant, operation: Operation, is_guilty: bool) -> Option<Finding> {
        let sign = match self.suspected {
            _ if is_guilty => Sign::Yes,
            Some(_) => Sign::Near,
            None => Sign::No,
        };
        let (from, to) = (seconds(self.usual.mean()), seconds(self.now()));
        match self.lasting.look(now, sign)? {
            DueReport::Lasts(lasting) => {
                if lasting.as_secs_f64() > (self.age - lasting.as_secs_f64()).clamp(USUAL.0, USUAL.1) {
                    (self.usual, self.suspect) = (self.suspect, Sum::default());
                    (self.suspected, self.evidence, self.above.evidence) = (None, 0.0, 0.0);
                }
                Some(Finding::LeasesInflated { operation, from, to, lasting })
            }
            DueReport::Ended(lasted) => Some(Finding::LeasesNormal { operation, to: from, lasted }),
        }
    }
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.slow += other.slow;
        self.seconds += other.seconds;
    }

    fn scale(&mut self, factor: f64) {
        self.count *= factor;
        self.slow *= factor;
        self.seconds *= factor;
    }

    fn mean(&self) -> f64 {
        if self.count > 0.0 { self.seconds / self.count } else { 0.0 }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests;
