//! Two seconds of looks at the pool, and what they come to.

use std::time::{Duration, Instant};

/// How long a window is.
pub(super) const WINDOW: Duration = Duration::from_secs(2);
/// A window with fewer leases that ended says nothing about sizes.
const ENOUGH: f64 = 50.0;
/// Above this share of connections in use, a pool may be too small.
const PRESSED: f64 = 0.75;

/// One look at the pool: connections in use (those that are being settled, too) and callers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) in_use: usize,
    pub(super) waiting: usize,
    /// How many connections the pool may use, whoever decides that.
    pub(super) limit: usize,
    /// Callers that asked for a connection since the pool began.
    pub(super) arrivals: u64,
    /// Those of them that left without one.
    pub(super) left: u64,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    /// When it began, and the look before it.
    before: Option<(Instant, Sight)>,
    looks: f64,
    in_use: f64,
    use_sum: f64,
    with_waiters: f64,
    /// The limit has changed within the window.
    is_disturbed: bool,
    limit: Option<usize>,
    /// Leases of which the duration is known, and those of them that were cut short.
    samples: f64,
    cut: f64,
}

/// What a window has shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// On average.
    pub(super) in_use: f64,
    pub(super) utilization: f64,
    /// Leases that ended per second, without those that were cut short: a timeout is no sample.
    pub(super) throughput: f64,
    /// How many leases ended for each one of which the duration is known.
    pub(super) scale: f64,
    /// Whether callers waited at most looks.
    pub(super) has_queue: bool,
    /// Enough leases ended, and the limit stayed the same.
    pub(super) is_valid: bool,
}

impl Seen {
    /// Returns whether anybody had a connection.
    pub(super) fn is_used(&self) -> bool {
        self.utilization > 0.0 || self.throughput > 0.0
    }

    /// Returns whether the pool may be too small: callers wait, and most connections are in use.
    pub(super) fn is_pressed(&self) -> bool {
        self.has_queue && self.utilization > PRESSED
    }
}

impl Window {
    /// A lease has ended.
    pub(super) fn on_lease(&mut self, is_cut: bool) {
        self.samples += 1.0;
        self.cut += f64::from(u8::from(is_cut));
    }

    /// Adds a look. Returns what the window has shown, if it has ended. The next one begins with this look.
    pub(super) fn look(&mut self, now: Instant, sight: Sight) -> Option<Seen> {
        let Some((begun, before)) = self.before else {
            *self = Self { before: Some((now, sight)), ..Self::default() };
            return None;
        };
        self.looks += 1.0;
        self.in_use += sight.in_use as f64;
        self.use_sum += sight.in_use as f64 / sight.limit.max(1) as f64;
        self.with_waiters += f64::from(u8::from(sight.waiting > 0));
        self.is_disturbed |= self.limit.replace(sight.limit).is_some_and(|limit| limit != sight.limit);
        let lasted = now.saturating_duration_since(begun);
        if lasted < WINDOW {
            return None;
        }
        let served = sight.arrivals.saturating_sub(before.arrivals) as f64
            - sight.left.saturating_sub(before.left) as f64
            - (sight.waiting as f64 - before.waiting as f64);
        let ended = (served - (sight.in_use as f64 - before.in_use as f64)).max(0.0);
        let kept = if self.samples > 0.0 { (self.samples - self.cut) / self.samples } else { 1.0 };
        let completed = ended * kept;
        // A process that stood still for long makes one long window, which says little.
        let is_stalled = lasted > 2 * WINDOW;
        let seen = Seen {
            in_use: self.in_use / self.looks,
            utilization: self.use_sum / self.looks,
            throughput: completed / lasted.as_secs_f64(),
            scale: if self.samples > 0.0 { (ended / self.samples).max(1.0) } else { 1.0 },
            has_queue: self.with_waiters * 2.0 >= self.looks,
            is_valid: completed >= ENOUGH && !self.is_disturbed && !is_stalled,
        };
        *self = Self { before: Some((now, sight)), ..Self::default() };
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Duration = Duration::from_millis(250);

    /// Plays looks at a pool with `per_look` callers each, of whom `left` leave. Returns the first window.
    fn play(per_look: u64, left: u64, cut: bool) -> Seen {
        let (mut window, begun) = (Window::default(), Instant::now());
        for look in 0..20 {
            (0..per_look).for_each(|_| window.on_lease(cut));
            let sight = Sight { in_use: 8, waiting: 3, limit: 10, arrivals: per_look * look, left: left * look };
            if let Some(seen) = window.look(begun + QUARTER * u32::try_from(look).unwrap(), sight) {
                return seen;
            }
        }
        panic!("no window");
    }

    #[test]
    fn a_window_counts_leases_that_ended() {
        let seen = play(10, 0, false);
        assert!(seen.is_valid && seen.is_pressed());
        assert!((seen.throughput - 40.0).abs() < 1.0 && (seen.utilization - 0.8).abs() < 1e-9, "{seen:?}");
        assert!(!play(5, 0, false).is_valid, "40 leases are too few");
    }

    /// As in concurrency-limits#137.
    #[test]
    fn timeouts_and_refusals_are_no_samples() {
        assert!((play(20, 10, false).throughput - 40.0).abs() < 1.0);
        let seen = play(10, 0, true);
        assert!(seen.throughput == 0.0 && !seen.is_valid, "{seen:?}");
    }

    #[test]
    fn a_window_in_which_another_changes_the_limit_is_not_valid() {
        let (mut window, begun) = (Window::default(), Instant::now());
        for look in 0..9 {
            let limit = if look < 5 { 10 } else { 8 };
            let sight = Sight { in_use: 8, waiting: 3, limit, arrivals: 100 * look, left: 0 };
            let seen = window.look(begun + QUARTER * u32::try_from(look).unwrap(), sight);
            assert!(seen.is_none_or(|seen| !seen.is_valid));
        }
    }
}
