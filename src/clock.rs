//! The clock of the pool and of the breaker. It is Tokio's clock, which tests can pause.

use std::time::Instant;

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
