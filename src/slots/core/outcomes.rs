//! What a transition of the core returns.

use std::time::Duration;

use super::held::Held;
use crate::slots::queue::WaiterId;

/// Why a caller gets no connection, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    Expired,
    /// The circuit is open.
    HeldBack,
    QueueFull(Duration),
    /// It would wait longer than it can.
    Hopeless(Duration),
    /// Its turn came, but too late for its work to be done in time.
    TooLate(Duration),
    /// More is asked of the pool than it can do, and enough wait to keep it busy.
    Overloaded(Duration),
    /// Readers hold all connections, and need longer than the caller can wait.
    Unread(Duration),
    /// Nothing is connected and the last dials failed; the next may begin after this long.
    Unreachable(Duration),
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
    pub(crate) refused: Vec<(WaiterId, W, Refused)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<C, W> {
    Waiter(WaiterId, W, Held<C>),
    Idle,
    /// To be closed; its slot is taken until [`Core::closed`].
    Closing(C),
}
