//! The answers of a circuit breaker to a call, [`Ticket`] and [`Denied`], and the [`ResultKind`] that the call returns.

use std::time::Duration;

use super::State;

/// The generation of tickets that never count, whenever their call ends.
const NO_GENERATION: u64 = 0;

/// What a result says about the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultKind {
    Success,
    /// The dependency answered with a failure, or nothing more is known.
    Failure,
    /// A failure: the dependency was not reached, or did not answer.
    Unreachable,
    /// The result says nothing about the dependency.
    Ignored,
}

/// The proof that the breaker admitted a call. It has to be recorded or released, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a probe whose ticket is neither recorded nor released never ends"]
pub(crate) struct Ticket {
    pub(super) generation: u64,
    pub(super) is_probe: bool,
}

impl Ticket {
    /// The ticket of a call that is no probe.
    pub(crate) fn regular(generation: u64) -> Self {
        Self { generation, is_probe: false }
    }

    /// The ticket of a call that passes a disabled breaker.
    pub(super) fn uncounted() -> Self {
        Self::regular(NO_GENERATION)
    }

    /// Returns whether the breaker was disabled when the call began. The breaker does not count or limit such a call.
    pub(crate) fn is_uncounted(self) -> bool {
        self.generation == NO_GENERATION
    }

    pub(crate) fn generation(self) -> u64 {
        self.generation
    }

    pub(crate) fn is_probe(self) -> bool {
        self.is_probe
    }

    /// Returns the ticket as one word. 0 is the ticket of an uncounted call.
    pub(crate) fn to_bits(self) -> u64 {
        self.generation << 1 | u64::from(self.is_probe)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { generation: bits >> 1, is_probe: bits & 1 == 1 }
    }
}

/// The breaker rejected a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) state: State,
    /// When the caller should ask again. Never zero.
    pub(crate) retry_after: Duration,
    /// The server was not reached, so its first answer ends the open state before `retry_after`.
    pub(crate) may_end_early: bool,
}
