//! Looks at the pool, and decides at the end of each window.
//!
//! | leases | most processes wait for | what follows |
//! |---|---|---|
//! | normal, and callers queue | - | the pool grows |
//! | one operation is slow, the others are not | anything | the operation is capped at its usual concurrency |
//! | slow | locks | the size stays, and the waiting operations are capped |
//! | slow | the client | the size stays |
//! | slow, and more connections bring no more throughput | nothing, IO, internal locks | the pool shrinks |
//! | normal after that | - | it comes back by single connections |
//!
//! Everything else keeps things as they are.

use std::time::{Duration, Instant};

use super::advice::{Advice, AdviceReason};
use super::caps::Caps;
use super::correlation::Correlation;
use super::operations::{Inflation, Operations};
use super::size::{BINDING, Change, Signs, Size, SizeTerms};
use super::waits::{Wait, Waits};
use super::window::{Seen, Sight, WINDOW, Window};
use crate::operation::Operation;
use crate::policy::watch::{DueReport, EndedLease, Lasting, Sign};

/// Durations are usual ones while less than this share of the connections is in use.
const CALM_USE: f64 = 0.3;
/// Leases have to be slow for so many windows.
const LASTING: u32 = 2;
/// More connections bring more throughput from this correlation on.
const CORRELATED: f64 = 0.3;
/// The end of a condition is reported when it has been absent for so long.
const CALM: Duration = Duration::from_secs(30);
/// A change of the limit is the present advice for so long.
const STANDS: Duration = Duration::from_secs(30);

/// One look at the pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pooled<'a> {
    /// Those that are being settled, too.
    pub(crate) in_use: usize,
    pub(crate) waiting: usize,
    /// How many connections the pool may use at present, by all rules together.
    pub(crate) limit: usize,
    /// Callers that have asked for a connection since the pool began, and those of them that left without one.
    pub(crate) arrivals: u64,
    pub(crate) left: u64,
    /// Leases that have ended since the last look: all, or a fair sample.
    pub(crate) ended: &'a [EndedLease],
    /// Leases that have not ended, with their ages.
    pub(crate) held: &'a [(Operation, Duration)],
}

/// What the owner should know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AdaptiveFinding {
    Advised { advice: Advice, lasting: Duration },
    Changed { advice: Advice },
    LockBound { advice: Advice, lasting: Duration },
    LockBoundEnded { lasted: Duration },
    HeldByCaller { advice: Advice, lasting: Duration },
    HeldByCallerEnded { lasted: Duration },
}

#[derive(Debug)]
pub(crate) struct Controller {
    /// Whether it changes anything, or only says what it would change.
    acts: bool,
    window: Window,
    operations: Operations,
    correlation: Correlation,
    waits: Waits,
    size: Size,
    caps: Caps,
    /// Whether few connections were in use at the latest look.
    was_calm: bool,
    /// Whether the caller was why leases are slow, at the latest window.
    was_held: bool,
    /// For so many windows leases have been slow.
    slow_windows: u32,
    wants_waits: bool,
    inflation: Option<f64>,
    /// The latest advice about the size, and when it was given.
    about_size: Option<(Instant, Advice)>,
    /// What the present condition asks for.
    about_condition: Option<Advice>,
    advised: Lasting,
    locks: Lasting,
    callers: Lasting,
}

impl Controller {
    pub(crate) fn new(acts: bool, terms: SizeTerms) -> Self {
        let lasting = || Lasting::new(Duration::ZERO, CALM);
        Self {
            acts,
            window: Window::default(),
            operations: Operations::new(),
            correlation: Correlation::default(),
            waits: Waits::default(),
            size: Size::new(terms),
            caps: Caps::default(),
            was_calm: false,
            was_held: false,
            slow_windows: 0,
            wants_waits: false,
            inflation: None,
            about_size: None,
            about_condition: None,
            advised: lasting(),
            locks: lasting(),
            callers: lasting(),
        }
    }

    /// How many connections the pool may use, as far as the database goes. `None` if it only gives advice.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.acts.then(|| self.size.limit())
    }

    /// The operations that are capped, and at how many connections. Empty if it only gives advice.
    pub(crate) fn caps(&self) -> Vec<(Operation, usize)> {
        if self.acts { self.advised_caps() } else { Vec::new() }
    }

    /// The same, also if they are only advised.
    pub(crate) fn advised_caps(&self) -> Vec<(Operation, usize)> {
        self.caps.all().into_iter().map(|(operation, cap)| (operation, cap.most)).collect()
    }

    /// Whether it needs to know what the server's processes wait for: samples, a second apart.
    pub(crate) fn wants_waits(&self) -> bool {
        self.wants_waits
    }

    /// Adds a sample: the operation of each lease, and what its process waits for.
    pub(crate) fn on_waits(&mut self, now: Instant, sample: Vec<(Operation, Wait)>) {
        if self.wants_waits && !sample.is_empty() {
            self.waits.push(now, sample);
        }
    }

    /// How many times as long as usual leases take. `None` if nothing is known.
    pub(crate) fn inflation(&self) -> Option<f64> {
        self.inflation
    }

    /// The present advice: the most telling one.
    pub(crate) fn advice(&self, now: Instant) -> Option<Advice> {
        let stands = |at: Instant, advice: &Advice| {
            let is_in_force = advice.reason == AdviceReason::Saturated && self.size.is_cut();
            is_in_force || now.saturating_duration_since(at) < STANDS
        };
        let about_size = self.about_size.filter(|(at, advice)| stands(*at, advice));
        self.about_condition.or(about_size.map(|(_, advice)| advice))
    }

    /// The owner has changed `max_size`.
    pub(crate) fn resize(&mut self, max_size: usize) {
        self.size.resize(max_size);
    }

    /// Adds a look. Returns what the owner should know.
    pub(crate) fn look(&mut self, now: Instant, pool: &Pooled<'_>) -> Vec<AdaptiveFinding> {
        let is_calm = (pool.in_use as f64) < pool.limit as f64 * CALM_USE;
        let was_calm = std::mem::replace(&mut self.was_calm, is_calm);
        for lease in pool.ended {
            self.window.on_lease(lease.is_cut);
            // How long a lease would have taken that a timeout has cut short, nobody knows.
            if !lease.is_cut {
                self.operations.record(now, lease.operation, lease.lasted.as_secs_f64(), is_calm && was_calm);
            }
        }
        self.operations.look(now, pool.held);
        let Pooled { in_use, waiting, limit, arrivals, left, .. } = *pool;
        match self.window.look(now, Sight { in_use, waiting, limit, arrivals, left }) {
            Some(seen) => self.close_window(now, limit, &seen),
            None => Vec::new(),
        }
    }

    fn close_window(&mut self, now: Instant, limit: usize, seen: &Seen) -> Vec<AdaptiveFinding> {
        let mut findings = self.end_caps(now, limit, seen);
        let caps = &self.caps;
        let inflation = self.operations.close(now, seen.scale, limit, |operation| caps.is_capped(operation));
        let is_known = seen.is_valid || inflation.is_stuck;
        self.inflation = inflation.all.filter(|_| is_known);
        // While most connections are free, more callers bring more throughput, and that says nothing about the server.
        if seen.is_valid && seen.utilization >= BINDING {
            self.correlation.push(now, seen.in_use, seen.throughput);
        }
        if is_known {
            self.slow_windows = match (inflation.is_inflated(), inflation.is_over()) {
                (true, _) => self.slow_windows + 1,
                (false, true) => 0,
                (false, false) => self.slow_windows,
            };
        }
        let is_slow = self.slow_windows >= LASTING;
        self.wants_waits = seen.is_used() && (self.slow_windows > 0 || self.caps.has_slow_one());
        if !self.wants_waits {
            self.waits.forget();
        }
        let locked = if self.wants_waits { self.waits.waiting_for_locks(now) } else { Vec::new() };
        if is_slow {
            let guilty = inflation.guilty.map(|(operation, _)| (operation, AdviceReason::SlowOperation));
            let waiting = locked.iter().map(|operation| (*operation, AdviceReason::LockBound));
            for (operation, reason) in guilty.into_iter().chain(waiting) {
                findings.extend(self.cap(now, limit, seen, operation, reason));
            }
        }
        let cause = self.waits.cause(now, |operation| self.caps.is_capped(operation));
        // Once it is said, it stays until there is another majority.
        let is_client = cause == Some(Wait::Client) || (self.was_held && cause.is_none());
        let is_free_slow = inflation.is_free_inflated() || (self.was_held && !inflation.is_free_over());
        let is_held = is_slow && is_free_slow && is_client;
        self.was_held = is_held;
        let change = self.change(now, limit, seen, &inflation, is_slow && cause == Some(Wait::Server));
        findings.extend(self.report_change(now, seen, change));
        findings.extend(self.report_conditions(now, limit, seen, locked.first().copied(), is_held));
        findings
    }

    /// What becomes of the size.
    fn change(
        &mut self,
        now: Instant,
        limit: usize,
        seen: &Seen,
        inflation: &Inflation,
        is_busy: bool,
    ) -> Option<Change> {
        let is_flat = self.correlation.value(now).is_some_and(|correlation| correlation < CORRELATED);
        let signs = Signs {
            inflation: inflation.free,
            is_saturated: is_busy && is_flat && inflation.is_free_inflated(),
            is_inflated: inflation.is_inflated() || inflation.is_free_inflated(),
            effective: limit,
        };
        if self.acts { self.size.on_window(now, seen, signs) } else { self.size.advise(seen, signs) }
    }

    fn advice_of(
        &self,
        seen: &Seen,
        reason: AdviceReason,
        operation: Option<Operation>,
        from: usize,
        to: usize,
    ) -> Advice {
        let Seen { utilization, throughput, .. } = *seen;
        Advice { reason, operation, from, to, inflation: self.inflation, utilization, throughput }
    }

    fn end_caps(&mut self, now: Instant, limit: usize, seen: &Seen) -> Vec<AdaptiveFinding> {
        if self.caps.is_empty() {
            return Vec::new();
        }
        if !seen.is_used() {
            self.caps.on_silence(WINDOW);
            return Vec::new();
        }
        let operations = &mut self.operations;
        let ended = self.caps.on_window(now, |operation| operations.inflation_of(now, operation, seen.scale));
        // An advised cap ends without a word: its advice no longer stands.
        let ended = ended.into_iter().filter(|_| self.acts).map(|(operation, most)| {
            let advice = self.advice_of(seen, AdviceReason::Recovered, Some(operation), most, limit);
            AdaptiveFinding::Changed { advice }
        });
        ended.collect()
    }

    fn cap(
        &mut self,
        now: Instant,
        limit: usize,
        seen: &Seen,
        operation: Operation,
        reason: AdviceReason,
    ) -> Option<AdaptiveFinding> {
        let most = self.operations.usual_concurrency(operation).min(limit);
        let most = self.caps.set(now, operation, reason, most)?;
        let advice = self.advice_of(seen, reason, Some(operation), limit, most);
        Some(match self.acts {
            true => AdaptiveFinding::Changed { advice },
            false => AdaptiveFinding::Advised { advice, lasting: Duration::ZERO },
        })
    }

    fn report_change(&mut self, now: Instant, seen: &Seen, change: Option<Change>) -> Option<AdaptiveFinding> {
        let sign = if change.is_some_and(|change| !change.is_made) { Sign::Yes } else { Sign::No };
        let advised = self.advised.look(now, sign);
        let change = change?;
        let advice = self.advice_of(seen, change.reason, None, change.from, change.to);
        self.about_size = Some((now, advice));
        match advised {
            _ if change.is_made => Some(AdaptiveFinding::Changed { advice }),
            Some(DueReport::Lasts(lasting)) => Some(AdaptiveFinding::Advised { advice, lasting }),
            Some(DueReport::Ended(_)) | None => None,
        }
    }

    fn report_conditions(
        &mut self,
        now: Instant,
        limit: usize,
        seen: &Seen,
        locked: Option<Operation>,
        is_held: bool,
    ) -> Vec<AdaptiveFinding> {
        let sign = |holds: bool| if holds { Sign::Yes } else { Sign::No };
        let about = |reason, operation| self.advice_of(seen, reason, operation, limit, limit);
        let (lock_bound, held) = (about(AdviceReason::LockBound, locked), about(AdviceReason::HeldByCaller, None));
        let caps = self.caps.all();
        let capped =
            caps.first().map(|(operation, cap)| Advice { to: cap.most, ..about(cap.reason, Some(*operation)) });
        let lock_bound = locked.map(|_| lock_bound);
        self.about_condition = capped.or(lock_bound).or(is_held.then_some(held));
        let of_locks = self.locks.look(now, sign(locked.is_some())).and_then(|due| match due {
            DueReport::Lasts(lasting) => lock_bound.map(|advice| AdaptiveFinding::LockBound { advice, lasting }),
            DueReport::Ended(lasted) => Some(AdaptiveFinding::LockBoundEnded { lasted }),
        });
        let of_callers = self.callers.look(now, sign(is_held)).map(|due| match due {
            DueReport::Lasts(lasting) => AdaptiveFinding::HeldByCaller { advice: held, lasting },
            DueReport::Ended(lasted) => AdaptiveFinding::HeldByCallerEnded { lasted },
        });
        of_locks.into_iter().chain(of_callers).collect()
    }
}
