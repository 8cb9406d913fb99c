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
    HeldBack,
    /// The pool refuses the caller for this reason; it may come back after this long.
    Shed(ShedReason, Duration),
    /// Nothing is connected and the last dials failed; the next may begin after this long.
    Unreachable(E, Duration),
}

impl Refusal {
    /// Adds the error of the latest dial.
    pub(crate) fn with_error<E>(self, error: impl FnOnce() -> E) -> Refusal<E> {
        match self {
            Self::Closed => Refusal::Closed,
            Self::TimedOut => Refusal::TimedOut,
            Self::HeldBack => Refusal::HeldBack,
            Self::Shed(reason, retry_after) => Refusal::Shed(reason, retry_after),
            Self::Unreachable((), wait) => Refusal::Unreachable(error(), wait),
        }
    }
}

/// What became of a caller that asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered<C> {
    Took(Held<C>),
    Waits(WaiterId),
}

/// What became of a connection, and who was refused on the way.
#[derive(Debug)]
pub(crate) struct Placed<C, W> {
    pub(crate) to: Place<C, W>,
    pub(crate) refused: Vec<(WaiterId, W, Refusal)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<C, W> {
    Waiter(WaiterId, W, Held<C>),
    Idle,
    /// To be closed; its slot is taken until [`Core::closed`].
    Closing(C),
}
