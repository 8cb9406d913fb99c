//! Which operation holds its connections much longer than it used to?
//!
//! An average of a few holds says little: where 3% take a hundred times as long as the others, three in ten by chance
//! would do. So holds are told apart first: slow is what takes more than three times the usual average. How often that
//! happens is known of each operation, and evidence adds up, one logarithm for each hold, that it is now half of them
//! rather than as usual ("CUSUM", with a floor at zero). Chance reaches the alarm once in months; seven slow ones in a
//! row do.
//!
//! What is suspect is kept apart from the usual until it is cleared, so that an operation that became slow does not
//! become its own measure. A connection that is still held counts as soon as it is overdue: a statement that takes two
//! seconds need not end first.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::finding::Finding;
use super::lasting::{Lasting, Sign, Told};
use crate::operation::Operation;

/// Operations remembered: the one not seen for longest goes.
const OPERATIONS: NonZeroUsize = NonZeroUsize::new(256).expect("more than none");
/// So many are told at a time. If more are slow, it is the server.
const TOLD: usize = 3;
/// Slow is more than so many times the average, and more than so many seconds: less hurts nobody.
const SLOW: f64 = 3.0;
const NOTICEABLE: f64 = 0.002;
/// The usual is known after so many holds and seconds, and leaks over this many seconds.
const ENOUGH: f64 = 30.0;
const OLD: f64 = 10.0;
const LEAK: f64 = 3_600.0;
/// If an operation is inflated, so many of its holds are slow; and usually at least this many of them.
const INFLATED: f64 = 0.5;
const SELDOM: f64 = 0.02;
/// What nobody has seen yet may still be so frequent: two in twenty, on top of what has been seen.
const PRIOR_SLOW: f64 = 2.0;
const PRIOR: f64 = 20.0;
/// The evidence that it takes: once in e^16 seconds by chance. More than a little above that it does not grow, so that
/// it is soon undone.
const ALARM: f64 = 16.0;
const MARGIN: f64 = 4.0;
/// Evidence must span this many seconds, less those that it took to know a hold to be slow; but at least half of them.
/// A stall of the whole server is shorter, mostly.
const SPAN: f64 = 1.0;
/// No longer slow for so long, and it is over.
const CALM: Duration = Duration::from_secs(5);
/// Slow for as long as it was usual before, it is usual; between these.
const USUAL: (f64, f64) = (300.0, 3_600.0);

#[derive(Debug)]
pub(super) struct Inflation {
    operations: LruCache<Operation, Holds>,
}

/// Of one operation.
#[derive(Debug)]
struct Holds {
    seen: Instant,
    /// How long ago the first was, in seconds.
    age: f64,
    usual: Sum,
    /// Since there is evidence: not yet usual.
    suspect: Sum,
    suspected: Option<Instant>,
    evidence: f64,
    /// Those overdue that are held still: as evidence they have been counted.
    overdue: usize,
    /// Of those, at the last look.
    held: Sum,
    lasting: Lasting,
}

/// Holds, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: f64,
    slow: f64,
    seconds: f64,
}

impl Inflation {
    pub(super) fn new() -> Self {
        Self { operations: LruCache::new(OPERATIONS) }
    }

    /// A connection that was held for `hold` has come back.
    pub(super) fn record(&mut self, now: Instant, operation: Operation, hold: Duration) {
        self.operations.get_or_insert_mut(operation, || Holds::new(now)).record(now, hold.as_secs_f64());
    }

    /// `running`: every connection in use now, what for, and for how long so far. The guiltiest first.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        running: impl IntoIterator<Item = (Operation, Duration)>,
    ) -> Vec<Finding> {
        self.operations.iter_mut().for_each(|(_, holds)| holds.held = Sum::default());
        for (operation, held) in running {
            if let Some(holds) = self.operations.peek_mut(&operation) {
                holds.look_at(held.as_secs_f64());
            }
        }
        self.operations.iter_mut().for_each(|(_, holds)| holds.count_overdue(now));
        let guilty = self.guiltiest(now);
        let mut findings: Vec<(usize, Finding)> = Vec::new();
        for (operation, holds) in &mut self.operations {
            let place = guilty.iter().position(|guilty| guilty == operation);
            let finding = holds.tell(now, *operation, place.is_some());
            findings.extend(finding.map(|finding| (place.unwrap_or(TOLD), finding)));
        }
        findings.sort_by_key(|(place, _)| *place);
        findings.into_iter().map(|(_, finding)| finding).collect()
    }

    /// Those that cost the pool the most connections, first.
    fn guiltiest(&self, now: Instant) -> Vec<Operation> {
        let inflated = self.operations.iter().filter(|(_, holds)| holds.is_inflated(now));
        let mut guilty: Vec<_> = inflated.map(|(operation, holds)| (holds.cost(), *operation)).collect();
        guilty.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        guilty.into_iter().take(TOLD).map(|(_, operation)| operation).collect()
    }
}

impl Holds {
    fn new(now: Instant) -> Self {
        Self {
            seen: now,
            age: 0.0,
            usual: Sum::default(),
            suspect: Sum::default(),
            suspected: None,
            evidence: 0.0,
            overdue: 0,
            held: Sum::default(),
            lasting: Lasting::new(Duration::ZERO, CALM),
        }
    }

    fn record(&mut self, now: Instant, hold: f64) {
        self.age(now);
        let slow = self.slow().filter(|slow| hold > *slow).is_some();
        let sum = if self.suspected.is_some() { &mut self.suspect } else { &mut self.usual };
        let hold = Sum { count: 1.0, slow: f64::from(u8::from(slow)), seconds: hold };
        if slow && self.overdue > 0 {
            // Known already.
            self.overdue -= 1;
            sum.add(hold);
        } else if slow {
            self.suspect(now);
            self.suspect.add(hold);
        } else {
            sum.add(hold);
            self.clear();
        }
    }

    /// A connection that is held still.
    fn look_at(&mut self, held: f64) {
        if self.slow().is_some_and(|slow| held > slow) {
            self.held.add(Sum { count: 1.0, slow: 1.0, seconds: held });
        }
    }

    fn count_overdue(&mut self, now: Instant) {
        let overdue = self.held.count as usize;
        for _ in self.overdue..overdue {
            self.suspect(now);
        }
        self.overdue = overdue;
    }

    fn age(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.seen).as_secs_f64();
        self.seen = self.seen.max(now);
        if seconds > 0.0 {
            self.age += seconds;
            self.usual.scale((-seconds / LEAK).exp());
        }
    }

    /// What takes longer is slow. `None` while too little is known.
    fn slow(&self) -> Option<f64> {
        let is_known = self.usual.count >= ENOUGH && self.age >= OLD;
        is_known.then(|| (self.usual.mean() * SLOW).max(NOTICEABLE))
    }

    /// How many are usually slow.
    fn share(&self) -> f64 {
        ((self.usual.slow + PRIOR_SLOW) / (self.usual.count + PRIOR)).clamp(SELDOM, INFLATED)
    }

    /// One was slow.
    fn suspect(&mut self, now: Instant) {
        self.suspected.get_or_insert(now);
        self.evidence = (self.evidence + (INFLATED / self.share()).ln()).min(self.alarm() + MARGIN);
    }

    /// One was not.
    fn clear(&mut self) {
        self.evidence += ((1.0 - INFLATED) / (1.0 - self.share())).ln();
        if self.evidence > 0.0 {
            return;
        }
        self.evidence = 0.0;
        if self.suspected.take().is_some() && !self.lasting.is_told() {
            self.usual.add(self.suspect);
        }
        self.suspect = Sum::default();
    }

    /// Of an operation that is seen often, chance has more tries in the same time.
    fn alarm(&self) -> f64 {
        ALARM + self.rate().ln_1p()
    }

    /// Holds a second.
    fn rate(&self) -> f64 {
        self.usual.count / self.age.clamp(1.0, LEAK)
    }

    fn is_inflated(&self, now: Instant) -> bool {
        let (Some(slow), Some(suspected)) = (self.slow(), self.suspected) else { return false };
        let span = now.saturating_duration_since(suspected).as_secs_f64();
        self.evidence >= self.alarm() && span >= (SPAN - slow).max(SPAN / 2.0) && self.now() > slow
    }

    /// How long it holds a connection now: those that have come back since it is suspect, and those overdue.
    fn now(&self) -> f64 {
        let mut sum = self.suspect;
        sum.add(self.held);
        sum.mean()
    }

    /// Connections that it takes now and did not take before.
    fn cost(&self) -> f64 {
        self.rate() * (self.now() - self.usual.mean())
    }

    fn tell(&mut self, now: Instant, operation: Operation, is_guilty: bool) -> Option<Finding> {
        let sign = match self.suspected {
            _ if is_guilty => Sign::Yes,
            Some(_) => Sign::Near,
            None => Sign::No,
        };
        let (from, to) = (seconds(self.usual.mean()), seconds(self.now()));
        match self.lasting.look(now, sign)? {
            Told::Lasts(lasting) => {
                if lasting.as_secs_f64() > (self.age - lasting.as_secs_f64()).clamp(USUAL.0, USUAL.1) {
                    (self.usual, self.suspect) = (self.suspect, Sum::default());
                    (self.suspected, self.evidence) = (None, 0.0);
                }
                Some(Finding::HoldsInflated { operation, from, to, lasting })
            }
            Told::Ended(lasted) => Some(Finding::HoldsNormal { operation, hold: from, lasted }),
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
