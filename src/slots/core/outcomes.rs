//! What a transition of the core returns.

use std::time::Duration;

use super::held::Held;
use crate::policy::ShedReason;
use crate::slots::queue::WaiterId;

/// Why a caller gets no connection. `E` is the error of the latest dial, which the core does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal<E = ()> {
    Closed,
    /// The caller's deadline passed.
    TimedOut,
    /// The circuit is open.
    CircuitOpen,
    /// The pool refuses the caller for this reason. The caller may come back after this long.
    Shed(ShedReason, Duration),
    /// The pool has no connection and the last dials failed. The next dial may begin after this long.
    Unreachable(E, Duration),
}

impl Refusal {
    /// Adds the error of the latest dial.
    pub(crate) fn with_error<E>(self, error: impl FnOnce() -> E) -> Refusal<E> {
        match self {
            Self::Closed => Refusal::Closed,
            Self::TimedOut => Refusal::TimedOut,
            Self::CircuitOpen => Refusal::CircuitOpen,
            Self::Shed(reason, retry_after) => Refusal::Shed(reason, retry_after),
            Self::Unreachable((), wait) => Refusal::Unreachable(error(), wait),
        }
    }
}

/// What becomes of a caller that enters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered<C> {
    Took(Held<C>),
    Waits(WaiterId),
}

/// Where a connection goes, and which waiters were refused before.
#[derive(Debug)]
pub(crate) struct Placed<C, W> {
    pub(crate) to: Place<C, W>,
    pub(crate) refused: Vec<(WaiterId, W, Refusal)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<C, W> {
    Waiter(WaiterId, W, Held<C>),
    Idle,
    /// The connection has to be closed. It keeps its slot until `Core::on_closed`.
    Closing(C),
}
