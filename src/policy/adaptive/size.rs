//! How many connections should the pool use? It grows when callers queue and the server can do more, shrinks when the
//! server is saturated, and comes back by single steps.
//!
//! Each step up because of a queue, and each step down, is a trial: it is kept only if throughput agrees. A trial that
//! failed is not repeated for minutes, and each further failure doubles that time. So the limit does not swing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::advice::AdviceReason;
use super::operations::NORMAL;
use super::window::Seen;

/// So many windows with a queue, one after the other, before the pool grows.
const PRESSED: u32 = 3;
/// Throughput before a step up is the mean of so many windows, and after it of so many. A step down has more to lose.
const BEFORE: usize = 3;
const AFTER_GROWTH: usize = 2;
const AROUND_CUT: usize = 5;
/// A step up is kept if throughput rose by at least this part of it.
const GAIN: f64 = 0.5;
/// A step down is kept if throughput stays above this part of the best since before the first one.
const KEPT: f64 = 0.97;
/// The pool shrinks to this part, and by no step below this part of `max_size`.
const CUT: f64 = 0.9;
const FLOOR: f64 = 0.25;
const LEAST: usize = 2;
/// The pool grows by this part.
const GROWTH: f64 = 0.1;
/// Below this share of connections in use, fewer connections would change nothing.
pub(super) const BINDING: f64 = 0.5;
/// So many windows between two steps back. Each relapse doubles it.
const REST: u32 = 2;
const LONGEST_REST: u32 = 64;
/// The time after a trial that failed, at first and at most.
const AFTER_NO_GAIN: Duration = Duration::from_secs(60);
const AFTER_LOSS: Duration = Duration::from_secs(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// A trial without a valid window for so many windows has failed.
const LONGEST_TRIAL: u32 = 10;

/// What the owner has set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeTerms {
    pub(crate) max_size: usize,
    pub(crate) min_idle: usize,
    /// Where the pool begins: at most `max_size`.
    pub(crate) start: usize,
}

/// A change of the limit, or one that is only advised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) reason: AdviceReason,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) is_made: bool,
}

#[derive(Debug)]
pub(super) struct Size {
    terms: SizeTerms,
    limit: usize,
    /// What the limit was before it was cut: steps back lead here. Equal to the limit otherwise.
    ceiling: usize,
    /// Whether the ceiling has reached `max_size`, by its start or by growth.
    is_all: bool,
    /// The throughput of the last valid windows, the latest last.
    recent: VecDeque<f64>,
    /// For so many valid windows leases have been slow.
    slow: usize,
    pressed: u32,
    trial: Option<Trial>,
    /// The limit with the best throughput since before the first of the cuts that are in force, and that throughput.
    best: Option<(usize, f64)>,
    growth: Pause,
    cuts: Pause,
    /// Normal windows since the last step back, and how many make the next one.
    rested: u32,
    rest: u32,
    /// The last step was a step back.
    is_returning: bool,
    /// How many connections the pool could use in the last window.
    effective: usize,
}

/// A step whose effect is not known yet.
#[derive(Debug)]
struct Trial {
    from: usize,
    before: f64,
    after: Vec<f64>,
    windows: u32,
    /// Whether callers still waited in one of the windows, with most connections in use.
    is_pressed: bool,
}

/// When a kind of trial may begin again.
#[derive(Debug)]
struct Pause {
    until: Option<Instant>,
    next: Duration,
    first: Duration,
}

impl Pause {
    fn new(first: Duration) -> Self {
        Self { until: None, next: first, first }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    fn on_failure(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }

    fn on_success(&mut self) {
        self.next = self.first;
    }
}

/// What the windows say about the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    pub(super) inflation: Option<f64>,
    /// Leases take much longer than usual, the server is busy, and more connections bring no more throughput.
    pub(super) is_saturated: bool,
    /// Leases take much longer than usual, for whatever reason.
    pub(super) is_inflated: bool,
    /// How many connections the pool may use. A budget may make it less than this limit.
    pub(super) effective: usize,
}

impl Size {
    pub(super) fn new(terms: SizeTerms) -> Self {
        let limit = terms.start.clamp(1, terms.max_size.max(1));
        Self {
            terms,
            limit,
            ceiling: limit,
            is_all: limit >= terms.max_size,
            recent: VecDeque::new(),
            slow: 0,
            pressed: 0,
            trial: None,
            best: None,
            growth: Pause::new(AFTER_NO_GAIN),
            cuts: Pause::new(AFTER_LOSS),
            rested: 0,
            rest: REST,
            is_returning: false,
            effective: limit,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the limit is below what it was before the server was saturated.
    pub(super) fn is_cut(&self) -> bool {
        self.limit < self.ceiling
    }

    /// The owner has changed `max_size`. A ceiling that was all of it follows, and so does a limit that is not cut.
    pub(super) fn resize(&mut self, max_size: usize) {
        let (max_size, was_cut) = (max_size.max(1), self.is_cut());
        self.ceiling = if self.is_all { max_size } else { self.ceiling.min(max_size) };
        self.limit = if was_cut { self.limit.min(self.ceiling) } else { self.ceiling };
        self.terms.max_size = max_size;
        // What was measured belongs to another size.
        (self.trial, self.best, self.pressed, self.rested, self.slow) = (None, None, 0, 0, 0);
        self.recent.clear();
    }

    /// A budget allows less than this limit while the effect of a step is not known yet. A step up is taken back.
    fn abandon_trial(&mut self) -> Option<Change> {
        let trial = self.trial.take()?;
        if trial.from >= self.limit {
            return None;
        }
        let from = self.limit;
        (self.limit, self.ceiling) = (trial.from, trial.from);
        Some(self.made(AdviceReason::NoGain, from))
    }

    /// A window has ended. Returns what changes.
    pub(super) fn on_window(&mut self, now: Instant, seen: &Seen, signs: Signs) -> Option<Change> {
        let is_binding = signs.effective >= self.limit;
        if std::mem::replace(&mut self.effective, signs.effective) != signs.effective {
            self.recent.clear();
        }
        if self.trial.is_some() && !is_binding {
            return self.abandon_trial();
        }
        if !seen.is_valid {
            // With few callers, nothing speaks against connections that nobody uses.
            let is_quiet = self.trial.is_none() && !signs.is_inflated && seen.utilization < BINDING;
            return if is_quiet && self.is_cut() { self.step_back() } else { self.wait_for_windows(now) };
        }
        if self.recent.len() >= AROUND_CUT {
            self.recent.pop_front();
        }
        self.recent.push_back(seen.throughput);
        self.slow = if signs.is_inflated { self.slow + 1 } else { 0 };
        self.pressed = if seen.is_pressed() { self.pressed + 1 } else { 0 };
        if let Some(trial) = &mut self.trial {
            trial.after.push(seen.throughput);
            trial.windows += 1;
            trial.is_pressed |= seen.is_pressed();
            let needed = if trial.from < self.limit { AFTER_GROWTH } else { AROUND_CUT };
            if trial.after.len() < needed {
                return None;
            }
            return self.judge(now, signs);
        }
        if signs.is_saturated {
            return self.cut(now, seen, signs.effective);
        }
        if signs.is_inflated {
            self.relapse();
            return None;
        }
        if signs.inflation.is_some_and(|inflation| inflation >= NORMAL) {
            self.rested = 0;
            return None;
        }
        if self.limit < self.ceiling {
            // Without a known inflation, nothing says that the server is well again.
            return signs.inflation.and_then(|_| self.step_back());
        }
        self.best = None;
        if is_binding { self.grow(now, signs) } else { None }
    }

    /// The same for a pool that only gives advice: nothing changes, so there are no trials.
    pub(super) fn advise(&mut self, seen: &Seen, signs: Signs) -> Option<Change> {
        self.pressed = if seen.is_valid && seen.is_pressed() { self.pressed + 1 } else { 0 };
        if !seen.is_valid {
            return None;
        }
        let from = signs.effective;
        let change = |reason, to| Change { reason, from, to, is_made: false };
        if signs.is_saturated && seen.utilization >= BINDING && self.cut_to(from) < from {
            return Some(change(AdviceReason::Saturated, self.cut_to(from)));
        }
        let is_normal = !signs.is_inflated && signs.inflation.is_some_and(|inflation| inflation < NORMAL);
        // A budget that allows less has events of its own.
        let is_all = from >= self.terms.max_size;
        (is_normal && is_all && self.pressed >= PRESSED).then(|| change(AdviceReason::CallersQueue, grown(from)))
    }

    /// A window says too little. A step up does not stay in force without an effect.
    fn wait_for_windows(&mut self, now: Instant) -> Option<Change> {
        self.pressed = 0;
        let trial = self.trial.as_mut()?;
        trial.windows += 1;
        if trial.windows < LONGEST_TRIAL {
            return None;
        }
        let trial = self.trial.take()?;
        if trial.from > self.limit {
            return None;
        }
        self.growth.on_failure(now);
        let from = self.limit;
        (self.limit, self.ceiling) = (trial.from, trial.from);
        Some(self.made(AdviceReason::NoGain, from))
    }

    fn judge(&mut self, now: Instant, signs: Signs) -> Option<Change> {
        let Trial { from, before, after, is_pressed, .. } = self.trial.take()?;
        let after = after.iter().sum::<f64>() / after.len().max(1) as f64;
        let limit = self.limit;
        if from < limit {
            let step = (limit - from) as f64 / from.max(1) as f64;
            // Without a queue, the step was enough.
            let is_gain = !is_pressed || after >= before * (1.0 + GAIN * step);
            if is_gain && !signs.is_inflated {
                self.growth.on_success();
                self.ceiling = self.ceiling.max(limit);
                self.is_all = self.ceiling >= self.terms.max_size;
                return self.grow(now, signs);
            }
            self.growth.on_failure(now);
            (self.limit, self.ceiling) = (from, from);
            self.recent.clear();
            return Some(self.made(AdviceReason::NoGain, limit));
        }
        let (best, most) = self.best.unwrap_or((from, before));
        // Without a queue, throughput follows the callers and not the limit.
        if is_pressed && after < most * KEPT {
            self.cuts.on_failure(now);
            self.limit = best;
            self.recent.clear();
            return Some(self.made(AdviceReason::Costly, limit));
        }
        if is_pressed && after > most {
            self.best = Some((limit, after));
        }
        None
    }

    fn cut(&mut self, now: Instant, seen: &Seen, effective: usize) -> Option<Change> {
        // A budget may allow less than this limit.
        let from = self.limit.min(effective);
        let to = self.cut_to(from);
        if to >= from || seen.utilization < BINDING || !self.cuts.is_over(now) || self.slow < AROUND_CUT {
            return None;
        }
        let throughput = mean(&self.recent, AROUND_CUT)?;
        self.relapse();
        if self.limit >= self.ceiling {
            (self.ceiling, self.best) = (self.limit, None);
        }
        self.best.get_or_insert((from, throughput));
        self.limit = to;
        self.begin(from, throughput);
        Some(self.made(AdviceReason::Saturated, from))
    }

    /// Leases take longer again after a step back: the next one comes later.
    fn relapse(&mut self) {
        if std::mem::take(&mut self.is_returning) {
            self.rest = (self.rest * 2).min(LONGEST_REST);
        }
        self.rested = 0;
    }

    fn step_back(&mut self) -> Option<Change> {
        self.rested += 1;
        if self.rested < self.rest {
            return None;
        }
        let from = self.limit;
        (self.limit, self.rested, self.is_returning) = (from + 1, 0, true);
        self.recent.clear();
        if self.limit >= self.ceiling {
            self.cuts.on_success();
        }
        Some(self.made(AdviceReason::Recovered, from))
    }

    fn grow(&mut self, now: Instant, signs: Signs) -> Option<Change> {
        if self.pressed < PRESSED || !self.growth.is_over(now) {
            return None;
        }
        let (from, to) = (self.limit, grown(self.limit));
        if from >= self.terms.max_size {
            // That a larger pool would serve more, is only known if leases are known to be normal.
            let advice = Change { reason: AdviceReason::CallersQueue, from, to, is_made: false };
            return signs.inflation.map(|_| advice);
        }
        let before = mean(&self.recent, BEFORE)?;
        self.limit = to.min(self.terms.max_size);
        self.begin(from, before);
        Some(self.made(AdviceReason::CallersQueue, from))
    }

    fn begin(&mut self, from: usize, before: f64) {
        self.recent.clear();
        (self.rested, self.is_returning) = (0, false);
        self.trial = Some(Trial { from, before, after: Vec::new(), windows: 0, is_pressed: false });
    }

    fn made(&self, reason: AdviceReason, from: usize) -> Change {
        Change { reason, from, to: self.limit, is_made: true }
    }

    fn cut_to(&self, limit: usize) -> usize {
        let part = (self.terms.max_size as f64 * FLOOR).ceil() as usize;
        let floor = LEAST.max(self.terms.min_idle).max(part);
        ((limit as f64 * CUT) as usize).max(floor).min(limit)
    }
}

fn grown(limit: usize) -> usize {
    limit + ((limit as f64 * GROWTH).ceil() as usize).max(1)
}

/// The mean of the last values, at most so many.
fn mean(values: &VecDeque<f64>, most: usize) -> Option<f64> {
    let last = values.iter().rev().take(most);
    (!values.is_empty()).then(|| last.sum::<f64>() / values.len().min(most) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(throughput: f64, is_pressed: bool) -> Seen {
        let utilization = if is_pressed { 1.0 } else { 0.4 };
        Seen { throughput, utilization, has_queue: is_pressed, is_valid: true, ..Seen::default() }
    }

    fn signs(size: &Size, inflation: f64, is_saturated: bool) -> Signs {
        let is_inflated = inflation >= 1.5;
        Signs { inflation: Some(inflation), is_saturated, is_inflated, effective: size.limit() }
    }

    /// Plays windows of two seconds. Returns the limit after each.
    fn play(size: &mut Size, now: &mut Instant, windows: usize, seen: Seen, inflation: f64, cut: bool) -> Vec<usize> {
        let mut limits = Vec::new();
        for _ in 0..windows {
            *now += Duration::from_secs(2);
            let signs = signs(size, inflation, cut);
            size.on_window(*now, &seen, signs);
            limits.push(size.limit());
        }
        limits
    }

    fn size(start: usize, max_size: usize) -> (Size, Instant) {
        (Size::new(SizeTerms { max_size, min_idle: 0, start }), Instant::now())
    }

    #[test]
    fn three_windows_with_a_queue_make_it_grow_and_two_more_decide() {
        let (mut size, mut now) = size(20, 40);
        assert_eq!(play(&mut size, &mut now, 3, seen(200.0, true), 1.0, false), [20, 20, 22]);
        // A tenth more connections, and a twentieth more throughput: just enough.
        assert_eq!(play(&mut size, &mut now, 2, seen(210.1, true), 1.0, false), [22, 25]);
        // No more throughput.
        assert_eq!(play(&mut size, &mut now, 2, seen(210.1, true), 1.0, false), [25, 22]);
        assert_eq!(play(&mut size, &mut now, 29, seen(210.1, true), 1.0, false), [22; 29], "a minute of rest");
        assert_eq!(play(&mut size, &mut now, 3, seen(210.1, true), 1.0, false), [25, 25, 22]);
        assert_eq!(play(&mut size, &mut now, 59, seen(210.1, true), 1.0, false), [22; 59], "and then two");
    }

    #[test]
    fn it_does_not_grow_while_leases_are_slow_or_half_of_it_is_unused() {
        for (seen, inflation) in [(seen(200.0, true), 1.4), (seen(200.0, true), 2.0), (seen(200.0, false), 1.0)] {
            let (mut size, mut now) = size(20, 40);
            assert_eq!(play(&mut size, &mut now, 10, seen, inflation, false), [20; 10]);
        }
    }

    #[test]
    fn it_shrinks_by_a_tenth_to_the_floor_and_comes_back_by_ones() {
        let (mut size, mut now) = size(20, 20);
        let limits = play(&mut size, &mut now, 70, seen(200.0, true), 3.0, true);
        assert_eq!((limits[3], limits[4], limits[9], limits[10], limits[69]), (20, 18, 18, 16, 5), "{limits:?}");
        let limits = play(&mut size, &mut now, 32, seen(100.0, false), 1.0, false);
        assert_eq!(&limits[..4], [5, 6, 6, 7], "{limits:?}");
        assert_eq!(limits[31], 20);
    }

    #[test]
    fn a_cut_that_costs_throughput_is_taken_back_and_not_repeated_for_five_minutes() {
        let (mut size, mut now) = size(20, 20);
        assert_eq!(play(&mut size, &mut now, 5, seen(200.0, true), 3.0, true), [20, 20, 20, 20, 18]);
        assert_eq!(play(&mut size, &mut now, 6, seen(195.0, true), 3.0, true), [18, 18, 18, 18, 18, 16]);
        // Less than 97% of the best, which was with 20.
        assert_eq!(play(&mut size, &mut now, 5, seen(193.0, true), 3.0, true), [16, 16, 16, 16, 20]);
        assert_eq!(play(&mut size, &mut now, 149, seen(200.0, true), 3.0, true), [20; 149]);
        assert_eq!(play(&mut size, &mut now, 1, seen(200.0, true), 3.0, true), [18]);
    }

    #[test]
    fn a_relapse_makes_the_way_back_slower() {
        let (mut size, mut now) = size(20, 20);
        play(&mut size, &mut now, 5, seen(200.0, true), 3.0, true);
        play(&mut size, &mut now, 5, seen(200.0, true), 1.4, false);
        assert_eq!(play(&mut size, &mut now, 2, seen(200.0, false), 1.0, false), [18, 19]);
        play(&mut size, &mut now, 1, seen(200.0, true), 1.6, false);
        assert_eq!(play(&mut size, &mut now, 4, seen(200.0, false), 1.0, false), [19, 19, 19, 20]);
    }

    /// Without enough leases nothing is decided, but connections that nobody uses do no harm.
    #[test]
    fn a_cut_ends_in_a_quiet_night_too() {
        let (mut size, mut now) = size(20, 20);
        play(&mut size, &mut now, 10, seen(200.0, true), 3.0, true);
        let night = Seen { is_valid: false, ..seen(1.0, false) };
        let limits = play(&mut size, &mut now, 8, night, 1.0, false);
        assert_eq!(limits.last(), Some(&20), "{limits:?}");
    }

    #[test]
    fn min_idle_is_a_floor_and_one_connection_stays_one() {
        let mut size = Size::new(SizeTerms { max_size: 20, min_idle: 12, start: 20 });
        let mut now = Instant::now();
        assert_eq!(play(&mut size, &mut now, 60, seen(200.0, true), 3.0, true)[59], 12);
        let mut one = Size::new(SizeTerms { max_size: 1, min_idle: 0, start: 1 });
        assert_eq!(play(&mut one, &mut now, 5, seen(200.0, true), 3.0, true), [1; 5]);
    }

    #[test]
    fn the_owners_size_holds_at_once() {
        let (mut size, mut now) = size(20, 20);
        size.resize(30);
        assert_eq!(size.limit(), 30, "it was all of it");
        play(&mut size, &mut now, 5, seen(200.0, true), 3.0, true);
        assert_eq!(size.limit(), 27);
        size.resize(10);
        assert_eq!(size.limit(), 10);
        size.resize(40);
        assert_eq!(size.limit(), 40, "it was all of it again");
        let mut started = Size::new(SizeTerms { max_size: 40, min_idle: 0, start: 6 });
        started.resize(3);
        started.resize(40);
        assert_eq!((started.limit(), started.is_cut()), (3, false));
    }
}
