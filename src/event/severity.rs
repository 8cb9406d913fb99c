//! How much an event matters.

use std::fmt;

/// How much an event matters. The later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Good to know afterwards.
    Info,
    /// Somebody should look, today.
    Warning,
    /// Callers are turned away, or are about to be, or are no longer: somebody should look now, unless it [is an end](crate::EventKind::is_end).
    Critical,
}

impl Severity {
    /// A word that never changes: `info`, `warning`, `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
