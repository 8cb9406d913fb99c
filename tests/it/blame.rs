//! No single answer condemns the server, and a cure has a brake.

mod cancels;
mod read_only;
mod readiness;
mod states;

use std::time::Duration;

use failfast::breaker::BreakerConfig;

use crate::pool::{LONG, shared};

/// One that forgets nothing and never opens.
fn counting() -> BreakerConfig {
    BreakerConfig::default().rolling_window(Duration::from_secs(3_600)).volume_threshold(10_000)
}
