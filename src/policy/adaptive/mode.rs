//! The owner's choice: off, advise or act.

use std::fmt;

/// Whether the pool's limit follows the database: `PoolBuilder::adaptive`, feature `fleet`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Adaptive {
    /// The limit is `max_size`, or what a fleet grants. Nothing is measured.
    #[default]
    Off,
    /// The pool says what it would change and why, and changes nothing.
    Advise,
    /// The pool changes its limit, and limits single operations.
    Act,
}

impl Adaptive {
    /// Returns a word that never changes: `off`, `advise` or `act`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advise => "advise",
            Self::Act => "act",
        }
    }
}

impl fmt::Display for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
