//! Our rolling window as a policy of the `failsafe` crate: when its state machine opens, and for how long.

use std::time::Duration;

use super::BreakerConfig;
use crate::clock::now;
use crate::error::ConfigError;
use crate::policy::{Counts, Settings, Window};

/// The failure rate over a rolling window, as a policy for a [`failsafe::StateMachine`]. Feature `failsafe`.
///
/// It opens the circuit at a failure that makes at least [`error_threshold_percentage`](BreakerConfig::error_threshold_percentage) of at least
/// [`volume_threshold`](BreakerConfig::volume_threshold) calls fail. Until the circuit is closed again, each probe that fails opens it again.
///
/// ```
/// # fn main() -> Result<(), failfast::ConfigError> {
/// use failfast::BreakerConfig;
/// use failfast::breaker::RollingWindow;
/// use failsafe::StateMachine;
///
/// let policy = RollingWindow::new(BreakerConfig::default().error_threshold_percentage(30))?;
/// let machine = StateMachine::new(policy, ());
/// assert!(machine.is_call_permitted());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RollingWindow {
    settings: Settings,
    window: Window,
    /// In a row, without a close between.
    openings: u32,
}

impl RollingWindow {
    /// An empty window. Of `config` it takes the thresholds, the window, its buckets, and the reset timeout with its jitter and growth; for the
    /// rest failsafe has no place.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used, even one that is not taken.
    pub fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        let settings = config.finish()?.settings;
        let window = settings.window(now());
        Ok(Self { settings, window, openings: 0 })
    }

    fn count(&mut self, failures: u64) -> Counts {
        let now = now();
        self.window.add(now, Counts { fires: 1, completed: 1, failures, ..Counts::default() });
        *self.window.sum(now)
    }
}

impl failsafe::FailurePolicy for RollingWindow {
    fn record_success(&mut self) {
        self.count(0);
    }

    fn mark_dead_on_failure(&mut self) -> Option<Duration> {
        let seen = self.count(1);
        // Between an opening and a revival it is asked only for a probe.
        let is_probe = self.openings > 0;
        if !is_probe && self.settings.tripped(&seen).is_none() {
            return None;
        }
        self.openings = self.openings.saturating_add(1);
        Some(self.settings.open_for(self.openings, fastrand::f64()))
    }

    fn revived(&mut self) {
        self.openings = 0;
        if !self.settings.is_opossum() {
            self.window.clear();
        }
    }
}

#[cfg(test)]
mod tests;
