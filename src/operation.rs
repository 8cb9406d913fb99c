//! The operation for which a caller takes a connection: its name, or the place in the caller's code.
//!
//! Events and metrics name the operation, so that an operator knows which one holds connections longer than before.

use std::fmt;
use std::panic::Location;

/// The operation for which a connection was taken.
///
/// `Display` is the name, or file and line: `load_dashboard`, `src/orders.rs:41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// The name that the caller gave it, with [`Call::name`](crate::Call::name).
    Named(&'static str),
    /// The place in the caller's code that took the connection, if the operation has no name.
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
    fn an_operation_is_shown_as_its_name_or_its_place() {
        let place = Location::caller();
        assert_eq!(Operation::Named("load_dashboard").to_string(), "load_dashboard");
        assert_eq!(Operation::At(place).to_string(), format!("{}:{}", file!(), place.line()));
    }
}
