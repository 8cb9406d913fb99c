//! The pool blames the server only for evidence of its own, and limits what it does about it.

mod cancels;
mod read_only;
mod readiness;
mod states;

use std::time::Duration;

use failfast::breaker::BreakerConfig;

use crate::pool::{LONG, shared};

/// A breaker that counts for an hour and never opens.
fn counting() -> BreakerConfig {
    BreakerConfig::default().rolling_window(Duration::from_secs(3_600)).volume_threshold(10_000)
}
