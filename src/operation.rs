//! What a caller does with a connection, by the name it gave it, or by the place in its code.
//!
//! A pool that says "holds are nine times longer" helps nobody; one that says whose does.

use std::fmt;
use std::panic::Location;

/// What a connection is, or was, taken for.
///
/// `Display` is the name, or file and line: `load_dashboard`, `src/orders.rs:41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// The name that the caller gave it, with [`Call::name`](crate::Call::name).
    Named(&'static str),
    /// It has no name. The place in the caller's code that took the connection.
    At(&'static Location<'static>),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::At(place) => write!(f, "{}:{}", place.file(), place.line()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_its_name_or_its_place() {
        let place = Location::caller();
        assert_eq!(Operation::Named("load_dashboard").to_string(), "load_dashboard");
        assert_eq!(Operation::At(place).to_string(), format!("{}:{}", file!(), place.line()));
    }
}
