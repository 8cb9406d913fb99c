//! Tests the faults of [`crate::support::proxy`].

mod bytes;
mod messages;

use std::time::Duration;

/// An expected event happens within this time.
const SOON: Duration = Duration::from_secs(10);

/// A test waits this long to see that nothing happens.
const QUIET: Duration = Duration::from_millis(50);
