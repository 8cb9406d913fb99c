//! The failsafe crate, in both directions: its state machine as a pool's breaker, and our rolling window as its policy.

use std::time::Duration;

use super::BreakerConfig;
use super::pool::Machine;
use crate::clock::now;
use crate::error::ConfigError;
use crate::policy::{BreakerParameters, Counts, Window};

impl<P, I> Machine for failsafe::StateMachine<P, I>
where
    P: failsafe::FailurePolicy + Send,
    I: failsafe::Instrument + Send + Sync,
{
    fn permits(&self) -> bool {
        self.is_call_permitted()
    }

    fn record_success(&self) {
        self.on_success();
    }

    fn record_failure(&self) {
        self.on_error();
    }
}

/// The failure rate over a rolling window, as a policy for a [`failsafe::StateMachine`]. Feature `failsafe`.
///
/// It opens the circuit at a failure, if at least
/// [`error_threshold_percentage`](BreakerConfig::error_threshold_percentage) of at least
/// [`volume_threshold`](BreakerConfig::volume_threshold) calls have failed. Until the circuit closes again, each failed
/// probe opens it again.
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
    settings: BreakerParameters,
    window: Window,
    /// Openings in a row, without a close between them.
    openings: u32,
}

impl RollingWindow {
    /// Makes an empty window. It uses the thresholds, the window with its buckets, and the reset timeout with its
    /// jitter and growth. failsafe has no use for the other settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used, even if the policy does not use it.
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
        let sum = self.count(1);
        // While the circuit is not closed, the only calls are probes.
        let is_probe = self.openings > 0;
        if !is_probe && self.settings.tripped(&sum).is_none() {
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
