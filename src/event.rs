//! What a pool has to say for itself: each thing that is rare and that somebody on call would want to know.
//!
//! An event is data with a line for people. Who makes them: the detectors of `policy::watch` find what lasts, the maintenance and the connections tell
//! what happens. Who gets them: `telemetry`. None of them holds a password, a parameter or SQL.
//!
//! What lasts is said again every 30 s, with the time that it has lasted by then, and its end is an event of its own.

mod kind;
mod message;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

pub use self::kind::{EventKind, Severity};

/// Something that happened to a pool, or goes on.
///
/// `Display` is one line for an operator: `pool orders: utilization 95% (19/20), 127 waiting`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// The pool's name.
    pub pool: Arc<str>,
    /// When it was told.
    pub at: SystemTime,
    /// What it is.
    pub kind: EventKind,
}

impl Event {
    pub(crate) fn new(pool: Arc<str>, at: SystemTime, kind: EventKind) -> Self {
        Self { pool, at, kind }
    }

    /// How much it matters.
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
