//! The circuit breaker as its users see it: calls, permits, hooks and threads, with the conformance cases for them.

mod by_hand;
mod calls;
mod count_window;
mod events;
mod fallback;
mod fast_path;
#[cfg(feature = "metrics")]
mod metered;
mod opossum;
mod probes;
mod settings;
mod timer;
mod verdicts;

use std::cell::Cell;
use std::mem;

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> BreakerConfig {
    BreakerConfig::default().volume_threshold(1).reset_timeout(5 * SECOND).reset_timeout_jitter(0)
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new(config()).unwrap()
}

fn opossum() -> CircuitBreaker {
    CircuitBreaker::new(BreakerConfig::opossum()).unwrap()
}

async fn succeed() -> Result<u32, &'static str> {
    Ok(7)
}

async fn fail() -> Result<u32, &'static str> {
    Err("broken")
}

async fn takes(time: Duration) -> Result<u32, &'static str> {
    tokio::time::sleep(time).await;
    succeed().await
}

fn half_open() -> Export {
    Export { state: State::HalfOpen, ..Export::default() }
}
