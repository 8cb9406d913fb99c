//! The events of a pool: rare occurrences that the engineer on call needs to know.
//!
//! An event is data with one line for people. The detectors of `policy::watch` find conditions that last. The
//! maintenance and the connections report occurrences. `telemetry` passes the events on. No event holds a password, a
//! query parameter or SQL.
//!
//! The pool repeats the event of a condition every 30 s while it lasts, and reports its end as another event.

mod kind;
mod message;
mod name;
mod severity;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

pub use self::kind::EventKind;
pub use self::severity::Severity;

/// Something that happened to a pool, or a condition that lasts.
///
/// `Display` is one line for an operator: `pool orders: utilization 95% (19/20), 127 waiting`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// The pool's name.
    pub pool: Arc<str>,
    /// When the pool reported it.
    pub at: SystemTime,
    /// What happened, and its details.
    pub kind: EventKind,
}

impl Event {
    pub(crate) fn new(pool: Arc<str>, at: SystemTime, kind: EventKind) -> Self {
        Self { pool, at, kind }
    }

    /// Returns how much the event matters.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}: {}", self.pool, self.kind)
    }
}

#[cfg(test)]
mod tests;
