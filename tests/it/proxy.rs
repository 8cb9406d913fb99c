//! The faults of [`crate::support::proxy`] do what they promise.

mod bytes;
mod messages;

use std::time::Duration;

/// What is expected to happen happens within this time.
const SOON: Duration = Duration::from_secs(10);

/// What is expected not to happen is awaited for this long.
const QUIET: Duration = Duration::from_millis(50);
