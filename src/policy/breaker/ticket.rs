//! What a circuit breaker hands to the calls it admits, and what they bring back.

use std::time::Duration;

use super::State;

/// The generation of calls that are never counted, whenever they end.
const NO_GENERATION: u64 = 0;

/// What a call says of the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// It answered, and the answer was a failure; or nothing more is known.
    Failure,
    /// A failure too: it was not reached, or did not answer.
    Unreachable,
    /// Nothing.
    Ignored,
}

/// A call was admitted. To be recorded or released, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a ticket that is neither recorded nor released may be a probe that never ends"]
pub(crate) struct Ticket {
    pub(super) generation: u64,
    pub(super) is_probe: bool,
}

impl Ticket {
    /// Of a call that was let through without asking, by [`Breaker::free_pass`](super::Breaker::free_pass).
    pub(crate) fn free(generation: u64) -> Self {
        Self { generation, is_probe: false }
    }

    /// Of a call that passes a disabled breaker.
    pub(super) fn uncounted() -> Self {
        Self::free(NO_GENERATION)
    }

    /// The breaker was disabled when this call began: nothing about it is counted or limited.
    pub(crate) fn is_uncounted(self) -> bool {
        self.generation == NO_GENERATION
    }

    pub(crate) fn generation(self) -> u64 {
        self.generation
    }

    pub(crate) fn is_probe(self) -> bool {
        self.is_probe
    }

    /// As one word. 0 is a ticket of which nothing counts.
    pub(crate) fn to_bits(self) -> u64 {
        self.generation << 1 | u64::from(self.is_probe)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { generation: bits >> 1, is_probe: bits & 1 == 1 }
    }
}

/// A call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) state: State,
    /// Never zero.
    pub(crate) retry_after: Duration,
    /// The server was not reached: its first answer ends the open state early.
    pub(crate) may_end_early: bool,
}
