//! The thresholds and times of a circuit breaker, and the questions that they answer.
//!
//! `BreakerConfig` (`src/breaker/config.rs`) has checked the values, so no number is 0 where that is forbidden.

use std::time::{Duration, Instant};

use super::counts::{Counts, Streak};
use super::latency::{Half, Latencies};
use super::report::Cause;
use super::window::Window;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BreakerParameters {
    pub(crate) rule: Rule,
    /// The failure rate that opens the circuit, in percent.
    pub(crate) error_threshold: u8,
    pub(crate) volume_threshold: u64,
    pub(crate) window: Duration,
    pub(crate) buckets: u32,
    /// The window holds this many calls, whatever their age.
    pub(crate) count_window: Option<u32>,
    pub(crate) reset_timeout: Duration,
    /// The jitter, in percent of the reset timeout.
    pub(crate) jitter: u8,
    pub(crate) growth: Option<Growth>,
    pub(crate) permitted_probes: u32,
    pub(crate) probe_timeout: Duration,
    pub(crate) slow_call: Option<SlowCall>,
    pub(crate) warm_up: bool,
    /// Whether the breaker records how long calls take.
    pub(crate) latency: bool,
}

/// The rule by which the breaker judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Opens at the threshold or above it, as a share of the completed calls, after any of them. Results of calls of an
    /// earlier state do not count.
    Ours,
    /// Opens above the threshold, as a share of the calls that asked, and only after a failure. Results of calls of an
    /// earlier state count. A close forgets nothing.
    Opossum,
}

/// How the reset timeout grows with each opening in a row, without a close between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    pub(crate) factor: f64,
    pub(crate) cap: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlowCall {
    /// A call that takes longer is slow.
    pub(crate) longer_than: Duration,
    /// The rate of slow calls that opens the circuit, in percent.
    pub(crate) threshold: u8,
}

impl BreakerParameters {
    pub(crate) fn is_opossum(&self) -> bool {
        self.rule == Rule::Opossum
    }

    /// Returns an empty window.
    pub(crate) fn window(&self, now: Instant) -> Window {
        self.count_window.map_or_else(|| Window::of_time(now, self.window, self.buckets), Window::of_calls)
    }

    pub(super) fn latencies(&self, now: Instant) -> Option<Latencies> {
        let half =
            self.count_window.map_or(Half::Time(self.window / 2), |calls| Half::Calls(u64::from(calls).div_ceil(2)));
        self.latency.then(|| Latencies::new(now, half))
    }

    /// Returns why a closed circuit should open after a call, given the counts of its window. `None`: it should not.
    pub(crate) fn tripped(&self, window: &Counts) -> Option<Cause> {
        if self.volume(window) < self.volume_threshold {
            None
        } else if self.is_at_threshold(window.failures, self.volume(window)) {
            Some(Cause::FailureRate)
        } else if self.is_too_slow(window) {
            Some(Cause::SlowRate)
        } else {
            None
        }
    }

    /// Returns the cause to open a closed circuit because nothing succeeds any more, if that is so.
    pub(super) fn blackout(&self, now: Instant, streak: &Streak) -> Option<Cause> {
        let lasting = self.window / self.buckets.max(1);
        if self.is_opossum() {
            return None;
        }
        let (failures, lasting) = streak.blackout(now, self.volume_threshold.max(1), lasting)?;
        Some(Cause::NothingSucceeds { failures, lasting })
    }

    /// Returns whether no number of successes can open a closed circuit, given the counts of its window.
    pub(super) fn is_calm(&self, window: &Counts) -> bool {
        let is_judged = self.volume(window) >= self.volume_threshold && self.tripped(window).is_none();
        is_judged || window.failures + window.slow == 0
    }

    /// Returns what the results of the probes mean. `None`: more probes have to end first.
    pub(super) fn judge_probes(&self, probes: &Counts) -> Option<Cause> {
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

    /// Returns the number of calls of which the failure rate is a share.
    fn volume(&self, counts: &Counts) -> u64 {
        if self.is_opossum() { counts.fires } else { counts.completed }
    }

    fn is_at_threshold(&self, failures: u64, volume: u64) -> bool {
        let (part, threshold) = (failures * 100, volume * u64::from(self.error_threshold));
        if self.is_opossum() { part > threshold } else { part >= threshold }
    }

    fn is_too_slow(&self, counts: &Counts) -> bool {
        self.slow_call.is_some_and(|slow| counts.slow * 100 >= counts.completed * u64::from(slow.threshold))
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_call.is_some_and(|slow| took > slow.longer_than)
    }

    /// Returns the failure rate in percent. `None`: there are fewer calls than the volume threshold.
    pub(super) fn failure_rate(&self, counts: &Counts) -> Option<f64> {
        let volume = self.volume(counts);
        (volume >= self.volume_threshold.max(1)).then(|| percent(counts.failures, volume))
    }

    /// Returns the rate of slow calls in percent. `None`: the setting is off, or there are fewer calls than the volume
    /// threshold.
    pub(super) fn slow_rate(&self, counts: &Counts) -> Option<f64> {
        let is_enough = counts.completed >= self.volume_threshold.max(1);
        (is_enough && self.slow_call.is_some()).then(|| percent(counts.slow, counts.completed))
    }

    /// Returns how long the circuit stays open. `openings` is the number of openings in a row, with this one.
    /// `random01` is from 0 to 1.
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
