//! What a circuit breaker goes by: its thresholds and times, and the questions that they answer.
//!
//! Checked by the builder in `crate::breaker`, so nothing here is zero that must not be.

use std::time::{Duration, Instant};

use super::latency::{Half, Latencies};
use super::report::Cause;
use super::streak::Streak;
use crate::policy::window::{Counts, Window};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    pub(crate) rule: Rule,
    /// In percent.
    pub(crate) error_threshold: u8,
    pub(crate) volume_threshold: u64,
    pub(crate) window: Duration,
    pub(crate) buckets: u32,
    /// The window holds so many calls, however long ago.
    pub(crate) count_window: Option<u32>,
    pub(crate) reset_timeout: Duration,
    /// In percent of the reset timeout.
    pub(crate) jitter: u8,
    pub(crate) growth: Option<Growth>,
    pub(crate) permitted_probes: u32,
    pub(crate) probe_timeout: Duration,
    pub(crate) slow_call: Option<SlowCall>,
    pub(crate) warm_up: bool,
    /// How long calls take is remembered.
    pub(crate) latency: bool,
}

/// Whose way of judging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// At or above the threshold, of the calls that completed, after each of them. Late results of an earlier state do not count.
    Ours,
    /// Above the threshold, of the calls that asked, and only after a failure. Late results count; a close forgets nothing.
    Opossum,
}

/// How the reset timeout grows with each opening that follows another without a close between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    pub(crate) factor: f64,
    pub(crate) cap: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlowCall {
    /// A call that takes longer is slow.
    pub(crate) longer_than: Duration,
    /// In percent.
    pub(crate) threshold: u8,
}

impl Settings {
    pub(crate) fn is_opossum(&self) -> bool {
        self.rule == Rule::Opossum
    }

    /// An empty one.
    pub(crate) fn window(&self, now: Instant) -> Window {
        self.count_window.map_or_else(|| Window::of_time(now, self.window, self.buckets), Window::of_calls)
    }

    pub(super) fn latencies(&self, now: Instant) -> Option<Latencies> {
        let half =
            self.count_window.map_or(Half::Time(self.window / 2), |calls| Half::Calls(u64::from(calls).div_ceil(2)));
        self.latency.then(|| Latencies::new(now, half))
    }

    /// Why a closed circuit that has seen this, and a call just now, should open. `None`: it should not.
    pub(crate) fn tripped(&self, seen: &Counts) -> Option<Cause> {
        if self.volume(seen) < self.volume_threshold {
            None
        } else if self.is_at_threshold(seen.failures, self.volume(seen)) {
            Some(Cause::FailureRate)
        } else if self.is_too_slow(seen) {
            Some(Cause::SlowRate)
        } else {
            None
        }
    }

    /// Whether everything has stopped.
    pub(super) fn blackout(&self, now: Instant, streak: &Streak) -> Option<Cause> {
        let lasting = self.window / self.buckets.max(1);
        if self.is_opossum() {
            return None;
        }
        let (failures, lasting) = streak.blackout(now, self.volume_threshold.max(1), lasting)?;
        Some(Cause::NothingSucceeds { failures, lasting })
    }

    /// Whether successes, however many, cannot open a closed circuit that has seen this.
    pub(super) fn is_calm(&self, seen: &Counts) -> bool {
        let is_judged = self.volume(seen) >= self.volume_threshold && self.tripped(seen).is_none();
        is_judged || seen.failures + seen.slow == 0
    }

    /// What probes have shown. `None`: more of them are needed.
    pub(super) fn verdict(&self, probes: &Counts) -> Option<Cause> {
        let bad = if self.is_opossum() {
            probes.failures > 0
        } else {
            self.is_at_threshold(probes.failures, probes.completed)
        };
        if probes.completed < u64::from(self.permitted_probes) {
            None
        } else if bad || self.is_too_slow(probes) {
            Some(Cause::ProbesFailed)
        } else {
            Some(Cause::ProbesPassed)
        }
    }

    /// What the failure rate is a share of.
    fn volume(&self, seen: &Counts) -> u64 {
        if self.is_opossum() { seen.fires } else { seen.completed }
    }

    fn is_at_threshold(&self, failures: u64, volume: u64) -> bool {
        let (part, threshold) = (failures * 100, volume * u64::from(self.error_threshold));
        if self.is_opossum() { part > threshold } else { part >= threshold }
    }

    fn is_too_slow(&self, seen: &Counts) -> bool {
        self.slow_call.is_some_and(|slow| seen.slow * 100 >= seen.completed * u64::from(slow.threshold))
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_call.is_some_and(|slow| took > slow.longer_than)
    }

    /// In percent; `None` while too little has been seen to say.
    pub(super) fn failure_rate(&self, seen: &Counts) -> Option<f64> {
        let volume = self.volume(seen);
        (volume >= self.volume_threshold.max(1)).then(|| percent(seen.failures, volume))
    }

    /// In percent; `None` while too little has been seen to say, or the trigger is off.
    pub(super) fn slow_rate(&self, seen: &Counts) -> Option<f64> {
        let enough = seen.completed >= self.volume_threshold.max(1);
        (enough && self.slow_call.is_some()).then(|| percent(seen.slow, seen.completed))
    }

    /// For how long the circuit stays open, at the so many-th opening in a row. `random01` is from 0 to 1.
    pub(crate) fn open_for(&self, openings: u32, random01: f64) -> Duration {
        let grown = self.growth.map_or(self.reset_timeout, |growth| {
            let exponent = i32::try_from(openings.saturating_sub(1)).unwrap_or(i32::MAX);
            let seconds = self.reset_timeout.as_secs_f64() * growth.factor.powi(exponent);
            Duration::try_from_secs_f64(seconds).unwrap_or(growth.cap).min(growth.cap)
        });
        grown + grown.mul_f64(f64::from(self.jitter) / 100.0 * random01.clamp(0.0, 1.0))
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64 * 100.0
}
