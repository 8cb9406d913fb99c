//! What a read needs of the server that serves it.

use std::time::{Duration, Instant};

use super::Position;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Need {
    /// Any replica that is not far behind.
    Any,
    /// Everything that was committed longer ago than this.
    Within(Duration),
    /// Everything that was committed before this instant.
    Since(Instant),
    /// Everything up to this place in the log.
    Position(Position),
}
